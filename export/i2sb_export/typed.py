"""An exported network in another precision, rewritten without PyTorch: for engines that take types as given.

What an exported file computes in float32 behind casts of its weights, the result computes in the chosen type, weights
stored in it. In float32 stay the path of the time, the statistics of norms (means, variances, scales and shifts until
they meet the activations), and what comes in and goes out.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import ml_dtypes
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from i2sb_rt.errors import ModelFileError, UsageError

PRECISIONS: Final = {"fp32": TensorProto.FLOAT, "fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}
_NUMPY: Final[dict[int, np.dtype[Any]]] = {
    TensorProto.FLOAT: np.dtype(np.float32),
    TensorProto.FLOAT16: np.dtype(np.float16),
    TensorProto.BFLOAT16: np.dtype(ml_dtypes.bfloat16),
}
_FLOATS: Final = frozenset(_NUMPY)
_FLOAT_INPUTS: Final = {"Resize": (1, 2)}  # inputs that are float32 whatever the others are
_BF16_OPSET: Final = 22  # the first in which Conv takes bf16


def retyped(model: onnx.ModelProto, precision: str) -> onnx.ModelProto:
    """Return an exported network that computes in `precision`: fp32, fp16 or bf16. The model given is left as it is.

    Inputs x and t and the output out stay float32; names of parameters and of nodes are kept. Raises UsageError for
    another precision, ModelFileError for a graph that `export` would not write.
    """
    if precision not in PRECISIONS:
        raise UsageError(f"precision is {', '.join(PRECISIONS)}, not {precision!r}")
    writer = _Writer(model.graph, PRECISIONS[precision])
    for node in model.graph.node:
        writer.add(node)
    writer.finish([port.name for port in model.graph.output])
    graph = helper.make_graph(
        writer.nodes, model.graph.name, list(model.graph.input), list(model.graph.output), writer.initializers()
    )
    opset = _BF16_OPSET if precision == "bf16" else model.opset_import[0].version
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=model.ir_version)
    made.producer_name = model.producer_name
    helper.set_model_props(made, {entry.key: entry.value for entry in model.metadata_props})
    return made


class _Writer:
    """Rewrites nodes in order, keeping for each value whether it is float32, of the low type, or still of any type."""

    def __init__(self, graph: onnx.GraphProto, low: int) -> None:
        self.low = low
        self.nodes: list[onnx.NodeProto] = []
        self.made: dict[str, NDArray[np.generic]] = {}
        self.types: dict[str, int] = {port.name: port.type.tensor_type.elem_type for port in graph.input}
        # Real numbers that become of a type where they are used.
        self.constants: dict[str, NDArray[np.generic]] = {}
        for tensor in graph.initializer:
            self._hold(tensor.name, numpy_helper.to_array(tensor))
        images = [port.name for port in graph.input if len(port.type.tensor_type.shape.dim) == 4]  # t is the other
        self.renamed = {name: self._cast(name, low) for name in images}

    def add(self, node: onnx.NodeProto) -> None:
        """Append a node in the type that its inputs ask for."""
        node = _copy(node, [self.renamed.get(name, name) for name in node.input])
        if node.op_type == "Constant":
            self._hold(node.output[0], _value_of(node))
            return
        if node.op_type == "Cast" and node.input[0] in self.constants:
            self.constants[node.output[0]] = self.constants[node.input[0]]
            return
        given = [self.types[name] for name in node.input if name in self.types and self.types[name] in _FLOATS]
        if not given:
            self._untyped(node)
            return
        mixed = len(set(given)) > 1
        wanted = self.low if mixed else given[0]
        # A statistic is computed, and taken off an activation, exactly; it is put onto it in the activation's type.
        if node.op_type == "ReduceMean" or (mixed and node.op_type == "Sub"):
            wanted = TensorProto.FLOAT
        fixed = _FLOAT_INPUTS.get(node.op_type, ())
        types = [TensorProto.FLOAT if i in fixed else wanted for i in range(len(node.input))]
        self.nodes.append(_copy(node, map(self._as, node.input, types)))
        shape_like = node.op_type in ("Shape", "Size")
        for name in node.output:
            self.types[name] = TensorProto.INT64 if shape_like else wanted

    def _untyped(self, node: onnx.NodeProto) -> None:
        """Append a node of integers as it is; one of constants alone computes in float32, as norms' weights do."""
        is_float = any(name in self.constants for name in node.input)
        self.nodes.append(_copy(node, [self._as(name, TensorProto.FLOAT) for name in node.input]))
        for name in node.output:
            self.types[name] = TensorProto.FLOAT if is_float else TensorProto.INT64

    def _hold(self, name: str, array: NDArray[np.generic]) -> None:
        """Take a constant: integers are stored as they are, real numbers wait for the types they are used in."""
        if array.dtype in _NUMPY.values():
            self.constants[name] = array
        else:
            self.made[name], self.types[name] = array, TensorProto.INT64

    def _as(self, name: str, wanted: int) -> str:
        """Return the name of a value in a type, making a constant or a cast where there is none yet."""
        if not name or self.types.get(name) in (wanted, TensorProto.INT64):
            return name
        if name in self.constants:
            return self._constant(name, wanted)
        if name not in self.types:
            raise ModelFileError(f"the graph uses {name!r} before it is made")
        return self._cast(name, wanted)

    def _constant(self, name: str, wanted: int) -> str:
        """Store a constant under its parameter's own name in the first type it is used in, and apart in another."""
        stem = name.removesuffix("/fp32")
        array = self.constants[name].astype(_NUMPY[wanted])
        if stem in self.made and self.made[stem].dtype != array.dtype:
            stem = f"{stem}/{TensorProto.DataType.Name(wanted).lower()}"
        self.made[stem] = array
        return stem

    def _cast(self, name: str, wanted: int) -> str:
        target = f"{name}/{TensorProto.DataType.Name(wanted).lower()}"
        if self.types.get(name) == wanted:
            return name
        if target not in self.types:
            self.nodes.append(helper.make_node("Cast", [name], [target], name=target, to=wanted))
            self.types[target] = wanted
        return target

    def finish(self, outputs: Iterable[str]) -> None:
        """Give the outputs in float32 under their own names."""
        for name in outputs:
            if self.types[name] == TensorProto.FLOAT:
                continue
            inner = f"{name}/{TensorProto.DataType.Name(self.types[name]).lower()}"
            for node in self.nodes:
                for names in (node.input, node.output):
                    for i, used in enumerate(names):
                        names[i] = inner if used == name else used
            self.nodes.append(helper.make_node("Cast", [inner], [name], name=name, to=TensorProto.FLOAT))

    def initializers(self) -> list[onnx.TensorProto]:
        """Return the constants that are used, in the types they are used in."""
        return [numpy_helper.from_array(array, name) for name, array in self.made.items()]


def _copy(node: onnx.NodeProto, inputs: Iterable[str]) -> onnx.NodeProto:
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    del copy.input[:]
    copy.input.extend(inputs)
    return copy


def _value_of(node: onnx.NodeProto) -> NDArray[np.generic]:
    (attribute,) = node.attribute
    value = helper.get_attribute_value(attribute)
    if attribute.name == "value":
        return numpy_helper.to_array(value)
    if attribute.name in ("value_float", "value_floats"):
        return np.asarray(value, np.float32)
    if attribute.name in ("value_int", "value_ints"):
        return np.asarray(value, np.int64)
    raise ModelFileError(f"{node.name}: a constant of the kind {attribute.name} has no place in an exported network")
