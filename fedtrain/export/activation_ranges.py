"""Ranges of activations as a query to private rows: a noised histogram, paid for.

For every tensor that int8 needs a range of, each row says how far its largest and its
smallest value reach, as one of fixed public bins: so a row's vector has one 1 for each
tensor and side, whatever it holds. Rows are run one by one, so that none changes what
another one says. The ranges are read off the noised counts and set in the converted
model before it is quantised, in place of those that the converter measured.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import flatbuffers  # type: ignore[import-untyped] # ships no types
import numpy as np
import numpy.typing as npt
import tensorflow as tf
from tensorflow.lite.python import schema_py_generated as schema
from tensorflow.lite.python.convert import mlir_quantize
from tensorflow.lite.python.optimize.calibrator import Calibrator

from fedtrain.core.errors import ConfigError
from fedtrain.data.dataset import FederatedDataset
from fedtrain.data.examples import Array, map_arrays
from fedtrain.export.needs import needed
from fedtrain.export.payment import Payment
from fedtrain.export.source import without_loops
from fedtrain.privacy.paid_counts import NoisedCounts
from fedtrain.project.paid_export import CALIBRATION

Ranges = Mapping[str, tuple[float, float]]
# Quarter octaves from 2^-10 to 2^10; the first bin holds all that is smaller.
EDGES = 2.0 ** (np.arange(-40, 41) / 4.0)
_NUM_BINS = len(EDGES)
# One bin of noise alone passes this with chance 3e-7.
_SIGNIFICANT = 5.0
_WINDOWS = (1, 2, 4)
_FILE_IDENTIFIER = b"TFL3"


class _Tensor(NamedTuple):
    place: int
    name: str
    measured: tuple[float, float]


def paid_ranges(
    served: Any, rows: Any, private: FederatedDataset, payment: Payment
) -> Ranges:
    """The range of each tensor by its name, noised and charged.

    Args:
      served: A ``ServedModel``.
      rows: A few public or synthetic feature rows: they show which tensors need a
        range, and give the range of those that no private row reaches.
      private: The rows that are asked.
      payment: Pays.

    Raises:
      BudgetExhaustedError: If the ledger cannot pay; no row is read.
    """
    payment.check(private)
    content = _calibrated(served, rows)
    tensors = _tensors(content)
    found = payment.ask(
        CALIBRATION,
        lambda: payment.rows(private).with_vectors(
            _vectors(content, tensors, private.examples.features)
        ),
        squared_norm=2 * len(tensors),
    )
    counts = found.sums.reshape(len(tensors), 2, _NUM_BINS)
    return {
        tensor.name: _range(tensor, counts[i], found)
        for i, tensor in enumerate(tensors)
    }


def quantised(content: bytes, ranges: Ranges, *, bits: int) -> bytes:
    """A model that was only calibrated, in integers, with ``ranges`` for its own.

    Args:
      content: A TFLite file of float32 with ranges.
      ranges: Of each tensor, by its name.
      bits: Of activations, 8 or 16; weights have 8, with a scale for each channel.

    Raises:
      ConfigError: If a tensor has no range.
    """
    model = schema.ModelT.InitFromPackedBuf(bytearray(content), 0)
    for tensor in model.subgraphs[0].tensors:
        if _is_measured(tensor):
            low, high = _known(ranges, tensor.name.decode())
            tensor.quantization.min, tensor.quantization.max = [low], [high]
    builder = flatbuffers.Builder(len(content))
    builder.Finish(model.Pack(builder), _FILE_IDENTIFIER)
    ready = bytes(builder.Output())
    if bits == 8:
        return bytes(mlir_quantize(ready))
    # Fed with no row, the calibrator leaves the ranges as they are.
    return bytes(
        Calibrator(ready).calibrate_and_quantize(
            lambda: iter(()),
            input_type=tf.float32,
            output_type=tf.float32,
            allow_float=False,
            activations_type=tf.int16,
            bias_type=tf.int64,
        )
    )


def one_by_one(features: Any) -> Iterator[Any]:
    """Rows as the converter takes them."""
    if isinstance(features, dict):
        for i in range(len(next(iter(features.values())))):
            yield {name: array[i : i + 1] for name, array in features.items()}
        return
    for row in features:
        yield [np.asarray(row)[np.newaxis]]


def reach(values: Array) -> tuple[int, int]:
    """The bins of the largest and of the smallest of ``values``; 0 is nearly zero."""
    plain = np.nan_to_num(np.asarray(values, np.float64).reshape(-1), nan=0.0)
    sides = (plain.max(initial=0.0), -plain.min(initial=0.0))
    high, low = (
        min(int(np.searchsorted(EDGES, side, side="right")), _NUM_BINS - 1)
        for side in sides
    )
    return high, low


def furthest(counts: npt.NDArray[Any], stddev: float) -> float:
    """How far ``counts`` reach beyond what noise explains, with a bin of margin.

    A window of one, two or four bins counts where its sum exceeds five standard
    deviations of its noise; 0 where none does.
    """
    last = 0
    for width in _WINDOWS:
        sums = np.convolve(counts[1:], np.ones(width), mode="valid")
        hits = np.flatnonzero(sums > _SIGNIFICANT * stddev * np.sqrt(width))
        last = max(last, 1 + int(hits.max(initial=-1)))
    return float(EDGES[min(last + 1, _NUM_BINS - 1)]) if last else 0.0


def _range(
    tensor: _Tensor, counts: npt.NDArray[Any], found: NoisedCounts
) -> tuple[float, float]:
    high, low = (furthest(side, found.stddev) for side in counts)
    return (-low, high) if high or low else tensor.measured


def _calibrated(served: Any, rows: Any) -> bytes:
    function = without_loops(served)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function], served)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: one_by_one(rows)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter._experimental_calibrate_only = True
    return bytes(converter.convert())


def _tensors(content: bytes) -> list[_Tensor]:
    model = schema.ModelT.InitFromPackedBuf(bytearray(content), 0)
    return [
        _Tensor(
            place,
            tensor.name.decode(),
            (float(tensor.quantization.min[0]), float(tensor.quantization.max[0])),
        )
        for place, tensor in enumerate(model.subgraphs[0].tensors)
        if _is_measured(tensor)
    ]


def _is_measured(tensor: Any) -> bool:
    quantization = tensor.quantization
    has_range = quantization is not None and quantization.min is not None
    return has_range and len(quantization.min) == 1


def _vectors(
    content: bytes, tensors: Sequence[_Tensor], features: Any
) -> Iterator[Array]:
    """One row after another, [1, tensors * sides * bins]."""
    runtime = needed("ai_edge_litert.interpreter", reason="Measuring ranges")
    # A delegate would fuse operations, and not say what is between them.
    resolver = runtime.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    interpreter = runtime.Interpreter(
        model_content=content,
        experimental_op_resolver_type=resolver,
        experimental_preserve_all_tensors=True,
        num_threads=1,
    )
    runner = interpreter.get_signature_runner()
    names = list(runner.get_input_details())
    places = np.arange(2 * len(tensors)) * _NUM_BINS
    for i in range(_num_rows(features)):
        row = map_arrays(lambda array, i=i: array[i : i + 1], features)
        runner(**(row if isinstance(row, dict) else {names[0]: row}))
        reached = [reach(interpreter.get_tensor(tensor.place)) for tensor in tensors]
        vector = np.zeros([1, 2 * len(tensors) * _NUM_BINS], np.int8)
        vector[0, places + np.ravel(reached)] = 1
        yield vector


def _num_rows(features: Any) -> int:
    arrays = features.values() if isinstance(features, dict) else [features]
    return len(next(iter(arrays)))


def _known(ranges: Ranges, name: str) -> tuple[float, float]:
    if name not in ranges:
        raise ConfigError(
            f"The tensor {name!r} has no range: the query measured another graph. Use "
            'export.calibration = "schema" for this variant.'
        )
    return ranges[name]
