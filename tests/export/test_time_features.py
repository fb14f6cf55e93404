from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime
import openvino
import pytest
import torch
from numpy.typing import NDArray
from onnxscript.optimizer import fold_constants
from torch import Tensor, nn

from i2sb_export.time_features import exact_time_features
from i2sb_rt.networks.loading import load_network
from i2sb_rt.networks.unet import time_features

Exported = Any
F32 = NDArray[np.float32]
CORE = openvino.Core()
TIMES = np.array([0, 1e-3, 0.5, 99.1, 255, 256.5, 501.7, 999, 1000, -7.25, 4000], np.float32)
# Two roundings of the angle's rest, below pi (2.4e-7), three of each factor of 2 sin cos (3.6e-7), and one of the sum.
TOLERANCE = 7.5e-7


class Features(nn.Module):
    """The features alone."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, t: Tensor) -> Tensor:
        return time_features(t, self.dim)


def exported_features(dim: int) -> tuple[bytes, F32]:
    """The features as an ONNX file, and the rates [dim // 2] that stand in it."""
    program = torch.onnx.export(
        Features(dim).eval(), (torch.zeros(2),), dynamo=True, optimize=False, verbose=False, opset_version=18,
        input_names=["t"], output_names=["out"], dynamic_shapes=({0: torch.export.Dim("batch")},),
    )  # fmt: skip
    assert program is not None
    fold_constants(program.model)
    (rates,) = (
        value.const_value.numpy().ravel()
        for node in program.model.graph
        for value in node.inputs
        if node.op_type == "Mul" and value is not None and value.const_value is not None
    )
    exact_time_features(program.model)
    assert {"Cos", "Sin"}.isdisjoint(node.op_type for node in program.model.graph)
    return ir.to_proto(program.model).SerializeToString(), rates


def in_float64(t: F32, rates: F32, dim: int) -> NDArray[np.float64]:
    """Cosines and sines of the angles as float32 holds them."""
    angles = (t[:, None] * rates).astype(np.float64)
    return np.concatenate([np.cos(angles), np.sin(angles), np.zeros((len(t), dim - 2 * len(rates)))], axis=1)


@pytest.mark.parametrize("dim", [2, 5, 64, 256])
def test_they_are_those_of_the_network(dim: int) -> None:
    data, rates = exported_features(dim)
    late = np.array([2.5], np.float32)
    np.testing.assert_allclose(in_float64(late, rates, dim), time_features(torch.from_numpy(late), dim), atol=1e-6)
    session, model = onnxruntime.InferenceSession(data), CORE.compile_model(CORE.read_model(data), "CPU")
    for t in (TIMES, TIMES[3:4]):
        wanted = in_float64(t, rates, dim)
        for found in (session.run(["out"], {"t": t})[0], model({"t": t})[0]):
            assert found.shape == wanted.shape
            assert np.abs(found - wanted).max() <= TOLERANCE


@pytest.mark.parametrize("batch", [1, 5])
def test_one_fused_operator_makes_them_from_the_input(exported: Exported, batch: int) -> None:
    """What OpenVINO takes apart it joins with tensors of 16 bits, which no angle survives."""
    model = CORE.read_model(exported.path)
    model.reshape({"x": [batch, exported.info.in_channels, 32, 32], "t": [batch]})
    compiled = CORE.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    layers = {}
    for node in compiled.get_runtime_model().get_ops():
        parents = {source.get_node().get_friendly_name() for source in node.input_values()}
        for name in str(node.get_rt_info()["originalLayersNames"].astype(str)).split(","):
            layers[name] = (node.get_friendly_name(), parents)
    features = next(node for node in model.get_ops() if node.get_friendly_name() == "Transpose")
    last = features.input_value(0).get_node().get_friendly_name()
    assert layers[last] == layers["Round"]
    assert "t" in layers["Round"][1]


@pytest.mark.skipif("BF16" not in CORE.get_property("CPU", "OPTIMIZATION_CAPABILITIES"), reason="no bf16 here")
def test_late_times_lose_no_more_than_early_ones_in_bf16(exported: Exported) -> None:
    size = (1, exported.info.in_channels, 32, 32)
    model = CORE.read_model(exported.path)
    model.reshape({"x": list(size), "t": [1]})
    compiled = CORE.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "bf16"})
    network = load_network(exported.path)

    def error(t: float, x: F32) -> float:
        at = np.array([t], np.float32)
        with torch.inference_mode():
            wanted = network(torch.from_numpy(x), torch.from_numpy(at)).numpy()
        return float(np.abs(compiled({"x": x, "t": at})["out"] - wanted).max() / np.abs(wanted).max())

    draws = np.random.default_rng(0).standard_normal((4, *size), dtype=np.float32)
    early, late = (np.mean([error(t, x) for x in draws for t in times]) for times in ([0.0], [501.7, 907.3, 999.0]))
    assert 0 < late < 2 * early


def test_other_graphs_are_left_alone() -> None:
    class Cosine(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.cos() + x.sin()

    program = torch.onnx.export(Cosine().eval(), (torch.zeros(2, 3),), dynamo=True, optimize=False, verbose=False)
    assert program is not None
    exact_time_features(program.model)
    assert {"Cos", "Sin"} <= {node.op_type for node in program.model.graph}
