"""TFLite metadata, read back by the published schema."""

import io
import zipfile
from types import SimpleNamespace
from typing import Any

import flatbuffers
import numpy as np
import pytest
import tensorflow as tf
from flatbuffers import number_types
from tensorflow.lite.python import schema_py_generated as tflite

from fedtrain.data.schema_encoding import feature_names
from fedtrain.export.edge_metadata import BUFFER_NAME, with_metadata
from tests.unit.export.rows_of_a_table import SCHEMA

COLUMNS = feature_names(SCHEMA)


@pytest.fixture(scope="module")
def content() -> bytes:
    module = tf.Module()
    module.kernel = tf.Variable(np.ones([len(COLUMNS), 2], np.float32))
    module.outputs = tf.function(
        lambda features: {"outputs": features @ module.kernel},
        input_signature=[tf.TensorSpec([None, len(COLUMNS)], tf.float32, "features")],
    )
    function = module.outputs.get_concrete_function()
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function], module)
    return bytes(converter.convert())


@pytest.fixture(scope="module")
def described(content: bytes) -> bytes:
    source: Any = SimpleNamespace(
        name="credit", schema=SCHEMA, label_names=("no", "yes"), status="simulation"
    )
    return with_metadata(content, source, "float32")


def test_reader_of_the_published_schema_finds_all_of_it(described: bytes) -> None:
    root = metadata(described)
    assert root.text(0) == "credit"
    assert "simulation" in root.text(1)
    (graph,) = root.tables(3)
    (given,), (answer,) = graph.tables(2), graph.tables(3)
    assert (given.text(0), answer.text(0)) == ("features", "outputs")
    (unit,) = given.tables(4)
    assert unit.byte(0) == 1  # NormalizationOptions
    options = unit.table(1)
    means = {"monthly income": 2103.7, "age": 18.0}
    scales = {"monthly income": 517.3, "age": 81.0}
    assert options.floats(0) == pytest.approx([means.get(n, 0.0) for n in COLUMNS])
    assert options.floats(1) == pytest.approx([scales.get(n, 1.0) for n in COLUMNS])
    (labels,) = answer.tables(6)
    assert (labels.text(0), labels.byte(2)) == ("labels.txt", 2)
    assert root.text(7) == "1.0.0"


def test_files_it_names_are_in_the_archive(described: bytes) -> None:
    with zipfile.ZipFile(io.BytesIO(described)) as archive:
        assert archive.read("labels.txt").decode() == "no\nyes"
        columns = archive.read("columns.txt").decode().split("\n")
    region = [f"region={value}" for value in ("1", "2", "north/east")]
    income = ["monthly income", "monthly income is missing"]
    assert columns[:6] == [*income, *region, "age"]
    assert columns == list(COLUMNS)


def test_model_computes_what_it_did(content: bytes, described: bytes) -> None:
    runtime = pytest.importorskip("ai_edge_litert.interpreter")
    rows = np.random.default_rng(0).normal(size=(1, len(COLUMNS))).astype(np.float32)
    first, second = (
        runtime.Interpreter(model_content=model).get_signature_runner()(features=rows)
        for model in (content, described)
    )
    np.testing.assert_array_equal(first["outputs"], second["outputs"])


class Table:
    """Fields by number, as metadata_schema.fbs orders them."""

    def __init__(self, content: bytes, position: int) -> None:
        self._content = content
        self._table = flatbuffers.table.Table(content, position)

    def _at(self, field: int) -> int:
        offset = self._table.Offset(4 + 2 * field)
        assert offset, f"field {field} is missing"
        return int(offset) + int(self._table.Pos)

    def text(self, field: int) -> str:
        return str(self._table.String(self._at(field)).decode())

    def byte(self, field: int) -> int:
        return int(self._table.Get(number_types.Uint8Flags, self._at(field)))

    def table(self, field: int) -> "Table":
        return Table(self._content, self._table.Indirect(self._at(field)))

    def _vector(self, field: int) -> range:
        offset = self._at(field) - self._table.Pos
        start = self._table.Vector(offset)
        return range(start, start + 4 * self._table.VectorLen(offset), 4)

    def tables(self, field: int) -> list["Table"]:
        places = self._vector(field)
        return [Table(self._content, self._table.Indirect(p)) for p in places]

    def floats(self, field: int) -> list[float]:
        flags = number_types.Float32Flags
        return [float(self._table.Get(flags, p)) for p in self._vector(field)]


def metadata(content: bytes) -> Table:
    model = tflite.ModelT.InitFromPackedBuf(bytearray(content), 0)
    (entry,) = (m for m in model.metadata if m.name == BUFFER_NAME.encode())
    data = bytes(bytearray(model.buffers[entry.buffer].data))
    assert data[4:8] == b"M001"
    (root,) = np.frombuffer(data[:4], "<u4")
    return Table(data, int(root))
