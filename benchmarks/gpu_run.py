"""What the measurements of a GPU share: turns, CUDA graphs, lines of a table, and what is asked of them."""

from __future__ import annotations

import gc
import json
import math
import statistics
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

# What is asked for: of a line, a figure, and from where to where it may lie.
ASKED = (
    ("kernels are their references", "failed", 0, 0),
    ("bridge_step posterior", "of_bandwidth", 0.85, math.inf),
    ("group_norm_silu 32x256x256x256", "of_bandwidth", 0.80, math.inf),
    ("network, batch 32", "times_eager_fp16", 2.0, math.inf),
    ("network, batch 32", "of_matmul_rate", 0.45, math.inf),
    ("network, batch 1", "times_eager_fp16", 2.0, math.inf),
    ("a restore is right", "psnr_to_fp32", 45.0, math.inf),
    ("a restore is right", "two_runs_equal", 1, 1),
    ("a restore is right", "alone_as_in_company", 1, 1),
    ("a restore is right", "waits_for_the_device", 0, 0),
    ("10 steps of 32 images", "outside_the_network", 0.0, 0.01),
)


@dataclass
class Run:
    """What is measured, where, and the lines of the table so far."""

    device: str
    smoke: bool
    out: Path | None = None
    failed: int = 0
    begun: float = field(default_factory=time.perf_counter)
    lines: list[dict[str, Any]] = field(default_factory=list)

    def tell(self, what: str, **figures: Any) -> None:
        """Add a line; print it at once, and write all lines so far."""
        self.lines.append({"what": what, **figures})
        print(f"[{time.perf_counter() - self.begun:.0f} s]", what, figures, file=sys.stderr, flush=True)
        if self.out:
            self.out.write_text(json.dumps({"lines": self.lines, "asked": verdicts(self.lines)}, indent=1))

    def attempt(self, phase: Callable[..., Any], *arguments: Any, otherwise: Any = None) -> Any:
        """Run a phase; where it fails, tell so and go on. What it left in the device's memory is given back."""
        try:
            return phase(self, *arguments)
        except Exception as error:
            traceback.print_exc()
            self.failed += 1
            self.tell(f"{phase.__name__} failed", error=f"{type(error).__name__}: {error}".replace("\n", " ")[:300])
            return otherwise
        finally:
            gc.collect()
            if self.device == "cuda":
                torch.cuda.empty_cache()

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


def sets_of(run: Run, number: int) -> int:
    """How many sets of inputs of so many bytes it takes that no cache holds what a turn around them reads again."""
    return 1 if run.smoke else max(2, math.ceil((400 << 20) / number))


def in_turn(run: Run, calls: list[Callable[[], object]], graph: bool) -> tuple[Callable[[], object], int]:
    """Chain calls, at least 20 on a GPU, so that what a launch costs the host is not counted; return how many."""
    times = math.ceil(20 / len(calls)) if run.device == "cuda" else 1

    def chained() -> None:
        for _ in range(times):
            for call in calls:
                call()

    return graphed(run, chained) if graph else chained, times * len(calls)


def graphed(run: Run, call: Callable[[], object]) -> Callable[[], object]:
    """Capture a call as a CUDA graph and return its replay; on a CPU the call itself."""
    if run.device != "cuda":
        return call
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream), torch.no_grad():
        call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.no_grad(), torch.cuda.graph(graph):
        call()
    return graph.replay


def waits(run: Run, call: Callable[[], object]) -> int:
    """Return 1 where a call waits for the device, 0 where it only enqueues."""
    if run.device != "cuda":
        return 0
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        call()
    except RuntimeError as error:
        print(error, file=sys.stderr)
        return 1
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return 0


def launches(run: Run, call: Callable[[], object]) -> int:
    """Count the kernels that a call launches."""
    if run.device != "cuda":
        return 0
    from torch.profiler import ProfilerActivity, profile

    try:
        with profile(activities=[ProfilerActivity.CUDA]) as profiled:
            call()
            torch.cuda.synchronize()
    except RuntimeError as error:  # a machine without CUPTI
        print(error, file=sys.stderr)
        return 0
    return sum(event.count for event in profiled.key_averages() if event.device_time_total > 0)


def memory(run: Run) -> dict[str, float]:
    """Return the peak of the device's memory since this was last asked."""
    if run.device != "cuda":
        return {}
    peak = torch.cuda.max_memory_allocated() / 2**30
    torch.cuda.reset_peak_memory_stats()
    return {"peak_GiB": peak}


def shown(value: Any) -> str:
    return "" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)


def table(lines: list[dict[str, Any]]) -> str:
    """Return lines of the same keys as a Markdown table."""
    rows = [list(lines[0]), ["---"] * len(lines[0]), *([shown(value) for value in line.values()] for line in lines)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def figures(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Put what a line tells beside its milliseconds into one column."""
    return [
        {"what": line["what"], "ms": line.get("ms"),
         "figures": ", ".join(f"{name} {shown(value)}" for name, value in line.items() if name not in ("what", "ms"))}
        for line in lines
    ]  # fmt: skip


def verdicts(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Hold the lines against what is asked for."""
    found = []
    for what, figure, least, most in ASKED:
        value = next((line[figure] for line in lines if line["what"] == what and figure in line), None)
        met = "not measured" if value is None else "met" if least <= value <= most else "missed"
        found.append({"what": f"{what}: {figure}", "value": value, "least": least, "most": most, "asked": met})
    return found


def clocks() -> str:
    """Return what nvidia-smi says of the card; it only reads."""
    asked = "name,driver_version,clocks.sm,clocks.mem,temperature.gpu,power.draw,memory.used"
    try:
        return subprocess.run(
            ["nvidia-smi", f"--query-gpu={asked}", "--format=csv,noheader"], capture_output=True, text=True, timeout=20
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""
