"""What a traced TensorFlow graph is made of."""

from typing import Any


def operation_names(graph: Any) -> set[str]:
    """Kinds of operations in a graph, and in all functions that it calls."""
    definition = graph.as_graph_def()
    bodies = [definition.node, *(f.node_def for f in definition.library.function)]
    return {node.op for body in bodies for node in body}
