"""Points carried over a diffusion Schrodinger bridge in the plane, 20 steps, beside a loop of eager PyTorch.

The network is the recipes' MLP with random weights. It is timed only if both engines give the same points for the same
noise.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from i2sb_export.onnx import export_onnx
from i2sb_rt import _core, load_transport
from i2sb_rt.model_file import ModelInfo, save_safetensors
from i2sb_rt.networks import MLP
from i2sb_rt.networks.loading import load_network

STEPS = 20
BATCH = 64  # of the model, as in the recipes


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    sizes: dict[str, Any] = {"dim": 2, "width": 128, "depth": 3}
    torch.manual_seed(0)
    network = MLP(**sizes)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, 0, 0.05)
    info = ModelInfo(
        name="plane", task="dsb", sampler="dsb", prediction="drift", gammas=(0.5 / STEPS,) * STEPS, nfe=STEPS,
        direction="forward", channels=2, multiple=1, minimum=1, tile=16, overlap=0, batch=BATCH,
        network={"mlp": sizes}, trained_on="nothing", license="Apache-2.0",
    )  # fmt: skip
    source = tmp_path_factory.mktemp("plane") / "plane-forward.safetensors"
    save_safetensors(source, {name: p.detach().numpy() for name, p in network.named_parameters()}, info)
    export_onnx(source, source.with_suffix(".onnx"), "fp32")
    return source.with_suffix(".onnx")


@pytest.mark.parametrize("count", [64, 4096])
def test_transport(beside: Any, benchmark: Any, model: Path, count: int) -> None:
    transport = load_transport(model, states=count)
    network = load_network(model)
    rows = transport.plan().rows
    x = np.random.default_rng(0).standard_normal((count, 2)).astype(np.float32)

    def eager(noise: float = 1.0, times: int = count) -> Tensor:
        state = torch.from_numpy(x)[..., None, None]
        with torch.inference_mode():
            for row in rows:
                out = network(state, torch.full((times,), float(row[0])))
                state = float(row[1]) * state + float(row[2]) * out
                if row[8]:
                    state = state + noise * float(row[8]) * torch.randn_like(state)
        return state[..., 0, 0]

    silent = np.zeros((STEPS - 1, count, 2, 1, 1), np.float32)
    still = _core.sample(transport.engine.core, rows, x[..., None, None], draws=silent, network_batch=BATCH)
    error = float(np.abs(still[..., 0, 0] - eager(0.0).numpy()).max())
    in_torch = load_transport(model, engine="torch", states=count)
    same = np.abs(transport.translate(x) - in_torch.translate(x)).max()
    assert max(error, float(same)) < 1e-4, f"not timed: the points differ by {error:.1e} and {same:.1e}"
    benchmark.extra_info |= {"error": max(error, float(same))}
    # As published code calls its network, with a time for each point; with one for all, as the native engine does; and
    # the same exported file by the engine `torch`.
    baselines = {
        "PyTorch fp32": eager,
        "PyTorch fp32, one time": lambda: eager(times=1),
        "engine torch": lambda: in_torch.translate(x),
    }
    beside(lambda: transport.translate(x), baselines, budget=30.0)
