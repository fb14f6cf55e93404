"""A whole restore, bytes to bytes, beside the same loop in eager PyTorch fp32 and around ONNX Runtime."""

import statistics
import time
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
from i2sb_rt.evaluation.metrics import psnr
from i2sb_rt.evaluation.speed import AGREEMENT
from i2sb_rt.networks.loading import load_network
from i2sb_rt.timeline import Timeline

PHOTO = Path(__file__).parents[1] / "examples" / "photo.jpg"

U8 = NDArray[np.uint8]
Network = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def eager(network: Network, plan: Plan, image: U8, cond_x1: bool) -> U8:
    """The loop as one writes it down in PyTorch: posterior sampling without noise."""
    with torch.inference_mode():
        x = x1 = torch.tensor(image).permute(2, 0, 1)[None].float() / 127.5 - 1
        for t, p, q, a, b, *_ in plan.rows.tolist():
            seen = torch.cat([x, x1], dim=1) if cond_x1 else x
            x0 = p * x + q * network(seen, torch.full((1,), t))
            x0 = x0.clamp(-1, 1) if plan.clip else x0
            x = a * x + b * x0
        return ((x.clamp(-1, 1) + 1) * 127.5).round().byte()[0].permute(1, 2, 0).numpy()


def agree_in_bytes(found: U8, wanted: U8, precision: str) -> None:
    """Fails if two results differ by more than the precision explains."""
    close = psnr(wanted, found)
    assert close > AGREEMENT[precision], f"not timed: two ways agree to {close:.1f} dB only"


@pytest.mark.parametrize("precision", ["fp32", "auto"])
@pytest.mark.parametrize("nfe", [1, 10])
def test_restore(beside: Any, benchmark: Any, model_path: Path, nfe: int, precision: str) -> None:
    restorer: Restorer = load(model_path, precision=precision)
    if precision == "auto" and restorer.precision == "fp32":
        pytest.skip("auto is fp32 on this CPU, which is timed already")
    if restorer.info.add_x1_noise:
        pytest.skip("the plain loops beside it do not know add_x1_noise")
    with Image.open(PHOTO) as photo:
        image = np.asarray(photo.convert("RGB").resize((512, 512), Image.Resampling.BICUBIC))
    network, session = load_network(model_path), onnxruntime.InferenceSession(model_path)
    plan, cond_x1 = restorer.plan(nfe, "ode"), restorer.info.cond_x1
    shares = []  # of each restore's time, what is not the network's; making its input of x and x1 counts as its own

    def ours() -> U8:
        phases, begin = Timeline(), time.perf_counter()
        out: U8 = restorer.restore(image, nfe=nfe, sampler="ode", tile=0, observer=phases.observe)
        total = time.perf_counter() - begin
        shares.append(1 - phases.milliseconds()["network"] / (1e3 * total))
        return out

    def in_onnxruntime(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(session.run(None, {"x": x.numpy(), "t": t.numpy()})[0])

    baselines: dict[str, Callable[[], U8]] = {
        "PyTorch fp32": lambda: eager(network, plan, image, cond_x1),
        "ONNX Runtime": lambda: eager(in_onnxruntime, plan, image, cond_x1),
    }
    wanted = baselines["PyTorch fp32"]()
    agree_in_bytes(ours(), wanted, restorer.precision)
    agree_in_bytes(baselines["ONNX Runtime"](), wanted, "fp32")
    shares.clear()  # the first one compiled the network
    beside(ours, baselines, budget=20.0)
    benchmark.extra_info |= {"model": restorer.info.name, "precision": restorer.precision}
    benchmark.extra_info["around the network"] = round(statistics.median(shares), 4)
