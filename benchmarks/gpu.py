"""All figures of a GPU in one table: python benchmarks/gpu.py [--smoke] [--out gpu.json].

Everything is checked before it is timed, and timed beside what it replaces, turn about. A phase that fails does not
stop the others, and every line is written as soon as it is known. Needs PyTorch and Triton, and neither OpenVINO nor a
network; run it from the source tree (`pip install --no-deps --no-build-isolation -e .` before).
`--smoke` runs it all on tiny sizes, on a CPU too, where its times mean nothing.
"""

from __future__ import annotations

import argparse
import gc
import math
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gpu_checks import check_kernels
from gpu_run import Run, clocks, figures, graphed, in_turn, launches, memory, sets_of, table, verdicts, waits
from torch import Tensor, nn
from torch.nn import functional as F

from i2sb_kernels.bridge_step import bridge_step
from i2sb_kernels.cases import STEP_BENCHMARKS
from i2sb_kernels.group_norm_silu import group_norm_silu
from i2sb_rt import Plan, Schedule
from i2sb_rt.engines.loop import Loop
from i2sb_rt.networks import UNet
from i2sb_rt.networks.fused import FusedUNet
from i2sb_rt.networks.presets import PRESETS
from i2sb_rt.networks.unet import AttentionBlock

ADM256 = PRESETS["adm256"]
TINY = ADM256 | {"model_channels": 32, "num_head_channels": 16, "channel_mult": [1, 2]}
PHASES = ("kernels", "step", "norm", "network", "restore", "compiled")


def measure_chip(run: Run) -> tuple[float, float]:
    """Measure what the chip can do: bytes a second of a copy (read and written), FLOP a second of a bf16 product."""
    count, side = (1 << 16, 128) if run.smoke else (1 << 28, 8192)
    a, b = (torch.randn(count, device=run.device) for _ in range(2))
    copy = run.seconds({"copy": lambda: b.copy_(a)})["copy"]
    m = torch.randn(side, side, device=run.device, dtype=torch.bfloat16)
    product = run.seconds({"matmul": lambda: m @ m})["matmul"]
    bandwidth, rate = 8 * count / copy, 2 * side**3 / product
    run.tell("copy bandwidth", ms=1e3 * copy, TB_per_s=bandwidth / 1e12)
    run.tell("bf16 matmul rate", ms=1e3 * product, TFLOP_per_s=rate / 1e12)
    return bandwidth, rate


def measure_step(run: Run, bandwidth: float) -> None:
    """Time bridge_step on 64x3x256x256 beside the expression in eager PyTorch."""
    shape = (2, 3, 16, 16) if run.smoke else (64, 3, 256, 256)
    row = torch.zeros(1, dtype=torch.int32, device=run.device)
    number = sets_of(run, 8 * math.prod(shape))
    sets = [tuple(torch.randn(shape, device=run.device) for _ in range(2)) for _ in range(number)]
    seeds = torch.arange(shape[0], device=run.device)
    for case in STEP_BENCHMARKS[:2]:
        rows = torch.tensor(case.rows, device=run.device)
        p, q, a, b, s = (case.row.get(column, 0.0) for column in "pqabs")

        def ours(x: Tensor, o: Tensor, rows: Tensor = rows) -> None:
            bridge_step(x, o, rows, row, seeds=seeds)

        def eager(x: Tensor, o: Tensor, p: float = p, q: float = q, a: float = a, b: float = b, s: float = s) -> Tensor:
            after = a * x + b * (p * x + q * o)
            return after + s * torch.randn_like(x) if s else after

        one, count = in_turn(run, [lambda x=x, o=o: ours(x, o) for x, o in sets], graph=True)
        other, _ = in_turn(run, [lambda x=x, o=o: eager(x, o) for x, o in sets], graph=False)
        taken = {name: t / count for name, t in run.seconds({"ours": one, "eager": other}, budget=3.0).items()}
        share = 3 * math.prod(shape) * 4 / taken["ours"] / bandwidth
        times = taken["eager"] / taken["ours"]
        run.tell(f"bridge_step {case.name}", ms=1e3 * taken["ours"], of_bandwidth=share, times_eager=times)
    measure_laid_out_step(run, sets[0][0], row, seeds, bandwidth)


def measure_laid_out_step(run: Run, x: Tensor, row: Tensor, seeds: Tensor, bandwidth: float) -> None:
    """Time a step from and to the network's bf16 NHWC, patch 2, beside a step between two changes of layout."""
    rows = torch.tensor(STEP_BENCHMARKS[0].rows, device=run.device)
    kind = torch.bfloat16 if run.device == "cuda" else torch.float16
    said = F.pixel_unshuffle(torch.randn_like(x), 2).permute(0, 2, 3, 1).to(kind).contiguous()
    seen = torch.zeros((*said.shape[:3], 16), dtype=kind, device=run.device)

    def ours(state: Tensor = x) -> None:
        bridge_step(state, said, rows, row, seeds=seeds, patch=2, seen=seen)

    def apart(state: Tensor = x) -> None:
        bridge_step(state, F.pixel_shuffle(said.permute(0, 3, 1, 2), 2).float().contiguous(), rows, row, seeds=seeds)
        seen[..., :12] = F.pixel_unshuffle(state, 2).permute(0, 2, 3, 1)

    one, other, shown = x.clone(), x.clone(), []
    for call, state in ((ours, one), (apart, other)):
        seen.fill_(3)
        call(state)
        shown.append(seen.clone())
    assert torch.equal(one, other), "bridge_step in the network's layout is not the step"
    assert torch.equal(*shown), "what the network sees is not x'"
    both = (in_turn(run, [call], graph=True) for call in (ours, apart))
    (one_way, count), (other_way, _) = both
    taken = {name: t / count for name, t in run.seconds({"ours": one_way, "apart": other_way}).items()}
    share = x.numel() * (2 * 4 + 2 * 2) / taken["ours"] / bandwidth
    run.tell("bridge_step from and to bf16 NHWC", ms=1e3 * taken["ours"], of_bandwidth=share,
             times_apart=taken["apart"] / taken["ours"])  # fmt: skip


def measure_norm(run: Run, bandwidth: float) -> None:
    """Time group_norm_silu on 32x256x256x256 and smaller maps beside GroupNorm and SiLU in eager PyTorch."""
    shapes = [(1, 40, 40, 32)] if run.smoke else [(32, 256, 256, 256), (32, 64, 64, 512), (32, 16, 16, 1024)]
    dtype = torch.float32 if run.device == "cpu" else torch.bfloat16
    for n, h, w, c in shapes:
        gamma, beta = (torch.randn((1, c), device=run.device) for _ in range(2))
        row = torch.zeros(1, dtype=torch.int32, device=run.device)
        weight, bias = gamma[0].to(dtype), beta[0].to(dtype)
        sets = []
        for _ in range(sets_of(run, 2 * n * h * w * c * dtype.itemsize)):
            x = torch.randn((n, h, w, c), device=run.device).to(dtype)
            sets.append((x, torch.empty_like(x)))

        def ours(x: Any, out: Any, gamma: Any = gamma, beta: Any = beta, row: Any = row) -> None:
            group_norm_silu(x, gamma, beta, row, out, groups=32)

        def eager(x: Any, weight: Any = weight, bias: Any = bias) -> Tensor:
            return F.silu(F.group_norm(x.permute(0, 3, 1, 2), 32, weight, bias))

        x, out = sets[0]
        ours(x, out)
        difference = (eager(x).permute(0, 2, 3, 1).float() - out.float()).abs().max().item()
        assert difference < 0.2, f"not timed: off by {difference}"
        one, count = in_turn(run, [lambda x=x, out=out: ours(x, out) for x, out in sets], graph=True)
        other, _ = in_turn(run, [lambda x=x: eager(x) for x, _ in sets], graph=False)
        taken = {name: t / count for name, t in run.seconds({"ours": one, "eager": other}, budget=3.0).items()}
        share = 3 * x.numel() * x.element_size() / taken["ours"] / bandwidth
        times = taken["eager"] / taken["ours"]
        run.tell(f"group_norm_silu {n}x{h}x{w}x{c}", ms=1e3 * taken["ours"], of_bandwidth=share, times_eager=times)


class InTheManner(nn.Module):
    """The U-Net in the manner of the reference: weights in fp16, but norms, what they read, and softmax in fp32."""

    def __init__(self, network: UNet) -> None:
        super().__init__()
        self.network = network.half()
        for module in self.network.modules():
            if isinstance(module, nn.GroupNorm):
                module.float()
                module.register_forward_pre_hook(lambda _, given: (given[0].float(),))
                module.register_forward_hook(lambda _, given, result: result.half())
            if isinstance(module, AttentionBlock):
                module.forward = partial(attend, module)  # type: ignore[method-assign]

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Map as UNet does, float32 to float32."""
        return self.network(x.half(), t).float()


def attend(block: AttentionBlock, x: Tensor) -> Tensor:
    """Map x [B, C, H, W] as an AttentionBlock does, the weights of every pair of pixels in memory."""
    flat = x.flatten(2)
    q, k, v = block.qkv(block.norm(flat)).unflatten(1, (block.heads, 3, -1)).unbind(2)
    scale = q.shape[2] ** -0.25
    weights = torch.einsum("nhct,nhcs->nhts", q * scale, k * scale).float().softmax(-1).to(v.dtype)
    h = torch.einsum("nhts,nhcs->nhct", weights, v).flatten(1, 2)
    out: Tensor = flat + block.proj_out(h)
    return out.reshape(x.shape)


def random_network(config: dict[str, Any], device: str) -> UNet:
    """A network whose every layer counts, its activations near one."""
    torch.manual_seed(0)
    with torch.device(device):
        network = UNet(**config).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            if not parameter.any():
                parameter.normal_(0, 0.02)
    return network.requires_grad_(False)


def flop_of(network: UNet, side: int) -> float:
    """Count the FLOP of one call for one image."""
    from torch.utils.flop_counter import FlopCounterMode

    device = next(network.parameters()).device
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        network(torch.zeros((1, network.in_channels, side, side), device=device), torch.zeros(1, device=device))
    return float(counter.get_total_flops())


def measure_network(run: Run, config: dict[str, Any], rate: float) -> None:
    """Time one network call at several batches: eager fp32, fp16 in the reference's manner, and ours.

    fp32 is as PyTorch comes, with TF32 in its convolutions.
    """
    side, batches = (16, (1, 2)) if run.smoke else (256, (1, 4, 32))
    network = random_network(config, run.device)
    flop = flop_of(network, side)
    dtype = torch.float32 if run.device == "cpu" else torch.bfloat16
    fused = FusedUNet(network, dtype)
    fused.set_times(torch.tensor([1000.0]))
    half = InTheManner(random_network(config, run.device)) if run.device == "cuda" else network
    for batch in batches:
        x = torch.randn((batch, 3, side, side), device=run.device)
        t = torch.full((batch,), 1000.0, device=run.device)
        rows = F.pad(x.permute(0, 2, 3, 1), (0, fused.in_width - 3)).to(dtype).contiguous()
        graph = graphed(run, lambda rows=rows: fused(rows))
        calls = {
            "ours": graph,
            "eager fp32": lambda x=x, t=t: network(x, t),
            "eager fp16": lambda x=x, t=t: half(x, t),
        }
        with torch.inference_mode():
            wanted, found = calls["eager fp32"](), fused(rows)[..., :3].permute(0, 3, 1, 2).float()
            error = ((found - wanted).abs().max() / wanted.abs().max()).item()
            assert error < (1e-4 if dtype == torch.float32 else 5e-2), f"not timed: off by {error:.1e}"
            assert torch.isfinite(calls["eager fp16"]()).all(), "not timed: the baseline overflows"
            del wanted, found
            taken = run.seconds(calls, budget=12.0)
        times = {f"times_{name.replace(' ', '_')}": taken[name] / taken["ours"] for name in calls if name != "ours"}
        run.tell(
            f"network, batch {batch}", ms=1e3 * taken["ours"], of_matmul_rate=batch * flop / taken["ours"] / rate,
            relative_error=error, **times,
        )  # fmt: skip


def measure_compiled(run: Run, config: dict[str, Any], batch: int) -> None:
    """Time one call of the network through torch.compile, in bf16, beside ours; compiling takes a minute or more."""
    side = 16 if run.smoke else 256
    dtype = torch.float32 if run.device == "cpu" else torch.bfloat16
    network = random_network(config, run.device)
    fused = FusedUNet(network, dtype)
    fused.set_times(torch.tensor([1000.0]))
    module = network.to(dtype)
    compiled = torch.compile(module, dynamic=False) if run.device == "cuda" else module
    x = torch.randn((batch, 3, side, side), device=run.device)
    t = torch.full((batch,), 1000.0, device=run.device)
    rows = F.pad(x.permute(0, 2, 3, 1), (0, fused.in_width - 3)).to(dtype).contiguous()
    begin = time.perf_counter()
    with torch.no_grad():
        compiled(x.to(dtype), t)
        built = time.perf_counter() - begin
        calls = {"ours": graphed(run, lambda: fused(rows)), "compiled": lambda: compiled(x.to(dtype), t)}
        taken = run.seconds(calls, budget=5.0)
    share = taken["compiled"] / taken["ours"]
    run.tell(f"compiled, batch {batch}", ms=1e3 * taken["compiled"], times_ours=share, built_s=built)


def measure_restore(run: Run, config: dict[str, Any]) -> None:
    """Check ten steps for many images, then time them, memory to memory, beside the reference's loop."""
    side, batch, nfe = (16, 2, 3) if run.smoke else (256, 32, 10)
    dtype = torch.float32 if run.device == "cpu" else torch.bfloat16
    rows = Plan.posterior(Schedule(), nfe).rows
    x1 = np.random.default_rng(0).uniform(-1, 1, (batch, 3, side, side)).astype(np.float32)

    def restored(loop: Loop, count: int) -> np.ndarray:
        return loop.run(x1[:count], rows, x1=x1[:count], seeds=range(count), clip=True)[0]

    few = min(4, batch)  # one image in fp32 without TF32 takes as long as ten in bf16
    wanted = restored(Loop(FusedUNet(random_network(config, run.device), torch.float32), bucket=few), few)
    gc.collect()
    memory(run)
    loop = Loop(FusedUNet(random_network(config, run.device), dtype), bucket=batch)
    found = restored(loop, batch)
    peak = memory(run)
    alone, together = (restored(loop, count) for count in (1, min(7, batch - 1)))
    error = float(np.sqrt(np.mean((found[:few] - wanted) ** 2)))
    step = next(iter(loop._steps.values()))
    sent, behind = loop._carrier.send({"rows": rows, "x": x1, "seeds": np.arange(batch)})

    def launched() -> None:
        loop._carrier.receive(sent, behind)
        loop._launch(sent, rows, None, None, (True, "renew", False, 0, 0, 0))

    run.tell(
        "a restore is right", psnr_to_fp32=20 * math.log10(2 / max(1e-9, error)),
        two_runs_equal=int(np.array_equal(restored(loop, batch), found)),
        alone_as_in_company=int(np.array_equal(alone[0], together[0]) and np.array_equal(alone[0], found[0])),
        waits_for_the_device=waits(run, launched),
    )  # fmt: skip
    half = InTheManner(random_network(config, run.device)) if run.device == "cuda" else random_network(config, "cpu")

    @torch.inference_mode()
    def eager() -> Tensor:
        x = torch.tensor(x1, device=run.device)
        for t, p, q, a, b, _, _, _, s, _ in rows.tolist():
            x0 = (p * x + q * half(x, torch.full((batch,), t, device=run.device))).clamp(-1, 1)
            x = a * x + b * x0 + (s * torch.randn_like(x) if s else 0.0)
        return x.cpu()

    taken = run.seconds({"ours": lambda: restored(loop, batch), "eager": eager}, budget=20.0)
    assert step.seen is not None
    loop.network.step.zero_()
    said = loop.network(step.seen)

    def one_step() -> None:
        loop.network.step.zero_()
        step.run()

    def around() -> None:  # what a step does beside the network's call
        loop.network.step.zero_()
        bridge_step(step.x, said, step.rows, loop.network.step, clip=True, seeds=step.seeds,
                    patch=loop.network.patch, seen=step.seen)  # fmt: skip
        loop.network.step.add_(1)

    chained, count = in_turn(run, [around], graph=True)
    both = run.seconds({"step": graphed(run, one_step), "around": chained})
    run.tell(
        f"{nfe} steps of {batch} images", ms=1e3 * taken["ours"], times_eager_fp16=taken["eager"] / taken["ours"],
        outside_the_network=both["around"] / count / both["step"],
        outside_the_steps=1 - nfe * both["step"] / taken["ours"], **peak,
    )  # fmt: skip
    run.tell("launches of a step", launches=launches(run, one_step))
    many, row = np.concatenate([x1] * 4), Plan.posterior(Schedule(), 1).rows
    first, again = (loop.run(many, row, x1=many, clip=True)[0] for _ in range(2))
    assert np.array_equal(first, again), "not timed: batches that follow each other meet"
    assert np.array_equal(first[:batch], loop.run(x1, row, x1=x1, clip=True)[0]), "not timed: batches meet"
    taken = run.seconds({"ours": lambda: loop.run(many, row, x1=many, clip=True)})
    run.tell(
        f"1 step of 4 x {batch} images", ms=1e3 * taken["ours"], outside_the_steps=1 - 4 * both["step"] / taken["ours"]
    )


def main() -> None:
    """Check, measure, print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, to see that it runs")
    parser.add_argument("--out", type=Path, help="also write the lines as JSON")
    parser.add_argument("--only", choices=PHASES, nargs="+", default=PHASES, help="run these phases alone")
    parser.add_argument("--seconds", type=float, default=540.0, help="compile nothing when these are nearly over")
    options = parser.parse_args()
    if not (torch.cuda.is_available() or options.smoke):
        parser.error("there is no GPU here; --smoke runs it on a CPU")
    run = Run("cuda" if torch.cuda.is_available() else "cpu", options.smoke, options.out)
    name = f"{torch.cuda.get_device_name() if run.device == 'cuda' else 'CPU'}, PyTorch {torch.__version__}"
    config, batches = (TINY, (2,)) if options.smoke else (ADM256, (32, 1))
    run.tell(name, card=clocks())
    bandwidth, rate = run.attempt(measure_chip, otherwise=(math.nan, math.nan))
    phases: dict[str, tuple[Any, ...]] = {
        "kernels": (check_kernels,), "step": (measure_step, bandwidth), "norm": (measure_norm, bandwidth),
        "network": (measure_network, config, rate), "restore": (measure_restore, config),
    }  # fmt: skip
    for phase in (phase for phase in phases if phase in options.only):
        run.attempt(*phases[phase])
    for batch in batches if "compiled" in options.only else ():  # last: a minute or more each, and only for comparison
        if time.perf_counter() - run.begun < options.seconds - 200:
            run.attempt(measure_compiled, config, batch)
    run.tell("the card at the end", card=clocks())
    print(f"{name}\n\n{table(figures(run.lines))}\n\n{table(verdicts(run.lines))}")
    sys.exit(1 if run.failed else 0)


if __name__ == "__main__":
    main()
