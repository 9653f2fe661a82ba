"""The page's own encoding, in Node, against the schema's in Python."""

import json
import subprocess
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fedtrain.data.schema import Schema, parsed
from fedtrain.data.schema_check import problems
from fedtrain.data.schema_encoding import encoded
from fedtrain.export.node import WEB_TEMPLATES, node_program
from fedtrain.export.web_page import page_columns
from tests.unit.export.rows_of_a_table import SCHEMA, TABLE
from tests.unit.export.web_models import image_source, table_source

_SCRIPT = """
const { columns, rows } = JSON.parse(require("fs").readFileSync(0, "utf8"));
const plain = (inputs) => Object.fromEntries(
  Object.entries(inputs).map(([k, v]) => [k, { ...v, values: Array.from(v.values) }])
);
const found = rows.map((row) => ({
  problems: Object.fromEntries(columns.map((c) => [c.name, problemOf(c, row[c.name])])),
  inputs: columns.some((c) => problemOf(c, row[c.name])) ? null
    : plain(encodedRow(columns, row)),
}));
process.stdout.write(JSON.stringify(found));
"""


def test_typed_rows_are_encoded_exactly_as_the_schema_does() -> None:
    num_rows = len(TABLE["age"])
    found = _in_page(SCHEMA, [_typed(TABLE, i) for i in range(num_rows)])
    expected = encoded(SCHEMA, TABLE).features
    for i in range(num_rows):
        assert found[i]["problems"] == dict.fromkeys(found[i]["problems"])
        values = np.array(found[i]["inputs"]["features"]["values"], np.float32)
        np.testing.assert_array_equal(values, expected[i])
        assert found[i]["inputs"]["features"]["shape"] == [1, expected.shape[1]]


@pytest.mark.parametrize(
    ("column", "text", "value"),
    [
        ("age", "17", 17.0),
        ("age", "33.5", 33.5),
        ("age", None, np.nan),
        ("score", "0x10", "0x10"),
        ("score", "1e999", np.inf),
        ("region", "3", "3"),
        ("region", None, None),
    ],
)
def test_what_the_schema_refuses_the_page_refuses_with_the_same_words(
    column: str, text: str | None, value: Any
) -> None:
    row = {**_typed(TABLE, 0), column: text}
    (found,) = _in_page(SCHEMA, [row])
    table = {name: values[:1].astype(object) for name, values in TABLE.items()}
    table[column][0] = value
    reasons = {p.column: p.reason for p in problems(SCHEMA, table)}
    assert found["problems"] == {**dict.fromkeys(found["problems"]), **reasons}
    assert found["inputs"] is None
    assert list(reasons) == [column]


def test_array_columns_are_inputs_of_their_own() -> None:
    codes = {"name": "codes", "kind": "array", "shape": [2, 2], "whole": True}
    image = {
        "name": "image",
        "kind": "array",
        "shape": [3],
        "encoding": "min_max",
        "range": {"minimum": 0, "maximum": 255, "source": "declared"},
    }
    label = SCHEMA.label.model_dump(mode="json", exclude_none=True)
    age = SCHEMA.features[2].model_dump(mode="json", exclude_none=True)
    schema = parsed({"features": [codes, age, image], "label": label}, where="test")
    table = {
        "codes": np.array([[[1, 2], [3, 4]]]),
        "age": np.array([40.0]),
        "image": np.array([[0.0, 17.0, 255.0]]),
        "repays": np.array(["no"], object),
    }
    row = {"codes": "1, 2; 3 4", "age": "40", "image": "0 17 255"}
    bad = {"codes": "1 2 3", "age": "40", "image": "0 256 1"}
    good, refused = _in_page(schema, [row, bad])
    for name, expected in encoded(schema, table).features.items():
        assert good["inputs"][name]["shape"] == list(expected.shape)
        values = np.array(good["inputs"][name]["values"], expected.dtype)
        np.testing.assert_array_equal(values, expected.ravel())
    assert refused["problems"]["codes"] == "it has 3 numbers, not 4"
    assert refused["problems"]["image"] == "it is outside the declared range 0 to 255"


def test_fields_start_with_values_that_the_schema_allows() -> None:
    columns = page_columns(table_source())
    row = {c["name"]: c.get("example") for c in columns}
    row |= {
        c["name"]: c["categories"]["values"][0] for c in columns if "categories" in c
    }
    (found,) = _in_page(SCHEMA, [row])
    assert found["inputs"] is not None


def test_images_are_drawn_and_other_vectors_typed() -> None:
    images = image_source()
    (column,) = page_columns(images)
    assert (column["drawing"]["height"], column["drawing"]["box"]) == (28, [20, 20])
    vectors = images.evaluation.features[:, :5, 0, 0]
    named = _with(images, vectors, feature_names=tuple("abcde"), info={})
    assert [c["kind"] for c in page_columns(named)] == ["number"] * 5
    small = images.evaluation.features[:, :8, :8, 0].reshape(-1, 64)
    drawn = _with(images, small, feature_names=(), info={"image_shape": (8, 8)})
    assert page_columns(drawn)[0]["shape"] == [64]
    assert page_columns(drawn)[0]["drawing"]["width"] == 8


def _with(images: Any, features: Any, **facts: Any) -> Any:
    split = SimpleNamespace(**facts)
    run = SimpleNamespace(project=lambda: SimpleNamespace(split=split))
    evaluation = replace(images.evaluation, features=features)
    return replace(images, run=run, evaluation=evaluation)


def _typed(table: Any, row: int) -> dict[str, str | None]:
    """What a person would type, with every digit."""
    values = {name: table[name][row] for name in table if name != "repays"}
    missing = {k: v is None or v != v for k, v in values.items()}
    texts = {
        k: repr(float(v)) if isinstance(v, float) else v for k, v in values.items()
    }
    return {k: None if missing[k] else text for k, text in texts.items()}


def _in_page(schema: Schema, rows: list[Any]) -> list[Any]:
    columns = schema.model_dump(mode="json", exclude_none=True)["features"]
    script = (WEB_TEMPLATES / "encoding.js").read_text("utf-8") + _SCRIPT
    done = subprocess.run(
        [node_program(), "-e", script],
        input=json.dumps({"columns": columns, "rows": rows}),
        capture_output=True,
        text=True,
        check=True,
    )
    found: list[Any] = json.loads(done.stdout)
    return found
