"""A TF.js graph model: the served graph as JSON, its weights in one binary file.

The format is TF.js's own (``tf.loadGraphModel``): the GraphDef by protobuf's mapping to
JSON with constants taken out, a signature, and a manifest of the constants, which may
be kept as float16 or as uint8 with a scale and a minimum.

Source: https://www.tensorflow.org/js/guide/save_load and the types of
``@tensorflow/tfjs-core`` (``io/types.ts``).
"""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from google.protobuf import json_format

from fedtrain.core.errors import ConfigError
from fedtrain.core.files import write_atomically
from fedtrain.data.examples import Array
from fedtrain.export.frozen_graph import FrozenGraph, frozen_graph
from fedtrain.export.node import run_in_node
from fedtrain.export.source import OUTPUTS, Source

VARIANTS = ("float32", "float16", "uint8")
MODEL, WEIGHTS = "model.json", "weights.bin"
_TYPES = {
    tf.float32: np.float32,
    tf.float64: np.float32,
    tf.int32: np.int32,
    tf.int64: np.int32,
    tf.bool: np.bool_,
}
_FEWEST_QUANTISED = 256  # smaller constants (biases) are kept: they weigh nothing


def write_web(
    source: Source, folder: Path, *, variants: Sequence[str]
) -> dict[str, Path]:
    """Writes ``folder/VARIANT/model.json`` and its weights for each variant.

    The first one is run on a row of zeros, so that what TF.js cannot take is known now.

    Returns:
      The folder of each variant.

    Raises:
      ConfigError: Naming an operation or a type that TF.js cannot take.
    """
    graph = frozen_graph(source)
    paths = {variant: folder / variant for variant in variants}
    for variant, path in paths.items():
        write_model(graph, path, variant=variant)
    try:
        run_in_node(paths[variants[0]], _zeros(graph), output=OUTPUTS, repeats={})
    except ConfigError as error:
        raise ConfigError(_refusal(source.name, str(error))) from error
    return paths


def write_model(graph: FrozenGraph, folder: Path, *, variant: str) -> None:
    """Writes one variant; every constant goes into the file of weights."""
    folder.mkdir(parents=True)
    topology = tf.compat.v1.GraphDef()
    topology.CopyFrom(graph.graph_def)
    topology.ClearField("library")
    manifest, contents = [], []
    for node in topology.node:
        if node.op != "Const":
            continue
        entry, content = _weight(node, _QUANTISED[variant])
        manifest.append(entry)
        contents.append(content)
        value = node.attr["value"].tensor
        emptied = {"dtype": value.dtype, "tensor_shape": value.tensor_shape}
        value.CopyFrom(type(value)(**emptied))
    model = {
        "format": "graph-model",
        "generatedBy": tf.version.VERSION,
        "convertedBy": "fedtrain",
        "signature": {
            "inputs": {name: _info(t) for name, t in graph.inputs.items()},
            "outputs": {name: _info(t) for name, t in graph.outputs.items()},
        },
        "modelTopology": json_format.MessageToDict(topology),
        "weightsManifest": [{"paths": [WEIGHTS], "weights": manifest}],
    }
    write_atomically(folder / WEIGHTS, b"".join(contents))
    write_atomically(folder / MODEL, json.dumps(model, separators=(",", ":")))


def _weight(node: Any, quantised: Any) -> tuple[dict[str, Any], bytes]:
    """A constant's entry in the manifest, and its bytes."""
    value = node.attr["value"].tensor
    dtype = _TYPES.get(tf.as_dtype(value.dtype))
    if dtype is None:
        raise ConfigError(
            f"The constant {node.name!r} is {tf.as_dtype(value.dtype).name}, which "
            "TF.js cannot take; the server target can."
        )
    array = tf.make_ndarray(value)
    if dtype is np.int32:  # the ends of slices are 64 bits of ones
        limits = np.iinfo(np.int32)
        array = array.clip(limits.min, limits.max)
    array = array.astype(dtype)
    entry = {"name": node.name, "shape": list(array.shape), "dtype": array.dtype.name}
    if array.dtype != np.float32 or array.size < _FEWEST_QUANTISED:
        return entry, array.tobytes()
    facts, kept = quantised(array)
    return {**entry, **facts}, kept.tobytes()


def _float32(array: Array) -> tuple[dict[str, Any], Array]:
    return {}, array


def _float16(array: Array) -> tuple[dict[str, Any], Array]:
    facts = {"dtype": "float16", "original_dtype": "float32"}
    return {"quantization": facts}, array.astype(np.float16)


def _uint8(array: Array) -> tuple[dict[str, Any], Array]:
    """255 steps from the least to the greatest number, with zero kept exactly."""
    low, high = min(float(array.min()), 0.0), max(float(array.max()), 0.0)
    scale = (high - low) / 255 or 1.0
    zero = round(-low / scale)
    codes = np.clip(np.round(array / scale) + zero, 0, 255).astype(np.uint8)
    facts = {"dtype": "uint8", "original_dtype": "float32"}
    return {"quantization": {**facts, "scale": scale, "min": -zero * scale}}, codes


_QUANTISED = {"float32": _float32, "float16": _float16, "uint8": _uint8}


def _info(tensor: Any) -> dict[str, Any]:
    """A tensor as signatures describe it; an unknown size is -1."""
    sizes = [{"size": str(-1 if size is None else size)} for size in tensor.shape]
    dtype = f"DT_{tensor.dtype.name.upper().replace('FLOAT32', 'FLOAT')}"
    return {"name": tensor.name, "dtype": dtype, "tensorShape": {"dim": sizes}}


def _refusal(name: str, reason: str) -> str:
    """In words, with the operation where TF.js names one."""
    named = re.search(r"(?:Unknown op|Kernel) '(\w+)'", reason)
    said = f"TF.js has no operation {named[1]}" if named else f"TF.js says: {reason}"
    if "RuntimeError" in reason:
        said += (
            " (its WebAssembly kernels cannot take masks of recurrent layers, such as "
            "mask_zero or Masking; those of the edge and onnx targets can)"
        )
    return (
        f"{name} cannot become a web model: {said}. The server target takes every "
        "TensorFlow operation; leave web out of the targets, or change the model."
    )


def _zeros(graph: FrozenGraph) -> Mapping[str, Array]:
    return {
        name: np.zeros([1, *tensor.shape[1:]], tensor.dtype.as_numpy_dtype)
        for name, tensor in graph.inputs.items()
    }
