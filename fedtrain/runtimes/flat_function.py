"""Compiled functions of nests that are called with their leaves.

TensorFlow takes more than a millisecond to match a call's nests to a traced function's,
and as long to give nests back. A round of a small model is shorter than that. So nests
are taken apart and put together here, and TensorFlow sees flat lists of tensors.
"""

from collections.abc import Callable, Sequence
from threading import Lock
from typing import Any

import tensorflow as tf

from fedtrain.core.graphs import operation_names
from fedtrain.runtimes.reordering import forbid_reordering


class FlatFunction:
    """``function``, traced once for ``specs``.

    Args:
      function: Of nests of tensors, to a nest of tensors.
      specs: A nest of ``tf.TensorSpec`` for each argument.
      jit_compile: Whether XLA compiles it.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        specs: Sequence[Any],
        *,
        jit_compile: bool = False,
    ) -> None:
        structures = []

        def flat(*leaves: Any) -> list[Any]:
            outputs = function(*tf.nest.pack_sequence_as(tuple(specs), leaves))
            structures.append(outputs)
            return [tf.convert_to_tensor(leaf) for leaf in tf.nest.flatten(outputs)]

        # Autograph would rewrite all below it and take four times as long to trace.
        self._concrete = tf.function(
            flat,
            input_signature=tf.nest.flatten(tuple(specs)),
            autograph=False,
            jit_compile=jit_compile or None,
        ).get_concrete_function()
        places = range(len(tf.nest.flatten(structures[-1])))
        self._template = tf.nest.pack_sequence_as(structures[-1], list(places))

    def __call__(self, *nests: Any) -> Any:
        """What ``function`` gives for nests that fit the specs."""
        forbid_reordering()
        leaves = self._concrete(*tf.nest.flatten(nests))
        return _filled(self._template, leaves)

    def operations(self) -> set[str]:
        """Names of all TensorFlow operations in it."""
        return operation_names(self._concrete.graph)


class FlatFunctions:
    """``function``, traced anew for each structure and shape that it is called with."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self._traced: dict[Any, FlatFunction] = {}
        self._lock = Lock()

    def __call__(self, *nests: Any) -> Any:
        """What the function gives for ``nests``."""
        key = signature(nests)
        with self._lock:
            if key not in self._traced:
                self._traced[key] = FlatFunction(self._function, exact_specs(nests))
        return self._traced[key](*nests)


def exact_specs(nest: Any) -> Any:
    """The ``tf.TensorSpec`` of every leaf."""
    return tf.nest.map_structure(tf.TensorSpec.from_tensor, nest)


def signature(nest: Any) -> tuple[Any, ...]:
    """Shapes and dtypes of all leaves: cheap, and the same for equal structures."""
    return tuple((*leaf.shape, leaf.dtype) for leaf in tf.nest.flatten(nest))


def _filled(template: Any, leaves: Sequence[Any]) -> Any:
    """``template`` with its numbers replaced by the leaves at those places."""
    if isinstance(template, int):
        return leaves[template]
    if isinstance(template, dict):
        return type(template)((k, _filled(v, leaves)) for k, v in template.items())
    parts = [_filled(part, leaves) for part in template]
    is_named = hasattr(template, "_fields")
    return type(template)(*parts) if is_named else type(template)(parts)
