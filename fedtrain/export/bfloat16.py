"""A model whose matrix products and convolutions are computed in bfloat16.

Everything else stays in float32, inputs and outputs too: of each product the factors
are rounded to 8 bits and the result is taken back. Weights that only go into products
are kept in bfloat16, half as large. Whether it is faster depends on the processor.
"""

from collections import Counter
from typing import Any

import tensorflow as tf

from fedtrain.core.errors import ConfigError
from fedtrain.export.frozen_graph import frozen_graph
from fedtrain.export.graph_source import graph_source
from fedtrain.export.source import Source

# All have the two factors as their first inputs, and their type in the attribute "T".
_PRODUCTS = (
    *("MatMul", "BatchMatMul", "BatchMatMulV2", "Einsum"),
    *("Conv2D", "DepthwiseConv2dNative", "Conv3D"),
)


def in_bfloat16(source: Source) -> Source:
    """``source`` with a model that has its weights within and computes in bfloat16.

    Raises:
      ConfigError: If it has no product to compute so, or this machine cannot.
    """
    graph = frozen_graph(source)
    rounded = graph_source(source, graph, _rounded(graph.graph_def))
    row = tf.nest.map_structure(lambda x: x[:1], source.evaluation.features)
    try:
        rounded.model.forward((), tf.nest.map_structure(tf.constant, row))
    except tf.errors.OpError as error:
        raise ConfigError(
            f"{source.name} cannot be computed in bfloat16 here: {error.message[:300]} "
            "Leave bfloat16 out of export.server_variants."
        ) from error
    return rounded


def _rounded(graph_def: Any) -> Any:
    """A copy in which every float32 product is one of bfloat16 between two casts."""
    rounded = tf.compat.v1.GraphDef(versions=graph_def.versions)
    constants = {node.name: node for node in graph_def.node if node.op == "Const"}
    products = {node.name for node in graph_def.node if _is_product(node)}
    if not products:
        raise ConfigError(
            "The model has no float32 matrix product or convolution that bfloat16 "
            "could speed up; leave bfloat16 out of export.server_variants."
        )
    for node in graph_def.node:
        if node.name in products:
            rounded.node.extend(_in_lower_type(node, constants))
        else:
            rounded.node.add().CopyFrom(node)
    return _without_unused(rounded, constants)


def _is_product(node: Any) -> bool:
    return node.op in _PRODUCTS and node.attr["T"].type == tf.float32.as_datatype_enum


def _in_lower_type(node: Any, constants: dict[str, Any]) -> list[Any]:
    """The product under another name, its rounded factors, and its result as before."""
    product = tf.compat.v1.NodeDef()
    product.CopyFrom(node)
    product.name = f"{node.name}/bfloat16"
    product.attr["T"].type = tf.bfloat16.as_datatype_enum
    factors = []
    for place, name in enumerate(node.input[:2]):
        factor = _factor(f"{node.name}/bfloat16_{place}", name, constants)
        product.input[place] = factor.name
        factors.append(factor)
    result = _cast(node.name, product.name, tf.bfloat16, tf.float32)
    return [*factors, product, result]


def _factor(name: str, given: str, constants: dict[str, Any]) -> Any:
    if given not in constants:
        return _cast(name, given, tf.float32, tf.bfloat16)
    value = tf.make_ndarray(constants[given].attr["value"].tensor)
    constant = tf.compat.v1.NodeDef(name=name, op="Const")
    constant.attr["dtype"].type = tf.bfloat16.as_datatype_enum
    # As TensorFlow writes it, each number would be an integer of three bytes.
    tensor = constant.attr["value"].tensor
    tensor.dtype = tf.bfloat16.as_datatype_enum
    tensor.tensor_shape.CopyFrom(tf.TensorShape(value.shape).as_proto())
    tensor.tensor_content = value.astype(tf.bfloat16.as_numpy_dtype).tobytes()
    return constant


def _cast(name: str, given: str, before: tf.DType, after: tf.DType) -> Any:
    node = tf.compat.v1.NodeDef(name=name, op="Cast", input=[given])
    node.attr["SrcT"].type = before.as_datatype_enum
    node.attr["DstT"].type = after.as_datatype_enum
    return node


def _without_unused(graph_def: Any, constants: dict[str, Any]) -> Any:
    """Without the float32 constants that no node takes any more."""
    used = Counter(name.lstrip("^") for node in graph_def.node for name in node.input)
    kept = [n for n in graph_def.node if n.name not in constants or used[n.name]]
    return tf.compat.v1.GraphDef(versions=graph_def.versions, node=kept)
