"""How each TensorFlow operation treats the rows of a batch: the table of rules.

A rule takes an operation and the facts of its inputs, and gives the fact of its outputs
(a list where they differ), or None where rows may have met.
"""

from collections.abc import Callable
from typing import Any

from fedtrain.client_work.row_proof import moves, shapes
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
    static,
    without_rows,
)
from fedtrain.core.seeds import HASHED_PLACES

Rule = Callable[[Any, list[Any]], Any]


def _elementwise(operation: Any, given: list[Fact]) -> Any:
    output = operation.outputs[0]
    if kinds(given) <= {"size", "constant"}:
        return SIZE if output.dtype.is_integer else None
    shapes.refine_elementwise(operation)
    if output.shape.rank is None:
        return None
    pairs = zip(given, operation.inputs, strict=True)
    return meeting([aligned(f, tensor, output.shape.rank) for f, tensor in pairs])


def _each(operation: Any, given: list[Fact]) -> Any:
    return list(given)


def _reduction(operation: Any, given: list[Fact]) -> Any:
    fact, axes = given[0], static(operation.inputs[1])
    shape = operation.inputs[0].shape
    if fact.kind == "size":
        return SIZE
    if axes is None or shape.rank is None:
        return None
    axes = {axis % shape.rank for axis in axes}
    if not known(shape, axes) or (fact.kind == "rows" and fact.axis in axes):
        return None
    kept = attribute(operation, "keep_dims")
    gone = 0 if kept else sum(axis < fact.axis for axis in axes)
    return fact._replace(axis=fact.axis - gone) if fact.kind == "rows" else fact


def _matmul(operation: Any, given: list[Fact]) -> Any:
    left, right = given
    ranks = [tensor.shape.rank for tensor in operation.inputs]
    flags = ("transpose_a", "transpose_b")
    flipped = [attribute(operation, name) for name in flags]
    if operation.type != "MatMul":
        flipped = [attribute(operation, name) for name in ("adj_x", "adj_y")]
    if None in ranks or "size" in kinds(given):
        return None
    contracted = operation.inputs[0].shape[-2 if flipped[0] else -1]
    if contracted is None:
        return None
    rank = max(ranks)
    left, right = (
        aligned(f, tensor, rank)
        for f, tensor in zip(given, operation.inputs, strict=True)
    )
    if left.kind == "rows" and left.axis == rank - 2 and not flipped[0]:
        return left if right.kind != "rows" else None
    batched = [f for f in (left, right) if f.kind == "rows"]
    if any(f.axis >= rank - 2 for f in batched):
        return None
    return meeting([left, right])


def _spatial(operation: Any, given: list[Fact]) -> Any:
    fact = given[0]
    closed = known(operation.inputs[0].shape, range(1, 4))
    keeps = fact.kind in ("places", "rows") and fact.axis == 0 and closed
    return fact if keeps and kinds(given[1:]) <= {"constant"} else None


def _bias_add(operation: Any, given: list[Fact]) -> Any:
    last = operation.inputs[0].shape.rank - 1
    channel = 1 if attribute(operation, "data_format") == b"NCHW" else last
    mixed = given[0].kind == "rows" and given[0].axis == channel
    return None if mixed else moves.same(operation, given)


def _last_axis(operation: Any, given: list[Fact]) -> Any:
    """Operations on [rows, classes], each row by itself."""
    shape = operation.inputs[0].shape
    if not shape.rank or shape[-1] is None:
        return None
    if any(f.kind == "rows" and f.axis == shape.rank - 1 for f in given[:1]):
        return None
    return meeting(given)


def _shaped(operation: Any, given: list[Fact]) -> Any:
    """Values at places whose number may depend on the number of rows."""
    return PLACES if kinds(given) <= {"size", "constant"} else None


def _fill(operation: Any, given: list[Fact]) -> Any:
    return _shaped(operation, given) if given[1].kind == "constant" else None


def _range(operation: Any, given: list[Fact]) -> Any:
    fixed = given[0].kind == given[2].kind == "constant"
    # A row that knows its place changes when one before it is left out.
    numbers_rows = given[1].kind != "constant"
    if numbers_rows and HASHED_PLACES not in operation.name:
        return None
    return _shaped(operation, given) if fixed else None


def _shape(operation: Any, given: list[Fact]) -> Any:
    return [
        CONSTANT if tensor.shape.is_fully_defined() else SIZE
        for tensor in operation.inputs
    ]


def _likeness(operation: Any, given: list[Fact]) -> Any:
    return given[0] if given[0].kind in ("rows", "places") else None


def _arg(operation: Any, given: list[Fact]) -> Any:
    axes, shape = static(operation.inputs[1]), operation.inputs[0].shape
    if axes is None or shape.rank is None or given[0].kind == "size":
        return None
    axis = axes[0] % shape.rank
    if not known(shape, [axis]) or given[0].kind != "rows":
        return given[0] if given[0].kind == "places" and known(shape, [axis]) else None
    if axis == given[0].axis:
        return None
    return given[0]._replace(axis=given[0].axis - (axis < given[0].axis))


def _batch_norm(operation: Any, given: list[Fact]) -> Any:
    """Keras 2 normalises layers so, with one "channel" for each row."""
    values, *others = given
    if values.kind != "rows" or "rows" in kinds(others) or "size" in kinds(others):
        return None
    shape = operation.inputs[0].shape
    if not attribute(operation, "is_training"):
        kept = values.axis == 0 and kinds(others) <= {"constant"}
        return [values, *[None] * (len(operation.outputs) - 1)] if kept else None
    by_row = attribute(operation, "data_format") == b"NCHW" and values.axis == 1
    if not by_row or not known(shape, [0, 2, 3]):
        return None
    operation.outputs[0].set_shape(shape)
    return [values, *[None] * (len(operation.outputs) - 1)]


def _einsum(operation: Any, given: list[Fact]) -> Any:
    equation = attribute(operation, "equation").decode().replace(" ", "")
    if "." in equation or "size" in kinds(given):
        return None
    inputs, output = equation.split("->")
    labels, sizes = inputs.split(","), dict[str, Any]()
    for names, tensor in zip(labels, operation.inputs, strict=True):
        sizes |= dict(zip(names, tensor.shape, strict=True))
    if any(sizes[name] is None for name in set(inputs) - set(output) - {","}):
        return None
    pairs = list(zip(labels, given, strict=True))
    rows = {(names[f.axis], f.width) for names, f in pairs if f.kind == "rows"}
    if not rows:
        return without_rows(given)
    label, width = rows.pop()
    others = [names for names, f in pairs if f.kind != "rows"]
    alone = not rows and not any(label in names for names in others)
    return Fact("rows", output.index(label), width) if alone else None


_NAMES: dict[Rule, str] = {
    _elementwise: "Abs Add AddN AddV2 BitwiseAnd BitwiseOr BitwiseXor Cast Ceil Cos "
    "Cosh Div DivNoNan Elu Equal Erf Erfc Exp Expm1 Floor FloorDiv FloorMod Greater "
    "GreaterEqual Inv IsFinite IsInf IsNan LeakyRelu LeftShift Less LessEqual Lgamma "
    "Log Log1p LogicalAnd LogicalNot LogicalOr Maximum Minimum Mul MulNoNan Neg "
    "NotEqual Pow RealDiv Reciprocal Relu Relu6 RightShift Rint Round Rsqrt SelectV2 "
    "Selu Sigmoid Sign Sin Sinh Softplus Softsign Sqrt Square SquaredDifference Sub "
    "Tan Tanh ReluGrad SigmoidGrad TanhGrad TruncateDiv "
    "Xdivy Xlog1py Xlogy ClipByValue",
    moves.same: "Identity StopGradient PreventGradient CheckNumerics EnsureShape "
    "Snapshot",
    _each: "IdentityN",
    _reduction: "Sum Mean Max Min Prod All Any EuclideanNorm",
    moves.reshape: "Reshape ExpandDims Squeeze",
    moves.transpose: "Transpose",
    _matmul: "MatMul BatchMatMul BatchMatMulV2 BatchMatMulV3",
    _spatial: "Conv2D DepthwiseConv2dNative MaxPool AvgPool LRN",
    _bias_add: "BiasAdd",
    _last_axis: "Softmax LogSoftmax SparseSoftmaxCrossEntropyWithLogits "
    "SoftmaxCrossEntropyWithLogits",
    moves.concat: "ConcatV2",
    moves.pack: "Pack",
    moves.unpack: "Unpack",
    moves.split: "Split SplitV",
    moves.strided_slice: "StridedSlice",
    moves.cut: "Slice",
    moves.pad: "Pad PadV2 MirrorPad",
    moves.gather: "GatherV2",
    moves.one_hot: "OneHot",
    moves.tile: "Tile",
    moves.broadcast_to: "BroadcastTo",
    _fill: "Fill",
    _shaped: "StatelessRandomUniform StatelessRandomUniformV2 "
    "StatelessRandomUniformInt StatelessRandomUniformIntV2 "
    "StatelessRandomUniformFullInt "
    "StatelessRandomUniformFullIntV2 StatelessRandomNormal StatelessRandomNormalV2 "
    "StatelessTruncatedNormal StatelessTruncatedNormalV2",
    _range: "Range",
    _shape: "Shape ShapeN",
    _likeness: "ZerosLike OnesLike",
    _arg: "ArgMax ArgMin",
    _batch_norm: "FusedBatchNormV3",
    _einsum: "Einsum",
}

RULES = {name: rule for rule, names in _NAMES.items() for name in names.split()}
