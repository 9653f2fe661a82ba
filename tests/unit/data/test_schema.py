import json
import tracemalloc

import numpy as np
import pandas as pd
import pytest

from fedtrain.core.errors import DataError, PrivacyError
from fedtrain.data.readers import from_dataframe
from fedtrain.data.schema import load_schema
from fedtrain.data.schema_check import check
from fedtrain.data.schema_encoding import encoded, feature_names
from fedtrain.data.schema_inference import infer_schema
from fedtrain.data.tables import table_of
from fedtrain.data.tabular import require_declared, schema_of


def frame():
    return pd.DataFrame(
        {
            "bank": ["b", "a", "b", "a"],
            "age": [20, 40, 60, 80],
            "income": [1.5, None, 2.5, 3.5],
            "job": ["cook", "nurse", "cook", "judge"],
            "default": [0, 1, 0, 1],
        }
    )


def schema():
    return infer_schema(frame(), label="default", client="bank")


def test_what_is_inferred_is_marked_so():
    age, income, job = schema().features
    assert (age.kind, age.whole, age.range.minimum, age.range.maximum) == (
        *("number", True),
        *(20, 80),
    )
    assert income.missing.allowed
    assert not age.missing.allowed
    assert job.categories.values == ("cook", "judge", "nurse")
    assert {age.range.source, job.categories.source} == {"inferred"}
    assert schema().num_classes == 2


def test_a_word_among_numbers_is_named_and_codes_stay_categories():
    rows = pd.DataFrame({"dose": [*range(30), "high"], "y": [0] * 31})
    with pytest.raises(DataError, match=r"Row 30 .*'dose' is 'high', but 30 of 31"):
        infer_schema(rows, label="y")
    codes = rows.assign(dose=["1", "2", "10+"] * 10 + ["1"])
    (dose,) = infer_schema(codes, label="y").features
    assert dose.categories.values == ("1", "2", "10+")


def test_encoding_standardises_and_codes():
    examples = encoded(schema(), table_of(frame()))
    assert feature_names(schema()) == (
        *("age", "income", "income is missing"),
        *("job=cook", "job=judge", "job=nurse"),
    )
    assert examples.features.dtype == np.float32
    assert np.allclose(examples.features[:, 0].mean(), 0, atol=1e-6)
    assert np.allclose(examples.features[:, 0].std(), 1, atol=1e-6)
    assert examples.features[1].tolist()[1:] == [0, 1, 0, 0, 1]
    assert examples.labels.tolist() == [0, 1, 0, 1]


def test_an_entity_has_one_number_whatever_rows_it_is_encoded_with():
    rows = frame().assign(person=["eve", "bob", "bob", "ann"])
    roles = infer_schema(rows, label="default", client="bank", entity="person")
    whole = encoded(roles, table_of(rows)).entity_ids
    parts = [encoded(roles, table_of(rows.iloc[[i]])).entity_ids[0] for i in range(4)]
    assert whole.tolist() == parts
    assert len(set(parts)) == 3


def test_a_saved_schema_is_the_same(tmp_path):
    schema().save(tmp_path / "schema.json")
    loaded = load_schema(tmp_path / "schema.json")
    assert loaded == schema()
    assert loaded.hash == schema().hash
    assert loaded.hash != schema().with_source("public").hash


def test_a_wrong_schema_file_names_key_and_value(tmp_path):
    path = tmp_path / "schema.json"
    schema().save(path)
    path.write_text(path.read_text().replace('"number"', '"numbr"', 1))
    with pytest.raises(
        DataError, match=r"schema\.json: key 'features\.0\.kind'.*numbr"
    ):
        load_schema(path)
    with pytest.raises(DataError, match="cannot be read"):
        load_schema(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        ("age", 212, "value 212: it is outside the inferred range 20 to 80"),
        ("age", 20.5, r"value 20\.5: it is not a whole number"),
        ("age", None, "value nan: a value is missing"),
        ("age", "old", "value 'old': it is not a finite number"),
        ("income", np.inf, "value inf: it is not a finite number"),
        ("job", "pilot", "'pilot': it is not one of the inferred 'cook', 'judge'"),
        ("default", 2, "value 2: it is not one of the inferred '0', '1'"),
        ("default", None, "value nan: a label is missing"),
    ],
)
def test_errors_name_client_row_column_and_value(column, value, reason):
    broken = frame()
    broken[column] = broken[column].astype(object)
    broken.loc[2, column] = value
    with pytest.raises(
        DataError, match=f"loans: client 'b', row 2 .*'{column}', .*{reason}"
    ):
        check(schema(), table_of(broken.infer_objects()), where="loans")


def test_a_label_cannot_be_declared_missing(tmp_path):
    content = schema().as_dict()
    content["label"]["missing"]["allowed"] = True
    path = tmp_path / "schema.json"
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"schema\.json.*a label cannot be missing"):
        load_schema(path)


def test_an_absent_column_is_named():
    with pytest.raises(DataError, match=r"no column 'job'.*it has: bank, age"):
        check(schema(), table_of(frame().drop(columns="job")))


def test_a_program_is_told_how_a_value_may_be_missing():
    roles = {"label": "default", "client": "bank"}
    with pytest.raises(DataError, match=r"missing\..* allow_missing=True") as refused:
        from_dataframe(frame(), **roles)
    assert "schema_path" not in str(refused.value)
    from_dataframe(frame(), **roles, allow_missing=True)
    from_dataframe(frame(), schema=schema())


def test_inferred_facts_of_private_data_are_refused():
    roles = {"label": "default", "client": "bank", "allow_missing": True}
    private = from_dataframe(frame(), **roles)
    with pytest.raises(
        PrivacyError,
        match=r"age \(moments\); income \(missing, moments\); job \(categories\); "
        r"default \(categories\)",
    ):
        require_declared(private)
    public = from_dataframe(frame(), **roles, sensitivity="public")
    require_declared(public)
    declared = schema_of(private).with_source("declared")
    require_declared(from_dataframe(frame(), schema=declared))


def test_texts_with_too_many_values_are_refused():
    many = pd.DataFrame({"name": [f"n{i}" for i in range(1001)], "y": 0})
    with pytest.raises(DataError, match="'name' has 1001 different texts"):
        infer_schema(many, label="y")


@pytest.mark.parametrize("dtype", ["uint8", "int32", "float32"])
def test_arrays_are_described_without_a_copy(dtype):
    images = np.ones([4, 500, 500], dtype)
    tracemalloc.start()
    try:
        image = infer_schema({"image": images, "y": np.arange(4)}, label="y")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < images.nbytes / 2
    assert image.features[0].range.maximum == (255 if dtype == "uint8" else 1)


def test_the_range_of_arrays_is_of_finite_numbers():
    table = {"image": np.array([[1.0, np.nan], [np.inf, 3.0]]), "y": np.arange(2)}
    (image,) = infer_schema(table, label="y").features
    assert (image.range.minimum, image.range.maximum) == (1, 3)


def test_arrays_become_inputs_of_their_own():
    table = {
        "image": np.full([4, 2, 2], 255, np.uint8),
        "age": np.arange(4.0),
        "y": np.arange(4) % 2,
    }
    examples = encoded(infer_schema(table, label="y"), table)
    assert set(examples.features) == {"image", "columns"}
    assert examples.features["image"].dtype == np.float32
    assert examples.features["image"].max() == 1.0
