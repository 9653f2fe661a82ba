"""Operations that move values about: what becomes of the rows of a batch.

Each rule takes an operation and the facts of its inputs, and gives the fact of its
outputs, or None where rows may have met.
"""

from typing import Any

from fedtrain.client_work.row_proof import shapes
from fedtrain.client_work.row_proof.fact import (
    CONSTANT,
    PLACES,
    SIZE,
    Fact,
    aligned,
    attribute,
    kinds,
    known,
    meeting,
    product,
    static,
    without_rows,
)


def same(operation: Any, given: list[Fact]) -> Any:
    """The first input's fact, if the others are constants."""
    del operation
    return given[0] if kinds(given[1:]) <= {"constant"} else None


def reshape(operation: Any, given: list[Fact]) -> Any:
    """Reshape, ExpandDims, Squeeze."""
    fact = given[0]
    if operation.type == "Reshape":
        shapes.refine_reshape(operation)
    before, after = operation.inputs[0].shape, operation.outputs[0].shape
    if fact.kind == "size":
        return fact
    if fact.kind == "rows":
        return reshaped(fact, before, after)
    if fact.kind == "places":
        return fact if _open_first(before) and _open_first(after) else None
    return PLACES if fact.kind == "constant" else fact


def _open_first(shape: Any) -> bool:
    """Whether the place of each value in row-major order is free of open sizes."""
    return shape.rank is not None and known(shape, range(1, shape.rank))


def reshaped(fact: Fact, before: Any, after: Any) -> Any:
    """The fact of a "rows" tensor after a reshape, from static shapes; None if unsure.

    Row-major order keeps rows apart if what lies before and behind the row axis fits.
    """
    if before.rank is None or after.rank is None or list(after).count(None) != 1:
        return None
    lead, own = product(before[: fact.axis]), product(before[fact.axis + 1 :])
    axis = list(after).index(None)
    new_lead, new_own = product(after[:axis]), product(after[axis + 1 :])
    if None in (lead, own) or lead != new_lead or not new_own or not own:
        return None
    width, rest = divmod(fact.width * own, new_own)
    return None if rest else Fact("rows", axis, width)


def transpose(operation: Any, given: list[Fact]) -> Any:
    """Transpose."""
    order = static(operation.inputs[1])
    if given[0].kind != "rows":
        return given[0]
    return None if order is None else given[0]._replace(axis=order.index(given[0].axis))


def concat(operation: Any, given: list[Fact]) -> Any:
    """ConcatV2, along any axis but the rows'."""
    *values, axis = given
    if kinds(values) <= {"size", "constant"}:
        return SIZE
    fact, place = meeting(values), static(operation.inputs[-1])
    if fact is None or place is None or axis.kind != "constant":
        return None
    place = place[0] % operation.outputs[0].shape.rank
    closed = all(known(tensor.shape, [place]) for tensor in operation.inputs[:-1])
    return fact if closed else None


def pack(operation: Any, given: list[Fact]) -> Any:
    """Pack."""
    if kinds(given) <= {"size", "constant"}:
        return SIZE
    fact = meeting(given)
    place = attribute(operation, "axis") % operation.outputs[0].shape.rank
    if fact is None or fact.kind != "rows":
        return fact
    return fact._replace(axis=fact.axis + (place <= fact.axis))


def unpack(operation: Any, given: list[Fact]) -> Any:
    """Unpack, along any axis but the rows'."""
    fact = given[0]
    place = attribute(operation, "axis") % operation.inputs[0].shape.rank
    if fact.kind != "rows":
        return fact
    if place == fact.axis:
        return None
    return fact._replace(axis=fact.axis - (place < fact.axis))


def split(operation: Any, given: list[Fact]) -> Any:
    """Split and SplitV, along any axis but the rows'."""
    where = 0 if operation.type == "Split" else 2
    value = 1 - where if operation.type == "Split" else 0
    place = static(operation.inputs[where])
    others = [fact for i, fact in enumerate(given) if i != value]
    if place is None or not kinds(others) <= {"constant"}:
        return None
    fact = given[value]
    shape = operation.inputs[value].shape
    at = place[0] % shape.rank
    kept = known(shape, [at]) and not (fact.kind == "rows" and fact.axis == at)
    return fact if kept else None


def strided_slice(operation: Any, given: list[Fact]) -> Any:
    """StridedSlice that takes all of the row axis."""
    if given[0].kind == "size":
        numbers = shapes.known_numbers(operation.outputs[0])
        return SIZE if numbers is None or None in numbers else CONSTANT
    if given[0].kind == "places":
        return same(operation, given) if _closed(operation) else None
    # Limits that depend on the number of rows would choose by it what a row shows.
    if given[0].kind != "rows" or not kinds(given[1:]) <= {"constant"}:
        return None
    if any(attribute(operation, f"{name}_mask") for name in ("ellipsis", "new_axis")):
        return _behind_ellipsis(operation, given)
    axis, strides = given[0].axis, static(operation.inputs[3])
    shrunk = attribute(operation, "shrink_axis_mask")
    if strides is None or shrunk >> axis & 1:
        return None
    if axis < len(strides):
        begins, ends = (attribute(operation, f"{n}_mask") for n in ("begin", "end"))
        if not (begins >> axis & 1 and ends >> axis & 1 and strides[axis] == 1):
            return None
    gone = sum(shrunk >> before & 1 for before in range(axis))
    return given[0]._replace(axis=axis - gone)


def _behind_ellipsis(operation: Any, given: list[Fact]) -> Any:
    """A slice such as ``x[..., a, tf.newaxis]``: axis 0 is before all that changes."""
    masks = ("ellipsis", "new_axis", "shrink_axis", "begin", "end")
    ellipsis, new, shrunk, begins, ends = (
        attribute(operation, f"{name}_mask") for name in masks
    )
    whole = begins & 1 and ends & 1 and static(operation.inputs[3])[:1] == [1]
    first = (ellipsis & 1) or (whole and not (new | shrunk) & 1)
    explicit = len(static(operation.inputs[3]) or ()) - bin(new).count("1")
    short = explicit <= operation.inputs[0].shape.rank
    return given[0] if given[0].axis == 0 and first and short else None


def _closed(operation: Any) -> bool:
    """Whether the first input has one size, whatever the number of rows."""
    return bool(operation.inputs[0].shape.is_fully_defined())


def cut(operation: Any, given: list[Fact]) -> Any:
    """Slice that takes all of the row axis."""
    if given[0].kind != "rows":
        return same(operation, given) if _closed(operation) else None
    begin, size = (static(tensor) for tensor in operation.inputs[1:])
    if begin is None or size is None:
        return None
    axis = given[0].axis
    return given[0] if begin[axis] == 0 and size[axis] == -1 else None


def pad(operation: Any, given: list[Fact]) -> Any:
    """Padding of any axis but the rows'."""
    paddings = static(operation.inputs[1])
    if given[0].kind != "rows":
        return same(operation, given) if _closed(operation) else None
    if paddings is None:
        return None
    at = 2 * given[0].axis
    return same(operation, given) if paddings[at : at + 2] == [0, 0] else None


def gather(operation: Any, given: list[Fact]) -> Any:
    """GatherV2: of a table by rows of indices, or inside each row."""
    table, indices, axis = given
    places = static(operation.inputs[2])
    if table.kind == "size" and kinds(given[1:]) <= {"constant"}:
        return SIZE
    if places is None or axis.kind != "constant" or "size" in kinds(given):
        return None
    place = places[0] % operation.inputs[0].shape.rank
    if attribute(operation, "batch_dims"):
        first = place and table.axis == indices.axis == 0
        return meeting([table, indices]) if first else None
    if indices.kind == "rows" and table.kind != "rows":
        return indices._replace(axis=indices.axis + place)
    return None if table.kind == "rows" else without_rows(given)


def one_hot(operation: Any, given: list[Fact]) -> Any:
    """OneHot with a new last axis."""
    last = attribute(operation, "axis") == -1
    return same(operation, given) if last and given[0].kind != "size" else None


def tile(operation: Any, given: list[Fact]) -> Any:
    """Tile."""
    if given[0].kind == "constant" or (
        given[0].kind == "places" and _closed(operation)
    ):
        return PLACES
    if given[0].kind != "rows":
        return None
    multiples = static(operation.inputs[1])
    once = multiples is not None and multiples[given[0].axis] == 1
    return given[0] if once else None


def broadcast_to(operation: Any, given: list[Fact]) -> Any:
    """BroadcastTo."""
    rank = operation.outputs[0].shape.rank
    if given[0].kind != "rows":
        return PLACES if given[0].kind in ("constant", "places") else None
    return None if rank is None else aligned(given[0], operation.inputs[0], rank)
