"""All figures of a GPU in one table: python benchmarks/gpu.py [--smoke] [--out gpu.json].

Everything is checked before it is timed, and timed beside what it replaces, turn about. Needs PyTorch and Triton, and
neither OpenVINO nor a network; run it from the source tree (`pip install --no-deps --no-build-isolation -e .`).
`--smoke` runs it all on tiny sizes, on a CPU too, where its times mean nothing.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from i2sb_kernels.bridge_step import bridge_step
from i2sb_kernels.bridge_step import reference as step_reference
from i2sb_kernels.cases import NORM_CASES, STEP_BENCHMARKS, STEP_CASES, norm_bounds, step_bounds
from i2sb_kernels.group_norm_silu import group_norm_silu
from i2sb_kernels.group_norm_silu import reference as norm_reference
from i2sb_rt import Plan, Schedule
from i2sb_rt.engines.loop import Loop
from i2sb_rt.networks import UNet
from i2sb_rt.networks.fused import FusedUNet
from i2sb_rt.networks.presets import PRESETS

ADM256 = PRESETS["adm256"]
TINY = ADM256 | {"model_channels": 32, "num_head_channels": 16, "channel_mult": [1, 2]}


@dataclass
class Run:
    """What is measured, where, and the lines of the table so far."""

    device: str
    smoke: bool
    lines: list[dict[str, Any]] = field(default_factory=list)

    def tell(self, what: str, **figures: Any) -> None:
        """Add a line, and print it at once."""
        self.lines.append({"what": what, **figures})
        print(what, figures, file=sys.stderr, flush=True)

    def seconds(self, calls: dict[str, Callable[[], object]], budget: float = 6.0) -> dict[str, float]:
        """Time calls turn about: the median seconds of each."""
        for call in calls.values():  # what is compiled or chosen at first is not counted
            self._time(call)
        first = {name: self._time(call) for name, call in calls.items()}
        rounds = 2 if self.smoke else max(5, min(100, int(budget / sum(first.values()))))
        taken: dict[str, list[float]] = {name: [] for name in calls}
        for _ in range(rounds):
            for name, call in calls.items():
                taken[name].append(self._time(call))
        return {name: statistics.median(values) for name, values in taken.items()}

    def _time(self, call: Callable[[], object]) -> float:
        if self.device != "cuda":
            begin = time.perf_counter()
            call()
            return time.perf_counter() - begin
        begun, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        begun.record()
        call()
        ended.record()
        ended.synchronize()
        return begun.elapsed_time(ended) / 1e3


def check_kernels(run: Run) -> None:
    """Hold the kernels against their references on this device; AssertionError where one is off."""
    for case in STEP_CASES:
        arrays = case.arrays()
        tensors = {name: torch.tensor(array, device=run.device) for name, array in arrays.items()}
        row = torch.tensor([case.step], dtype=torch.int32, device=run.device)
        rows = torch.tensor(case.rows, device=run.device)
        with np.errstate(all="ignore"):
            wanted, _ = step_reference.stepped(
                rows=case.rows, step=case.step, clip=case.clip, known=case.known, **arrays
            )
            bridge_step(rows=rows, step=row, clip=case.clip, known=case.known, **tensors)
            found, bound = tensors["x"].cpu().numpy(), step_bounds(case, arrays, noise_made=False)[0]
            near = (found == wanted) | (np.isnan(found) & np.isnan(wanted)) | (np.abs(found - wanted) <= bound)
        assert near.all(), f"bridge_step, case {case.name}: not the reference"
    for case in NORM_CASES:
        arrays = case.arrays()
        out = torch.full(case.out_shape, math.nan, dtype=getattr(torch, case.dtype), device=run.device)
        written = {"out": out}
        if case.residual is not None:
            written["total"] = torch.full(case.shape, math.nan, dtype=out.dtype, device=run.device)
        tensors = {name: torch.tensor(array, device=run.device) for name, array in arrays.items()}
        row = torch.tensor([case.rows - 1], dtype=torch.int32, device=run.device)
        group_norm_silu(step=row, **tensors, **written, **case.options())
        expected = {name: np.full(tensor.shape, np.nan, case.dtype) for name, tensor in written.items()}
        norm_reference.group_norm_silu(step=case.rows - 1, **arrays, **expected, **case.options())
        for name, bound in norm_bounds(case, arrays).items():
            error = np.abs(written[name].cpu().numpy().astype(np.float64) - expected[name])
            assert (error <= bound).all(), f"group_norm_silu, case {case.name}: {name} is not the reference's"
    run.tell("kernels are their references", cases=len(STEP_CASES) + len(NORM_CASES))


def measure_chip(run: Run) -> tuple[float, float]:
    """Measure what the chip can do: bytes a second of a copy (read and written), FLOP a second of a bf16 product."""
    count, side = (1 << 16, 128) if run.smoke else (1 << 28, 8192)
    a, b = (torch.empty(count, device=run.device) for _ in range(2))
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
    x, o = (torch.randn(shape, device=run.device) for _ in range(2))
    seeds = torch.arange(shape[0], device=run.device)
    for case in STEP_BENCHMARKS[:2]:
        rows = torch.tensor(case.rows, device=run.device)
        p, q, a, b, s = (case.row.get(column, 0.0) for column in "pqabs")

        def ours(rows: Tensor = rows) -> None:
            bridge_step(x, o, rows, row, seeds=seeds)

        def eager(p: float = p, q: float = q, a: float = a, b: float = b, s: float = s) -> Tensor:
            after = a * x + b * (p * x + q * o)
            return after + s * torch.randn_like(x) if s else after

        taken = run.seconds({"ours": ours, "eager": eager})
        share = 3 * x.numel() * 4 / taken["ours"] / bandwidth
        times = taken["eager"] / taken["ours"]
        run.tell(f"bridge_step {case.name}", ms=1e3 * taken["ours"], of_bandwidth=share, times_eager=times)
    measure_laid_out_step(run, x, row, seeds, bandwidth)


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
    taken = run.seconds({"ours": ours, "apart": apart})
    share = x.numel() * (2 * 4 + 2 * 2) / taken["ours"] / bandwidth
    run.tell("bridge_step from and to bf16 NHWC", ms=1e3 * taken["ours"], of_bandwidth=share,
             times_apart=taken["apart"] / taken["ours"])  # fmt: skip


def measure_norm(run: Run, bandwidth: float) -> None:
    """Time group_norm_silu on 32x256x256x256 and smaller maps beside GroupNorm and SiLU in eager PyTorch."""
    shapes = [(1, 40, 40, 32)] if run.smoke else [(32, 256, 256, 256), (32, 64, 64, 512), (32, 16, 16, 1024)]
    dtype = torch.float32 if run.device == "cpu" else torch.bfloat16
    for n, h, w, c in shapes:
        x = torch.randn((n, h, w, c), device=run.device).to(dtype)
        gamma, beta = (torch.randn((1, c), device=run.device) for _ in range(2))
        row, out = torch.zeros(1, dtype=torch.int32, device=run.device), torch.empty_like(x)
        planes = x.permute(0, 3, 1, 2)
        weight, bias = gamma[0].to(dtype), beta[0].to(dtype)

        def ours(x: Any = x, gamma: Any = gamma, beta: Any = beta, row: Any = row, out: Any = out) -> None:
            group_norm_silu(x, gamma, beta, row, out, groups=32)

        def eager(planes: Any = planes, weight: Any = weight, bias: Any = bias) -> Tensor:
            return F.silu(F.group_norm(planes, 32, weight, bias))

        ours()
        difference = (eager().permute(0, 2, 3, 1).float() - out.float()).abs().max().item()
        assert difference < 0.2, f"not timed: off by {difference}"
        taken = run.seconds({"ours": ours, "eager": eager})
        share = 3 * x.numel() * x.element_size() / taken["ours"] / bandwidth
        times = taken["eager"] / taken["ours"]
        run.tell(f"group_norm_silu {n}x{h}x{w}x{c}", ms=1e3 * taken["ours"], of_bandwidth=share, times_eager=times)


class InTheManner(nn.Module):
    """The U-Net in the manner of the reference: weights in fp16, but norms, and what they read, in fp32."""

    def __init__(self, network: UNet) -> None:
        super().__init__()
        self.network = network.half()
        for module in self.network.modules():
            if isinstance(module, nn.GroupNorm):
                module.float()
                module.register_forward_pre_hook(lambda _, given: (given[0].float(),))
                module.register_forward_hook(lambda _, given, result: result.half())

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Map as UNet does, float32 to float32."""
        return self.network(x.half(), t).float()


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
    """Time one network call at several batches: eager fp32, fp16 in the reference's manner, torch.compile, and ours."""
    side, batches = (16, (1, 2)) if run.smoke else (256, (1, 4, 32))
    network = random_network(config, run.device)
    flop = flop_of(network, side)
    dtype = torch.float32 if run.device == "cpu" else torch.bfloat16
    fused = FusedUNet(network, dtype)
    fused.set_times(torch.tensor([1000.0]))
    half = InTheManner(random_network(config, run.device)) if run.device == "cuda" else network
    compiled = torch.compile(random_network(config, run.device).to(dtype)) if run.device == "cuda" else network
    for batch in batches:
        x = torch.randn((batch, 3, side, side), device=run.device)
        t = torch.full((batch,), 1000.0, device=run.device)
        rows = F.pad(x.permute(0, 2, 3, 1), (0, fused.in_width - 3)).to(dtype).contiguous()
        graph = graphed(run, lambda rows=rows: fused(rows))
        calls = {
            "ours": graph,
            "eager fp32": lambda x=x, t=t: network(x, t),
            "eager fp16": lambda x=x, t=t: half(x, t),
            "compiled": lambda x=x, t=t: compiled(x.to(dtype), t),
        }
        with torch.inference_mode():
            wanted, found = calls["eager fp32"](), fused(rows)[..., :3].permute(0, 3, 1, 2).float()
            error = ((found - wanted).abs().max() / wanted.abs().max()).item()
            assert error < (1e-4 if dtype == torch.float32 else 5e-2), f"not timed: off by {error:.1e}"
            taken = run.seconds(calls, budget=20.0)
        figures = {f"times_{name.replace(' ', '_')}": taken[name] / taken["ours"] for name in calls if name != "ours"}
        run.tell(
            f"network, batch {batch}", ms=1e3 * taken["ours"], of_matmul_rate=batch * flop / taken["ours"] / rate,
            relative_error=error, **figures, **memory(run),
        )  # fmt: skip


def graphed(run: Run, call: Callable[[], object]) -> Callable[[], object]:
    """Capture a call as a CUDA graph and return its replay; on a CPU the call itself."""
    if run.device != "cuda":
        return call
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream), torch.inference_mode():
        call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.inference_mode(), torch.cuda.graph(graph):
        call()
    return graph.replay


def measure_restore(run: Run, config: dict[str, Any]) -> None:
    """Time ten steps for many images, memory to memory, beside the reference's loop; and what the loop itself adds."""
    side, batch, nfe = (16, 2, 3) if run.smoke else (256, 32, 10)
    network = random_network(config, run.device)
    dtype = torch.float32 if run.device == "cpu" else torch.bfloat16
    loop = Loop(FusedUNet(network, dtype), bucket=batch)
    exact = Loop(FusedUNet(network, torch.float32), bucket=batch)
    half = InTheManner(random_network(config, run.device)) if run.device == "cuda" else network
    rows = Plan.posterior(Schedule(), nfe).rows
    x1 = np.random.default_rng(0).uniform(-1, 1, (batch, 3, side, side)).astype(np.float32)
    seeds = list(range(batch))

    def ours() -> np.ndarray:
        return loop.run(x1, rows, x1=x1, seeds=seeds, clip=True)[0]

    @torch.inference_mode()
    def eager() -> Tensor:
        x = torch.tensor(x1, device=run.device)
        for t, p, q, a, b, _, _, _, s, _ in rows.tolist():
            x0 = (p * x + q * half(x, torch.full((batch,), t, device=run.device))).clamp(-1, 1)
            x = a * x + b * x0 + (s * torch.randn_like(x) if s else 0.0)
        return x.cpu()

    wanted, found = exact.run(x1, rows, x1=x1, seeds=seeds, clip=True)[0], ours()
    psnr = 20 * math.log10(2 / max(1e-9, float(np.sqrt(np.mean((found - wanted) ** 2)))))
    assert psnr > 45, f"not timed: {psnr:.1f} dB from the fp32 result"
    assert np.array_equal(ours(), found), "two runs differ"
    few = min(7, batch - 1)
    alone, together = (loop.run(x1[:n], rows, x1=x1[:n], seeds=seeds[:n], clip=True)[0] for n in (1, few))
    assert np.array_equal(alone[0], together[0]), "an image depends on its company"
    taken = run.seconds({"ours": ours, "eager": eager}, budget=30.0)
    step = next(iter(loop._steps.values()))
    if run.device == "cuda":  # nothing inside the loop may wait for the device
        torch.cuda.set_sync_debug_mode("error")
        loop.network.step.zero_()
        loop._replay(step, nfe, None)
        torch.cuda.set_sync_debug_mode("default")

    def one_step() -> None:
        loop.network.step.zero_()
        step.run()

    loop.network.step.zero_()
    seen = torch.zeros((batch, side, side, loop.network.in_width), device=run.device, dtype=dtype)
    both = run.seconds({
        "network": graphed(run, lambda: loop.network(seen)),
        "step": graphed(run, one_step),
    })  # fmt: skip
    run.tell(
        f"{nfe} steps of {batch} images", ms=1e3 * taken["ours"], times_eager_fp16=taken["eager"] / taken["ours"],
        outside_the_network=1 - both["network"] / both["step"], psnr_to_fp32=psnr, launches=launches(run, one_step),
        **memory(run),
    )  # fmt: skip


def launches(run: Run, call: Callable[[], object]) -> int:
    """Count the kernels that a call launches."""
    if run.device != "cuda":
        return 0
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA]) as profiled:
        call()
        torch.cuda.synchronize()
    return sum(event.count for event in profiled.key_averages() if event.device_time_total > 0)


def memory(run: Run) -> dict[str, float]:
    """Return the peak of the device's memory since this was last asked."""
    if run.device != "cuda":
        return {}
    peak = torch.cuda.max_memory_allocated() / 2**30
    torch.cuda.reset_peak_memory_stats()
    return {"peak_GiB": peak}


def table(lines: list[dict[str, Any]]) -> str:
    """Return the lines as one Markdown table, a column a figure that any line has."""
    columns = list(dict.fromkeys(key for line in lines for key in line if key != "what"))

    def cell(value: Any) -> str:
        return "" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)

    rows = [["what", *columns], ["---", *["---:"] * len(columns)]]
    rows += [[line["what"], *(cell(line.get(column)) for column in columns)] for line in lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def main() -> None:
    """Check, measure, print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, to see that it runs")
    parser.add_argument("--out", type=Path, help="also write the lines as JSON")
    options = parser.parse_args()
    if not (torch.cuda.is_available() or options.smoke):
        parser.error("there is no GPU here; --smoke runs it on a CPU")
    run = Run("cuda" if torch.cuda.is_available() else "cpu", options.smoke)
    config = TINY if options.smoke else ADM256
    name = torch.cuda.get_device_name() if run.device == "cuda" else "CPU"
    check_kernels(run)
    bandwidth, rate = measure_chip(run)
    measure_step(run, bandwidth)
    measure_norm(run, bandwidth)
    measure_network(run, config, rate)
    measure_restore(run, config)
    print(f"{name}, PyTorch {torch.__version__}\n\n{table(run.lines)}")
    if options.out:
        options.out.write_text(json.dumps({"device": name, "lines": run.lines}, indent=1))


if __name__ == "__main__":
    main()
