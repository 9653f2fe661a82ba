"""TFLite metadata: what a file's inputs and outputs mean, for whoever loads it.

A flatbuffer within the model (buffer ``TFLITE_METADATA``) names inputs and outputs, how
features were normalised and which files go with them; the files are a zip archive at
the end of the model, which any zip program opens.

Source: TensorFlow Lite Support, ``metadata_schema.fbs`` (identifier M001).
"""

import io
import json
import zipfile
from collections.abc import Sequence
from typing import Any

import flatbuffers  # type: ignore[import-untyped] # ships no types
import numpy as np
from tensorflow.lite.python import schema_py_generated as tflite

from fedtrain.data.schema import Column, Schema
from fedtrain.data.schema_encoding import COLUMNS, feature_names
from fedtrain.export.facts import model_facts
from fedtrain.export.source import Source

BUFFER_NAME, IDENTIFIER = "TFLITE_METADATA", b"M001"
LABELS, COLUMN_NAMES, FACTS = "labels.txt", "columns.txt", "metadata.json"
_MODEL_IDENTIFIER = b"TFL3"
_PARSER_VERSION = "1.0.0"
_AXIS_LABELS = 2  # AssociatedFileType.TENSOR_AXIS_LABELS
_NORMALISATION = 1  # ProcessUnitOptions.NormalizationOptions
_FEATURE = 1  # ContentProperties.FeatureProperties


def with_metadata(content: bytes, source: Source, variant: str) -> bytes:
    """The TFLite model ``content`` with its metadata, and the files behind it."""
    model = tflite.ModelT.InitFromPackedBuf(bytearray(content), 0)
    buffer, entry = tflite.BufferT(), tflite.MetadataT()
    buffer.data = np.frombuffer(_metadata(model, source, variant), np.uint8)
    entry.name, entry.buffer = BUFFER_NAME, len(model.buffers)
    model.buffers.append(buffer)
    model.metadata = [*(model.metadata or ()), entry]
    builder = flatbuffers.Builder(len(content))
    builder.Finish(model.Pack(builder), _MODEL_IDENTIFIER)
    return bytes(builder.Output()) + _archive(source, variant)


def normalisation(schema: Schema) -> tuple[list[float], list[float]]:
    """What is taken from each encoded column, and what the rest is divided by."""
    pairs = [
        pair
        for column in schema.features
        if column.kind != "array"
        for pair in _normalised(column)
    ]
    return [mean for mean, _ in pairs], [scale for _, scale in pairs]


def _normalised(column: Column) -> list[tuple[float, float]]:
    known = column.categories.values if column.categories else ()
    pairs = [(0.0, 1.0)] * (len(known) if column.kind == "category" else 1)
    if column.encoding == "standardise" and column.moments is not None:
        pairs = [(column.moments.mean, column.moments.stddev)]
    if column.encoding == "min_max" and column.range is not None:
        low, high = column.range.minimum, column.range.maximum
        pairs = [(low, high - low or 1.0)]
    return [*pairs, (0.0, 1.0)] if column.missing.allowed else pairs


def _metadata(model: Any, source: Source, variant: str) -> bytes:
    build = _Builder()
    graph, signature = model.subgraphs[0], model.signatureDefs[0]
    inputs = [
        _input(build, _name(signature.inputs, place), source) for place in graph.inputs
    ]
    outputs = [
        _output(build, _name(signature.outputs, place), source)
        for place in graph.outputs
    ]
    subgraph = build.table(
        {0: build.text(source.name), 2: build.tables(inputs), 3: build.tables(outputs)}
    )
    described = f"variant {variant}; release status: {source.status}"
    root = build.table(
        {
            0: build.text(source.name),
            1: build.text(described),
            3: build.tables([subgraph]),
            7: build.text(_PARSER_VERSION),
        }
    )
    return build.finished(root)


def _input(build: "_Builder", name: str, source: Source) -> int:
    schema = source.schema
    fields = {0: build.text(name), 1: build.text("features as the model takes them")}
    if schema is not None and name in ("features", COLUMNS) and feature_names(schema):
        means, scales = normalisation(schema)
        options = build.table({0: build.floats(means), 1: build.floats(scales)})
        unit = build.table({1: options}, kinds={0: _NORMALISATION})
        fields[4] = build.tables([unit])
        fields[6] = build.tables([_file(build, COLUMN_NAMES, "name of each column")])
    return _tensor(build, fields)


def _output(build: "_Builder", name: str, source: Source) -> int:
    fields = {0: build.text(name), 1: build.text(f"{name} of each row")}
    if source.label_names:
        fields[6] = build.tables([_file(build, LABELS, "label of each output")])
    return _tensor(build, fields)


def _tensor(build: "_Builder", fields: dict[int, int]) -> int:
    properties = build.table({})
    content = build.table({1: properties}, kinds={0: _FEATURE})
    return build.table({**fields, 3: content})


def _file(build: "_Builder", name: str, description: str) -> int:
    fields = {0: build.text(name), 1: build.text(description)}
    return build.table(fields, kinds={2: _AXIS_LABELS})


def _name(mappings: Sequence[Any], place: int) -> str:
    """The signature's name of a tensor."""
    found = [m.name.decode() for m in mappings if m.tensorIndex == place]
    return found[0] if found else f"tensor {place}"


class _Builder:
    """Tables by field numbers, as the schema orders its fields."""

    def __init__(self) -> None:
        self._builder = flatbuffers.Builder(0)

    def text(self, value: str) -> int:
        return int(self._builder.CreateString(value))

    def floats(self, values: Sequence[float]) -> int:
        array = np.asarray(values, np.float32)
        return int(self._builder.CreateNumpyVector(array))

    def tables(self, offsets: Sequence[int]) -> int:
        self._builder.StartVector(4, len(offsets), 4)
        for offset in reversed(offsets):
            self._builder.PrependUOffsetTRelative(offset)
        return int(self._builder.EndVector())

    def table(self, fields: dict[int, int], kinds: dict[int, int] | None = None) -> int:
        """``fields`` hold offsets; ``kinds`` single bytes: enumerations."""
        small = kinds or {}
        self._builder.StartObject(max([*fields, *small], default=-1) + 1)
        for field, offset in fields.items():
            self._builder.PrependUOffsetTRelativeSlot(field, offset, 0)
        for field, kind in small.items():
            self._builder.PrependUint8Slot(field, kind, 0)
        return int(self._builder.EndObject())

    def finished(self, root: int) -> bytes:
        self._builder.Finish(root, IDENTIFIER)
        return bytes(self._builder.Output())


def _archive(source: Source, variant: str) -> bytes:
    schema = source.schema
    facts = model_facts(source, variant=variant)
    files = {FACTS: json.dumps(facts, indent=2), LABELS: "\n".join(source.label_names)}
    if schema is not None and feature_names(schema):
        files[COLUMN_NAMES] = "\n".join(feature_names(schema))
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, text in files.items():
            entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            archive.writestr(entry, text)
    return content.getvalue()
