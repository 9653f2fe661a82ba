"""A frozen graph as a model again, to be served or converted further."""

from dataclasses import replace
from typing import Any

import tensorflow as tf

from fedtrain.export.frozen_graph import FrozenGraph
from fedtrain.export.source import OUTPUTS, Source
from fedtrain.models.model import ForwardPass


def graph_source(source: Source, graph: FrozenGraph, graph_def: Any) -> Source:
    """``source`` with a model that is ``graph_def``, its weights within.

    Args:
      source: The model that ``graph`` was made of.
      graph: Its inputs and outputs, which are also those of ``graph_def``.
      graph_def: What is computed.
    """
    computed = _imported(graph, graph_def)

    def forward(weights: Any, features: Any, **kwargs: Any) -> ForwardPass:
        del kwargs
        return ForwardPass(computed(*tf.nest.flatten(features)), weights, 0.0)

    model = source.model._replace(forward=forward)
    return replace(source, model=model, weights=())


def _imported(graph: FrozenGraph, graph_def: Any) -> Any:
    """A function of the inputs in their order, giving ``OUTPUTS``."""
    whole = tf.compat.v1.wrap_function(
        lambda: tf.import_graph_def(graph_def, name=""), []
    )
    inputs = [whole.graph.as_graph_element(t.name) for t in graph.inputs.values()]
    output = whole.graph.as_graph_element(graph.outputs[OUTPUTS].name)
    return whole.prune(inputs, output)
