from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from fedtrain.data.schema import Schema, parsed
from fedtrain.data.schema_encoding import encoded
from fedtrain.export.raw_examples import (
    encoded_in_graph,
    input_names,
    raw_inputs,
    raw_signature,
)
from fedtrain.export.synthetic import synthetic_table
from tests.unit.export.rows_of_a_table import SCHEMA


@pytest.fixture
def table() -> dict[str, Any]:
    drawn = dict(synthetic_table(SCHEMA, 50))
    drawn["monthly income"][::7] = np.nan
    drawn["job"][::5] = None
    return drawn


def test_graph_encodes_rows_exactly_as_training_did(table: dict[str, Any]) -> None:
    expected = encoded(SCHEMA, table).features
    actual = encoded_in_graph(SCHEMA, _tensors(SCHEMA, table))
    np.testing.assert_array_equal(actual.numpy(), expected)


def test_columns_of_any_name_are_inputs_of_a_saved_model(
    tmp_path: Path, table: dict[str, Any]
) -> None:
    module = tf.Module()
    module.raw = tf.function(
        lambda columns: {"features": encoded_in_graph(SCHEMA, columns)},
        input_signature=[raw_signature(SCHEMA)],
        autograph=False,
    )
    tf.saved_model.save(module, str(tmp_path / "saved"), signatures=module.raw)
    loaded = tf.saved_model.load(str(tmp_path / "saved"))
    found = loaded.signatures["serving_default"](**_tensors(SCHEMA, table))
    np.testing.assert_array_equal(
        found["features"].numpy(), encoded(SCHEMA, table).features
    )


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("region", "3", "not one of 1, 2, north/east"),
        ("region", None, "not one of"),
        ("age", np.nan, "(?s)a value is missing.*age"),
    ],
)
def test_what_training_refuses_is_refused_in_the_graph(
    table: dict[str, Any], column: str, value: Any, message: str
) -> None:
    table[column][3] = value
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        encoded_in_graph(SCHEMA, _tensors(SCHEMA, table))


def test_input_names_are_unique_and_fit_for_tensorflow() -> None:
    number = {"kind": "number", "encoding": "keep"}
    label = SCHEMA.label.model_dump(mode="json", exclude_none=True)
    names = ["pay 0", "pay_0", "PAY-0", "2nd", "ok"]
    features = [{"name": name, **number} for name in names]
    schema = parsed({"features": features, "label": label}, where="test")
    found = list(input_names(schema).values())
    assert found == ["pay_0", "pay_0_2", "PAY_0_3", "column_2nd", "ok"]


def test_array_columns_are_inputs_of_their_own() -> None:
    image = {"name": "image", "kind": "array", "shape": [2, 3], "encoding": "keep"}
    label = SCHEMA.label.model_dump(mode="json", exclude_none=True)
    schema = parsed({"features": [image], "label": label}, where="test")
    drawn = synthetic_table(schema, 4)
    found = encoded_in_graph(schema, _tensors(schema, drawn))
    np.testing.assert_array_equal(found.numpy(), encoded(schema, drawn).features)


def _tensors(schema: Schema, table: Any) -> dict[str, tf.Tensor]:
    return {name: tf.constant(v) for name, v in raw_inputs(schema, table).items()}
