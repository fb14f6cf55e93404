"""A whole restore, bytes to bytes, beside the same loop in eager PyTorch fp32 and around ONNX Runtime."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from i2sb_rt import Plan, Restorer, load
from i2sb_rt.networks.loading import load_network

PHOTO = Path(__file__).parents[1] / "examples" / "photo.jpg"
# The least PSNR in dB between two ways to one result: bytes that round otherwise, and networks in bf16.
AGREEMENT = {"fp32": 55.0, "bf16": 40.0}

U8 = NDArray[np.uint8]


def eager(network: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], plan: Plan, image: U8) -> U8:
    """The loop as one writes it down in PyTorch: posterior sampling without noise."""
    with torch.inference_mode():
        x = torch.tensor(image).permute(2, 0, 1)[None].float() / 127.5 - 1
        for t, p, q, a, b, *_ in plan.rows.tolist():
            x0 = p * x + q * network(x, torch.full((1,), t))
            x0 = x0.clamp(-1, 1) if plan.clip else x0
            x = a * x + b * x0
        return ((x.clamp(-1, 1) + 1) * 127.5).round().byte()[0].permute(1, 2, 0).numpy()


@pytest.mark.parametrize("precision", ["fp32", "auto"])
@pytest.mark.parametrize("nfe", [1, 10])
def test_restore(beside: Any, benchmark: Any, model_path: Path, nfe: int, precision: str) -> None:
    restorer: Restorer = load(model_path, precision=precision)
    if precision == "auto" and restorer.precision == "fp32":
        pytest.skip("auto is fp32 on this CPU, which is timed already")
    if restorer.info.cond_x1 or restorer.info.add_x1_noise:
        pytest.skip("the plain loops beside it know neither cond_x1 nor add_x1_noise")
    with Image.open(PHOTO) as photo:
        image = np.asarray(photo.convert("RGB").resize((512, 512), Image.Resampling.BICUBIC))
    network, session = load_network(model_path), onnxruntime.InferenceSession(model_path)
    plan = restorer.plan(nfe, "ode")

    def in_onnxruntime(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(session.run(None, {"x": x.numpy(), "t": t.numpy()})[0])

    calls: dict[str, Callable[[], U8]] = {
        "this": lambda: restorer.restore(image, nfe=nfe, sampler="ode", tile=0),
        "PyTorch fp32": lambda: eager(network, plan, image),
        "ONNX Runtime": lambda: eager(in_onnxruntime, plan, image),
    }
    results = {name: call().astype(np.float64) for name, call in calls.items()}
    for name, result in results.items():
        error = float(np.mean((result - results["PyTorch fp32"]) ** 2))
        psnr = 10 * math.log10(255**2 / max(error, 1e-12))
        least = AGREEMENT[restorer.precision if name == "this" else "fp32"]
        assert psnr > least, f"not timed: {name} and PyTorch agree to {psnr:.1f} dB only"
    ours = calls.pop("this")
    benchmark.extra_info |= {"model": restorer.info.name, "precision": restorer.precision}
    beside(ours, calls, budget=20.0)
