"""The kernels against their references on this device, over the case tables of the tests."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable

import numpy as np
import torch
from gpu_run import Run

from i2sb_kernels.bridge_step import bridge_step
from i2sb_kernels.bridge_step import reference as step_reference
from i2sb_kernels.cases import (
    NOISE_CASES,
    NOISE_ERROR,
    NORM_CASES,
    NORM_ERROR,
    STEP_CASES,
    TOTAL_ERROR,
    NoiseCase,
    NormCase,
    StepCase,
    norm_bounds,
    step_bounds,
)
from i2sb_kernels.group_norm_silu import group_norm_silu
from i2sb_kernels.group_norm_silu import reference as norm_reference
from i2sb_kernels.noise import Purpose, noise_fill
from i2sb_kernels.noise import reference as noise_reference


def check_step(run: Run, case: StepCase, noise_made: bool) -> None:
    """Hold bridge_step against its reference, with recorded draws or with its own; AssertionError where it is off."""
    arrays = case.arrays()
    if noise_made:
        for name, purpose in (("z", Purpose.STEP), ("z_known", Purpose.KNOWN)):
            arrays[name] = step_reference.draw(case.seeds(), case.shape, case.step, purpose)
    tensors = {name: torch.tensor(array, device=run.device) for name, array in arrays.items()}
    if noise_made:
        del tensors["z"], tensors["z_known"]
        tensors["seeds"] = torch.tensor(case.seeds().view(np.int64), device=run.device)
    row = torch.tensor([case.step], dtype=torch.int32, device=run.device)
    rows = torch.tensor(case.rows, device=run.device)
    with np.errstate(all="ignore"):
        wanted, _ = step_reference.stepped(rows=case.rows, step=case.step, clip=case.clip, known=case.known, **arrays)
        bridge_step(rows=rows, step=row, clip=case.clip, known=case.known, **tensors)
        found, bound = tensors["x"].cpu().numpy(), step_bounds(case, arrays, noise_made=noise_made)[0]
        near = (found == wanted) | (np.isnan(found) & np.isnan(wanted)) | (np.abs(found - wanted) <= bound)
    assert near.all(), f"bridge_step, case {case.name}, noise_made={noise_made}: {np.sum(~near)} elements are off"


def check_norm(run: Run, case: NormCase, bf16: bool) -> None:
    """Hold group_norm_silu against its reference, in the case's type or in bfloat16; AssertionError where it is off."""
    arrays, dtype = case.arrays(), torch.bfloat16 if bf16 else getattr(torch, case.dtype)
    images = ("x", "residual", "second")
    if bf16:
        arrays |= {k: torch.tensor(a).bfloat16().float().numpy() for k, a in arrays.items() if k in images}
    out = torch.full(case.out_shape, math.nan, dtype=dtype, device=run.device)
    written = {"out": out}
    if case.residual is not None:
        written["total"] = torch.full(case.shape, math.nan, dtype=dtype, device=run.device)
    tensors = {name: torch.tensor(array, device=run.device) for name, array in arrays.items()}
    tensors |= {name: tensor.to(dtype) for name, tensor in tensors.items() if name in images}
    row = torch.tensor([case.rows - 1], dtype=torch.int32, device=run.device)
    group_norm_silu(step=row, **tensors, **written, **case.options())
    expected = {name: np.full(tensor.shape, np.nan, case.dtype) for name, tensor in written.items()}
    norm_reference.group_norm_silu(step=case.rows - 1, **arrays, **expected, **case.options())
    for name, bound in norm_bounds(case, arrays).items():
        allowed = NORM_ERROR if name == "out" else TOTAL_ERROR
        error = np.abs(written[name].float().cpu().numpy().astype(np.float64) - expected[name])
        worst = float((error / (bound * (allowed["bfloat16"] / allowed[case.dtype] if bf16 else 1)).clip(1e-30)).max())
        said = f"group_norm_silu, case {case.name}, bf16={bf16}"
        assert worst <= 1, f"{said}: {name} is {worst:.3g} times as far off as it may"


def check_noise(run: Run, case: NoiseCase) -> None:
    """Hold a window of noise against the reference; AssertionError where it is off."""
    out = torch.full((case.count,), math.nan, device=run.device)
    noise_fill(out, case.seed, case.first, case.row, case.purpose)
    wanted = noise_reference.normals(case.seed, case.first, case.count, case.row, case.purpose)
    off = np.abs(out.cpu().numpy() - wanted) - NOISE_ERROR["float32"] * np.maximum(1, np.abs(wanted))
    assert off.max() <= 0, f"noise, case {case.name}: off by {off.max():.3g} more than it may"


def check_kernels(run: Run) -> None:
    """Hold the kernels against their references on this device: every case, whatever the others do."""
    calls: list[Callable[[], None]] = []
    for step in STEP_CASES:
        calls.append(lambda case=step: check_step(run, case, False))
        if step.row.get("s", 0) or step.row.get("r", 0):
            calls.append(lambda case=step: check_step(run, case, True))
    for norm in NORM_CASES:
        calls.append(lambda case=norm: check_norm(run, case, False))
        if run.device == "cuda" and norm.dtype == "float32" and abs(norm.mean) < 100:
            calls.append(lambda case=norm: check_norm(run, case, True))
    for noise in NOISE_CASES:
        calls.append(lambda case=noise: check_noise(run, case))
    wrong = []
    for call in calls:
        try:
            call()
        except Exception as error:
            wrong.append(f"{type(error).__name__}: {error}")
            print(wrong[-1], file=sys.stderr, flush=True)
    run.failed += bool(wrong)
    run.tell("kernels are their references", cases=len(calls), failed=len(wrong))
