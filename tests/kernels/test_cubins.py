"""The Triton kernels compiled for real chips: what the compiler says they use."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

TARGETS = ("80", "89", "90", "100", "120")
# Registers a thread may use: by default so many that half of the threads of a multiprocessor fit.
REGISTERS = {"norm_small_down": 168}
NORMS = ("stats", "stats_residual_down", "merge", "apply", "apply_down", "small", "small_down")
KERNELS = (
    "noise",
    *(f"step_{name}" for name in ("posterior", "ode", "everything", "everything_wide", "recorded")),
    *("step_laid_out", "step_laid_out_everything"),
    *(f"norm_{name}" for name in NORMS),
)

Uses = dict[str, dict[str, dict[str, int]]]


@pytest.fixture(scope="module")
def cubins(tmp_path_factory: pytest.TempPathFactory) -> Uses:
    """What each kernel uses on each target."""
    pytest.importorskip("torch", reason="PyTorch is not installed")
    pytest.importorskip("triton", reason="Triton is not installed")
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    environment["TRITON_CACHE_DIR"] = str(tmp_path_factory.mktemp("triton"))
    program = Path(__file__).with_name("compile_cubins.py")
    done = subprocess.run(
        [sys.executable, program, *TARGETS], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found: Uses = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("kernel", KERNELS)
def test_cubin(cubins: Uses, kernel: str, target: str) -> None:
    assert cubins[target].keys() == set(KERNELS)
    used = cubins[target][kernel]
    assert used["stack"] == used["local"] == 0, f"it spills: {used}"
    assert used["reg"] <= REGISTERS.get(kernel, 128), f"it leaves room for too few threads: {used}"
    assert used["shared"] <= 4096, f"it holds back other blocks: {used}"
    assert used["fma"] == 0, f"it contracts to FMA, so that its bits depend on the compiler: {used}"
    assert kernel in ("noise", "norm_merge") or used["vector_stores"] > 0, f"it stores no vectors: {used}"
