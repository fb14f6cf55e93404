"""From the exporter's graph to a tidy one: parameters under their own names, readable nodes, no trace of a machine."""

import ast
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx_ir.passes import common as passes
from onnxscript.optimizer import fold_constants

from i2sb_export.lowering import OPSET
from i2sb_export.time_features import exact_time_features

_IR_VERSION = 8  # the file format that opset 18 came with


def simplify(model: ir.Model) -> None:
    """Fold what is constant and drop what is unused, in place; the parameters become inputs without values.

    So no parameter is folded into another tensor or merged with an equal one, and each keeps its name.
    """
    graph = model.graph
    parameters = list(graph.initializers.values())
    graph.initializers.clear()
    graph.inputs.extend(parameters)
    fold_constants(model)
    exact_time_features(model)
    for tidy in (
        passes.IdentityEliminationPass(),
        passes.CommonSubexpressionEliminationPass(),
        passes.RemoveUnusedNodesPass(),
    ):
        tidy(model)
    del graph.inputs[-len(parameters) :]
    for parameter in parameters:
        parameter.const_value = None  # it would keep the network's weights alive


def name_nodes(graph: ir.Graph) -> None:
    """Name each node, and each value after the node that makes it, by module and operator: `out.2/Conv`.

    Constants, which several modules may share, are only counted.
    """
    taken: Counter[str] = Counter()
    outputs = {id(value) for value in graph.outputs}
    for count, constant in enumerate(list(graph.initializers.values()), start=1):
        constant.name = f"folded.{count}"
    for node in graph:
        scopes = ast.literal_eval(node.metadata_props.get("pkg.torch.onnx.name_scopes", "[]"))
        scope = "" if node.op_type == "Constant" else "/".join(scopes[-2:-1])
        name = f"{scope}/{node.op_type}" if scope else node.op_type
        taken[name] += 1
        node.name = name if taken[name] == 1 else f"{name}.{taken[name]}"
        for index, value in enumerate(node.outputs):
            if id(value) not in outputs:
                value.name = f"{node.name}:{index}" if index else node.name


def to_proto(
    graph: ir.Graph, title: str, stored: dict[str, NDArray[Any]], ports: Mapping[str, list[str | int]]
) -> onnx.ModelProto:
    """Write the graph anew with the weights in it; only what is named here gets in.

    stored: each parameter as float32 or float16, taken out one by one; float16 is cast to float32 where it is used.
    ports: the shapes of x, t and out. Every other constant is a Constant node, so the initializers are the parameters
    and nothing else.
    """
    cast = {name: f"{name}/fp32" for name, array in stored.items() if array.dtype == np.float16}
    nodes = [
        helper.make_node("Cast", [name], [made], name=made, to=TensorProto.FLOAT) for name, made in sorted(cast.items())
    ]
    for name, constant in graph.initializers.items():
        value = numpy_helper.from_array(constant.const_value.numpy(), name)  # type: ignore[union-attr]
        nodes.append(helper.make_node("Constant", [], [name], name=name, value=value))
    for node in graph:
        nodes.append(_plain_node(ir.to_proto(node), cast))
    shaped = {name: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in ports.items()}
    made = helper.make_graph(nodes, title, [shaped["x"], shaped["t"]], [shaped["out"]])
    model = helper.make_model(
        made, producer_name="i2sb-rt", ir_version=_IR_VERSION, opset_imports=[helper.make_opsetid("", OPSET)]
    )
    for name in sorted(stored):  # last, for `helper` copies what it is given, and twice
        model.graph.initializer.append(numpy_helper.from_array(stored.pop(name), name))
    return model


def _plain_node(node: onnx.NodeProto, renamed: Mapping[str, str]) -> onnx.NodeProto:
    """Copy operator, wires, attributes and name; leave out what exporters note down."""
    plain = onnx.NodeProto(op_type=node.op_type, name=node.name, output=node.output)
    plain.input.extend(renamed.get(name, name) for name in node.input)
    plain.attribute.extend(node.attribute)
    for attribute in plain.attribute:
        attribute.ClearField("doc_string")
        attribute.t.ClearField("doc_string") if attribute.HasField("t") else None
    return plain
