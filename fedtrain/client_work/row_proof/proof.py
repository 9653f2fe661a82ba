"""Where the rows of a batch are in each tensor of a graph, or that they have met.

A forward pass over a whole batch gives each row's own gradient only if no row reached
another. That is proved here, operation by operation, before anything relies on it. What
has no rule is not known to keep rows apart, and so counts as mixing them.
"""

from collections.abc import Container, Iterable
from typing import Any

from fedtrain.client_work.row_proof.fact import CONSTANT, Fact
from fedtrain.client_work.row_proof.rules import RULES


def row_facts(targets: Iterable[Any], known: dict[str, Fact]) -> dict[str, Any]:
    """The facts of everything that ``targets`` are computed from, by tensor name.

    Args:
      targets: Tensors of one graph.
      known: Facts of the graph's inputs, by tensor name.

    Guarantees:
      A tensor whose fact is of kind "rows" holds at each place of its row axis values
      that depend on that row only: not on other rows, not on how many there are.
    """
    facts: dict[str, Any] = dict(known)
    for operation in operations_behind(targets, known):
        given = [facts[tensor.name] for tensor in operation.inputs]
        found = _outcome(operation, given)
        for tensor, fact in zip(operation.outputs, found, strict=True):
            facts.setdefault(tensor.name, fact)
    return facts


def operations_behind(targets: Iterable[Any], known: Container[str] = ()) -> list[Any]:
    """The operations that ``targets`` are computed from, in an order to compute in.

    Args:
      targets: Tensors of one graph.
      known: Names of tensors whose own origin does not matter.
    """
    found: dict[str, Any] = {}
    waiting = list(targets)
    while waiting:
        tensor = waiting.pop()
        operation = tensor.op
        if tensor.name not in known and operation.name not in found:
            found[operation.name] = operation
            waiting.extend(operation.inputs)
    order = {op.name: i for i, op in enumerate(_graph(targets).get_operations())}
    return sorted(found.values(), key=lambda operation: order[operation.name])


def _graph(targets: Iterable[Any]) -> Any:
    return next(iter(targets)).graph


def _outcome(operation: Any, given: list[Any]) -> list[Any]:
    nothing = [None] * len(operation.outputs)
    if None in given:
        return nothing
    if all(fact.kind == "constant" for fact in given):
        random = operation.op_def.is_stateful
        return nothing if random else [CONSTANT] * len(nothing)
    rule = RULES.get(operation.type)
    found = rule(operation, given) if rule else None
    return found if isinstance(found, list) else [found] * len(nothing)
