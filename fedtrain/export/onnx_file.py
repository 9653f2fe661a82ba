"""An ONNX file of the server's signature that takes features, in float32.

Source: https://onnx.ai; converted by tf2onnx.
"""

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fedtrain.core.errors import ConfigError
from fedtrain.core.files import write_atomically
from fedtrain.export.facts import model_facts
from fedtrain.export.frozen_graph import constant_function, remove_marks
from fedtrain.export.needs import needed
from fedtrain.export.source import Source

# Of 2022: any runtime of the last years takes it.
OPSET = 17
_REASON = "The onnx target"


def check_onnx_packages() -> None:
    """Raises ConfigError where a package is missing."""
    for module in ("onnx", "tf2onnx", "onnxruntime"):
        needed(module, reason=_REASON, extra="onnx")


def write_onnx(source: Source, path: Path) -> None:
    """Writes the ONNX file ``path``, with the model's facts as its metadata.

    Raises:
      ConfigError: Naming the operations that ONNX has nothing for.
    """
    model = _converted(source)
    missing = sorted(set(_unknown_operations(model.graph)))
    if missing:
        raise ConfigError(
            f"{source.name} cannot become ONNX: there is nothing for "
            f"{', '.join(missing)}. The server target takes every TensorFlow operation."
        )
    model.producer_name = "fedtrain"
    for key, value in model_facts(source, variant="float32").items():
        text = value if isinstance(value, str) else json.dumps(value)
        model.metadata_props.add(key=key, value=text)
    write_atomically(path, model.SerializeToString())


def _converted(source: Source) -> Any:
    tf2onnx = needed("tf2onnx", reason=_REASON, extra="onnx")
    traced = constant_function(source)
    graph_def = traced.graph.as_graph_def()
    remove_marks(graph_def, lowered=False)  # ONNX has loops, but no switches
    inputs = {tensor.name: tensor.op.name for tensor in traced.inputs}
    outputs = {tensor.name: key for key, tensor in traced.structured_outputs.items()}
    logging.getLogger("tf2onnx").setLevel(logging.CRITICAL)
    try:
        model, _ = tf2onnx.convert.from_graph_def(
            graph_def,
            input_names=list(inputs),
            output_names=list(outputs),
            tensors_to_rename={**inputs, **outputs},
            opset=OPSET,
        )
    except Exception as error:  # the converter raises what its passes raise
        raise ConfigError(
            f"{source.name} cannot become ONNX: {error}. The server target takes every "
            "TensorFlow operation."
        ) from error
    return model


def _unknown_operations(graph: Any) -> Iterator[str]:
    """TensorFlow's operations that are left in ``graph``, by kind."""
    defs = needed("onnx", reason=_REASON, extra="onnx").defs
    for node in graph.node:
        if not defs.has(node.op_type, node.domain):
            yield node.op_type
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _unknown_operations(attribute.g)
