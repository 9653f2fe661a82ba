"""The served model as one graph with its weights as constants.

What runs outside TensorFlow (TF.js) takes a graph without variables, without functions
and without operations that only training needs.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from tensorflow.python.grappler import tf_optimizer  # has no public name

from fedtrain.core.errors import ConfigError
from fedtrain.export.source import ServedModel, Source

_STEPS = (
    *("function", "debug_stripper", "pruning", "constfold"),
    *("arithmetic", "dependency", "pruning", "constfold"),
)
# Marks of functions that are meant for XLA, or for a GPU's kernel to replace.
_KEPT_APART = ("_XlaMustCompile", "_noinline", "api_implements")


class FrozenGraph(NamedTuple):
    """A graph, and which of its tensors are fed and fetched.

    Attributes:
      graph_def: Without functions; loops and conditions are lowered to switches.
      inputs: Placeholders, by the model's own names for them.
      outputs: Tensors, by the model's own names for them.
    """

    graph_def: Any
    inputs: Mapping[str, Any]
    outputs: Mapping[str, Any]


def frozen_graph(source: Source) -> FrozenGraph:
    """The server's signature that takes features, traced with the weights within.

    Raises:
      ConfigError: If the model calls functions that cannot be inlined.
    """
    traced = constant_function(source)
    outputs = dict(traced.structured_outputs)
    graph_def = _optimised(traced.graph.as_graph_def(), [*outputs.values()])
    if graph_def.library.function:
        names = [function.signature.name for function in graph_def.library.function]
        raise ConfigError(
            f"{source.name} calls functions that cannot be written into one graph "
            f"({', '.join(names[:3])}). The server target takes every model."
        )
    features = source.evaluation.features
    names = sorted(features) if isinstance(features, dict) else ["features"]
    inputs = dict(zip(names, traced.inputs, strict=True))
    return FrozenGraph(graph_def, inputs, outputs)


def remove_marks(graph_def: Any, *, lowered: bool) -> None:
    """Lets all functions be inlined, and loops and conditions be ``lowered`` or not."""
    functions = graph_def.library.function
    nodes = [node for function in functions for node in function.node_def]
    for marked in (*functions, *nodes, *graph_def.node):
        for name in _KEPT_APART:
            marked.attr.pop(name, None)
        if getattr(marked, "op", "").endswith(("While", "If", "Case")):
            marked.attr["_lower_using_switch_merge"].b = lowered


def constant_function(source: Source) -> Any:
    """The signature that takes features, traced with the weights as constants."""
    served = ServedModel(source)
    served.weights = [np.asarray(leaf) for leaf in tf.nest.flatten(source.weights)]
    return served.features.get_concrete_function()


def _optimised(graph_def: Any, outputs: list[Any]) -> Any:
    """With functions inlined and constants folded, cut to what ``outputs`` need."""
    remove_marks(graph_def, lowered=True)
    meta_graph = tf.compat.v1.MetaGraphDef(graph_def=graph_def)
    fetched = [tensor.op.name for tensor in outputs]
    meta_graph.collection_def["train_op"].node_list.value.extend(fetched)
    config = tf.compat.v1.ConfigProto()
    rewriting = config.graph_options.rewrite_options
    rewriting.function_optimization = rewriting.AGGRESSIVE
    rewriting.optimizers.extend(_STEPS)
    rewriting.min_graph_nodes = -1
    return tf_optimizer.OptimizeGraph(config, meta_graph)
