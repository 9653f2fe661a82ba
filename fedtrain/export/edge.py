"""TFLite files for phones and boards: float32, float16, and kinds of int8.

Dynamic-range int8 keeps weights as int8 and needs no data; full int8 computes in int8,
and int16x8 with activations of 16 bits: both need ranges of activations (see
``calibration``). Compressed variants have the weights that ``[compression]`` left:
they are no faster, but much smaller once zipped. Inputs and outputs stay float32.
A file carries its labels and the preparation of its inputs (``edge_metadata``).
"""

import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import tensorflow as tf

from fedtrain.core.errors import ConfigError
from fedtrain.core.files import write_atomically
from fedtrain.core.native_lines import stderr_without
from fedtrain.export.activation_ranges import one_by_one, quantised
from fedtrain.export.calibration import Calibration
from fedtrain.export.edge_metadata import with_metadata
from fedtrain.export.one_step import one_step_a_kernel
from fedtrain.export.source import ServedModel, Source, without_loops

VARIANTS = ("float32", "float16", "dynamic_int8", "int8")
COMPRESSED = ("compressed_dynamic_int8", "compressed_int8")
_ASKED = {"dynamic_int8": "dynamic-range int8", "int8": "full int8"}
_RANGES = ("int8", "int16x8")
# The converter's own; what stands behind an error is in what it raises, too.
_DEBUGGING = ("fully_quantize: ", "loc(", "error: failed while converting")


def default_variants(source: Source) -> tuple[str, ...]:
    """What is written where nothing else is asked for."""
    return VARIANTS if source.compressed is None else (*VARIANTS, *COMPRESSED)


def needs_ranges(variant: str) -> bool:
    """Whether ranges of activations are measured for ``variant``."""
    return _plain(variant) in _RANGES


def write_edge(
    source: Source, path: Path, *, variant: str, calibration: Calibration | None
) -> None:
    """Writes the TFLite file ``path``.

    Args:
      source: The model.
      path: Where to.
      variant: One of ``VARIANTS`` or ``COMPRESSED``, or ``"int16x8"``.
      calibration: Where ``needs_ranges``; the others do not look at it.

    Raises:
      ConfigError: If TFLite cannot take an operation of the model, there are no rows to
        measure ranges on, or the run has no compressed weights.
    """
    served = ServedModel(_compressed(source) if variant in COMPRESSED else source)
    function = without_loops(served)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function], served)
    _SETTINGS[_plain(variant)](converter, source, calibration)
    ranges = calibration.ranges if calibration and needs_ranges(variant) else None
    converter._experimental_calibrate_only = ranges is not None
    try:
        with stderr_without(*_DEBUGGING):
            content = converter.convert()
        if ranges is not None:
            bits = 16 if variant == "int16x8" else 8
            content = quantised(content, ranges, bits=bits)
        if variant in COMPRESSED and _shares_values(source):
            content = one_step_a_kernel(content)
    except Exception as error:  # the converter raises what its passes raise
        raise ConfigError(_unconverted(source, variant, error)) from error
    write_atomically(path, with_metadata(content, source, variant))


def _float32(converter: Any, source: Source, calibration: Any) -> None:
    del converter, source, calibration


def _float16(converter: Any, source: Source, calibration: Any) -> None:
    del source, calibration
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.target_spec.supported_types = [tf.float16]


def _dynamic_int8(converter: Any, source: Source, calibration: Any) -> None:
    del source, calibration
    converter.optimizations = [tf.lite.Optimize.DEFAULT]


def _with_ranges(
    operations: str, converter: Any, source: Source, calibration: Calibration | None
) -> None:
    if calibration is None:
        raise ConfigError(
            f"Full int8 of {source.name} needs ranges of activations, but there are "
            "neither public rows nor a schema to draw rows from. Use dynamic_int8, "
            "which needs none, or train with a schema (data.schema_path)."
        )
    rows = calibration.features
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: one_by_one(rows)
    converter.target_spec.supported_ops = [tf.lite.OpsSet[operations]]


_SETTINGS: dict[str, Callable[[Any, Source, Any], None]] = {
    "float32": _float32,
    "float16": _float16,
    "dynamic_int8": _dynamic_int8,
    "int8": partial(_with_ranges, "TFLITE_BUILTINS_INT8"),
    "int16x8": partial(
        _with_ranges,
        "EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8",
    ),
}


def _plain(variant: str) -> str:
    return variant.removeprefix("compressed_")


def _shares_values(source: Source) -> bool:
    """Whether kernels hold few values: they were rounded with one step a kernel."""
    section = source.run.config.compression
    return section is not None and section.num_clusters is not None


def _compressed(source: Source) -> Source:
    if source.compressed is None:
        raise ConfigError(
            f"{source.name} has no compressed weights: add [compression] to its "
            "project file and train, or leave the compressed variants out."
        )
    return replace(source, weights=source.compressed)


def _unconverted(source: Source, variant: str, error: Exception) -> str:
    return (
        f"{source.name} cannot become {_ASKED.get(variant, variant)} TFLite: "
        f"{_reason(str(error))}. The server target takes every TensorFlow operation."
    )


def _reason(text: str) -> str:
    if "tensor list ops" in text:
        return (
            "it has a loop that collects a list of tensors (TensorListReserve), which "
            "TFLite takes for one fixed number of rows only, and it is in no layer "
            "that could be written without a loop"
        )
    missing = re.findall(r"(?:TF Select|Flex|Custom) ops: ([^\n]+)", text)
    if missing:
        return f"there is nothing for {', '.join(missing)}"
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    named = [line for line in lines if "op" in line.lower()][-1:] or lines[:1]
    return (named or ["no reason given"])[0][:300]
