"""Networks in other precisions: what computes in which type, and how far that moves the output."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper, shape_inference

from i2sb_export.typed import retyped
from i2sb_rt import models
from i2sb_rt.errors import UsageError
from i2sb_rt.model_file import read_info

Exported = Any
TYPES = {"fp32": TensorProto.FLOAT, "fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}


def run(model: onnx.ModelProto, x: NDArray[np.float32], t: NDArray[np.float32]) -> NDArray[np.float32]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(["out"], {"x": x, "t": t})[0])


def inputs(path: Path) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    info, draw = read_info(path), np.random.default_rng(0)
    shape = (2, info.in_channels, 4 * info.multiple, 6 * info.multiple)
    return draw.standard_normal(shape, dtype=np.float32), np.array([321, 7], np.float32)


def output_types(model: onnx.ModelProto) -> dict[str, int]:
    inferred = shape_inference.infer_shapes(model, check_type=True, strict_mode=True).graph
    values = [*inferred.value_info, *inferred.input, *inferred.output]
    return {value.name: value.type.tensor_type.elem_type for value in values}


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-6), ("fp16", 2e-3)])
def test_the_output_stays_what_it_was(exported: Exported, precision: str, tolerance: float) -> None:
    model = onnx.load(exported.path)
    x, t = inputs(exported.path)
    wanted, found = run(model, x, t), run(retyped(model, precision), x, t)
    assert found.dtype == np.float32
    assert np.abs(found - wanted).max() <= tolerance * np.abs(wanted).max()
    assert precision == "fp32" or np.abs(found - wanted).max() > 0


@pytest.mark.parametrize("precision", TYPES)
def test_types_are_those_asked_for(exported: Exported, precision: str) -> None:
    before = onnx.load(exported.path)
    model = retyped(before, precision)
    onnx.checker.check_model(model, full_check=True)
    types, seen = output_types(model), set()
    for node in model.graph.node:
        kind = types[node.output[0]]
        from_time = node.name.startswith("time_embed") or ".emb_layers." in node.name
        if node.op_type in ("Conv", "Resize", "Softmax", "MatMul") and not from_time:
            assert kind == TYPES[precision], node.name
            seen.add(node.op_type)
        if node.op_type in ("ReduceMean", "Sqrt", "Div", "Sub", "Round") or from_time:
            assert kind in (TensorProto.FLOAT, TensorProto.INT64), node.name
    assert "Conv" in seen
    assert {port.name: types[port.name] for port in [*model.graph.input, *model.graph.output]} == {
        "x": TensorProto.FLOAT, "t": TensorProto.FLOAT, "out": TensorProto.FLOAT,
    }  # fmt: skip


def test_names_weights_and_metadata_are_kept(exported: Exported) -> None:
    before = onnx.load(exported.path)
    copy = onnx.ModelProto()
    copy.CopyFrom(before)
    model = retyped(before, "fp16")
    assert before == copy
    kept = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    for tensor in before.graph.initializer:
        np.testing.assert_array_equal(kept[tensor.name].astype(np.float32), numpy_helper.to_array(tensor))
    assert list(model.metadata_props) == list(before.metadata_props)
    names = [node.name for node in model.graph.node]
    assert len(names) == len(set(names))
    assert {node.name for node in before.graph.node if node.op_type == "Conv"} <= set(names)
    assert not [node for node in model.graph.node if node.name.endswith("/fp32")]  # no weight is cast any more


@pytest.mark.parametrize("name", models.names())
def test_shipped_models_hardly_change_in_fp16(name: str) -> None:
    path = models.find(name)
    model = onnx.load(path)
    x, t = inputs(path)
    wanted, found = run(model, x, t), run(retyped(model, "fp16"), x, t)
    assert np.abs(found - wanted).max() < 1e-3 * np.abs(wanted).max()


def test_another_precision_is_refused(exported: Exported) -> None:
    with pytest.raises(UsageError, match="fp32, fp16, bf16, not 'int8'"):
        retyped(onnx.load(exported.path), "int8")
