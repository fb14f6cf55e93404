from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from i2sb_kernels import _native, bridge_step, dispatch, noise
from i2sb_kernels.cases import STEP_CASES


def test_numpy_arrays_go_to_the_native_twin():
    for op in ("bridge_step", "noise"):
        assert dispatch.twin(op, np.zeros(1)).__name__ == f"i2sb_kernels.{op}.cpu"
        assert list(dispatch.available(op, "numpy")) == ["reference", "cpu"]


def test_tensors_go_to_triton_or_share_their_memory_with_the_native_twin(triton_twins):
    import torch

    assert dispatch.available("bridge_step", "gpu")["gpu"] is triton_twins.bridge_step
    if torch.cuda.is_available():
        assert dispatch.twin("bridge_step", torch.zeros(1, device="cuda")) is triton_twins.bridge_step
    case = next(case for case in STEP_CASES if case.name == "odd_batch")
    arrays = {name: array for name, array in case.arrays().items() if name != "z"} | {"seeds": case.seeds()}
    tensors = {
        name: torch.from_numpy(array.view(np.int64) if name == "seeds" else array.copy())
        for name, array in arrays.items()
    }
    bridge_step.bridge_step(rows=case.rows, step=case.step, **arrays)
    bridge_step.bridge_step(rows=torch.from_numpy(case.rows), step=torch.tensor([case.step]), **tensors)
    np.testing.assert_array_equal(tensors["x"].numpy(), arrays["x"])
    out = torch.zeros(9)
    noise.noise_fill(out, 3)
    assert out.std() > 0.1


def test_other_things_are_refused():
    with pytest.raises(TypeError, match="not list"):
        dispatch.twin("noise", [0.0])


def test_a_missing_requirement_is_named(monkeypatch):
    monkeypatch.setattr(dispatch, "TWINS", {"numpy": (("cpu", "no_such_module"),)})
    dispatch.available.cache_clear()
    with pytest.raises(RuntimeError, match="no_such_module"):
        dispatch.twin("noise", np.zeros(1))
    monkeypatch.undo()
    dispatch.available.cache_clear()


def test_the_public_functions_are_the_twins():
    case = next(case for case in STEP_CASES if case.name == "history")
    arrays, others = case.arrays(), case.arrays()
    bridge_step.bridge_step(rows=case.rows, step=case.step, **arrays)
    dispatch.available("bridge_step", "numpy")["reference"].bridge_step(rows=case.rows, step=case.step, **others)
    np.testing.assert_array_equal(arrays["x"], others["x"])
    out, other = np.zeros(8, np.float32), np.zeros(8, np.float32)
    noise.noise_fill(out, 3, 4, 5, noise.Purpose.HOLE)
    dispatch.available("noise", "numpy")["cpu"].noise_fill(other, 3, 4, 5, 1)
    np.testing.assert_array_equal(out, other)


def test_import_is_light():
    code = "import sys, i2sb_kernels; print([m for m in ('torch', 'triton') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_best_instruction_set_is_what_the_cpu_says():
    information = Path("/proc/cpuinfo")
    if not information.exists() or "flags" not in information.read_text():
        pytest.skip("this system does not list the flags of an x86 CPU")
    flags = set(re.search(r"^flags\s*:(.*)$", information.read_text(), re.MULTILINE)[1].split())
    wide = {"avx512f", "avx512dq", "avx512vl", "avx512bw"} <= flags
    assert _native.isa_best() == ("avx512" if wide else "avx2" if "avx2" in flags else "scalar")


@pytest.mark.skipif(_native.isa_best() != "avx512", reason="this CPU has no AVX-512: those kernels were not run")
def test_avx512_gives_the_bits_of_the_plain_build():
    plain, wide = np.zeros(4096, np.float32), np.zeros(4096, np.float32)
    dispatch.twin("noise", plain).noise_fill(plain, 8, isa="scalar")
    dispatch.twin("noise", wide).noise_fill(wide, 8, isa="avx512")
    np.testing.assert_array_equal(wide.view(np.uint32), plain.view(np.uint32))
