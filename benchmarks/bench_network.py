"""One network call of a shipped model, beside eager PyTorch in fp32 and ONNX Runtime, on all cores."""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

from i2sb_rt import _core, load
from i2sb_rt.networks.loading import load_network

# Relative to the largest output: what fp32 sums in another order give, and what bf16 does.
TOLERANCE = {"fp32": 1e-4, "bf16": 3e-2}


@pytest.mark.parametrize("precision", ["fp32", "auto"])
@pytest.mark.parametrize(("height", "width"), [(256, 256), (512, 512), (512, 768)])
def test_network(beside: Any, benchmark: Any, model_path: Path, height: int, width: int, precision: str) -> None:
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

    wanted = in_torch()
    for out, tolerance in ((ours(), TOLERANCE[restorer.precision]), (in_onnxruntime(), TOLERANCE["fp32"])):
        error = np.abs(out - wanted).max() / np.abs(wanted).max()
        assert error < tolerance, f"not timed: the outputs differ by {error:.1e} of their range"
    benchmark.extra_info |= {"model": restorer.info.name, "precision": restorer.precision}
    beside(ours, {"PyTorch fp32": in_torch, "ONNX Runtime": in_onnxruntime})
