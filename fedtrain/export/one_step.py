"""One step a kernel in an int8 TFLite file, so that shared values keep one code.

The converter gives each output channel a step of its own. Where a kernel was trained to
hold few values, on a grid with one step, these then have other codes in other channels,
and zip half as well.
"""

from typing import Any

import numpy as np
from tensorflow.lite.python import schema_py_generated as schema
from tensorflow.lite.tools import flatbuffer_utils


def one_step_a_kernel(content: bytes) -> bytes:
    """The same model with equal steps for all channels of a kernel.

    Args:
      content: A TFLite file whose kernels hold multiples of their largest magnitude
        over 127: rounding them once more gives exactly those, since no channel's step
        is larger than the kernel's.
    """
    model = flatbuffer_utils.convert_bytearray_to_object(bytearray(content))
    for graph in model.subgraphs:
        for operator in graph.operators:
            inputs = [graph.tensors[i] for i in operator.inputs if i >= 0]
            for kernel in filter(_has_steps, inputs):
                biases = [tensor for tensor in inputs if _is_bias_of(kernel, tensor)]
                for tensor in [*biases, kernel]:
                    _set_one_step(model, tensor, axis=_axis(tensor, kernel))
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


def _has_steps(tensor: Any) -> bool:
    """Whether it is an int8 constant with a step for each channel."""
    is_int8 = tensor.type == schema.TensorType.INT8
    return is_int8 and _num_steps(tensor) > 1


def _is_bias_of(kernel: Any, tensor: Any) -> bool:
    is_wide = tensor.type in (schema.TensorType.INT32, schema.TensorType.INT64)
    return is_wide and _num_steps(tensor) == _num_steps(kernel)


def _num_steps(tensor: Any) -> int:
    scales = tensor.quantization.scale if tensor.quantization else None
    return 0 if scales is None else len(scales)


def _axis(tensor: Any, kernel: Any) -> int:
    return int(kernel.quantization.quantizedDimension) if tensor is kernel else 0


def _set_one_step(model: Any, tensor: Any, *, axis: int) -> None:
    """Codes of the largest step in place of codes of each channel's own."""
    kinds = {
        schema.TensorType.INT8: np.int8,
        schema.TensorType.INT32: np.int32,
        schema.TensorType.INT64: np.int64,
    }
    buffer = model.buffers[tensor.buffer]
    codes = np.frombuffer(bytes(buffer.data), kinds[tensor.type])
    codes = codes.reshape(tensor.shape)
    steps = np.asarray(tensor.quantization.scale, np.float64)
    shape = [-1 if i == axis else 1 for i in range(codes.ndim)]
    exact = codes * (steps / steps.max()).reshape(shape)
    rounded = np.rint(exact).astype(codes.dtype)
    buffer.data = np.frombuffer(rounded.tobytes(), np.uint8)
    tensor.quantization.scale = np.full(len(steps), steps.max(), np.float32)
