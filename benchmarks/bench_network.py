"""One network call of a shipped model, on all cores, beside PyTorch, ONNX Runtime and OpenVINO called by hand."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import openvino
import pytest
import torch
from numpy.typing import NDArray

from i2sb_rt import _core, load
from i2sb_rt.networks.loading import load_network

F32 = NDArray[np.float32]


def by_hand(path: Path, precision: str, x: F32, t: F32) -> Callable[[], F32]:
    """The network as one runs it with OpenVINO's own Python API, at one size."""
    core = openvino.Core()
    model = core.read_model(path)
    model.reshape({"x": list(x.shape), "t": list(t.shape)})
    hint = {"fp32": "f32", "bf16": "bf16"}[precision]
    compiled = core.compile_model(model, "CPU", {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": hint})
    request = compiled.create_infer_request()
    return lambda: request.infer({"x": x, "t": t})["out"]


@pytest.mark.parametrize("precision", ["fp32", "auto"])
@pytest.mark.parametrize(("height", "width"), [(256, 256), (512, 512), (512, 768)])
def test_network(
    beside: Any, agree: Any, benchmark: Any, model_path: Path, height: int, width: int, precision: str
) -> None:
    restorer = load(model_path, precision=precision)
    if precision == "auto" and restorer.precision == "fp32":
        pytest.skip("auto is fp32 on this CPU, which is timed already")
    network, session = load_network(model_path), onnxruntime.InferenceSession(model_path)
    x = np.random.default_rng(0).uniform(-1, 1, (1, restorer.info.in_channels, height, width)).astype(np.float32)
    t = np.full(1, restorer.plan().rows[0, 0])
    state, cond = x[:, : restorer.info.channels].copy(), x[:, restorer.info.channels :].copy()
    row = np.zeros((1, 10), np.float32)
    row[0, [0, 2, 4]] = t[0], 1, 1  # x' = x0 = what the network says: the loop adds next to nothing

    def ours() -> Any:
        return _core.sample(restorer.engine.core, row, state, cond=cond if cond.size else None, network_batch=1)

    def in_torch() -> Any:
        with torch.inference_mode():
            return network(torch.from_numpy(x), torch.from_numpy(t)).numpy()

    def in_onnxruntime() -> Any:
        return session.run(None, {"x": x, "t": t})[0]

    in_openvino = by_hand(model_path, restorer.precision, x, t)
    wanted = in_torch()
    error = agree(ours(), wanted, restorer.precision)
    agree(in_openvino(), wanted, restorer.precision)
    agree(in_onnxruntime(), wanted, "fp32")
    benchmark.extra_info |= {"model": restorer.info.name, "precision": restorer.precision, "error": error}
    baselines = {"PyTorch fp32": in_torch, "ONNX Runtime": in_onnxruntime, "OpenVINO by hand": in_openvino}
    beside(ours, baselines, budget=20.0)
