from __future__ import annotations

import importlib
from types import SimpleNamespace

import pytest

from i2sb_kernels import _native

ISAS = ("scalar", "avx2", "avx512")
HERE = ISAS[: ISAS.index(_native.isa_best()) + 1]


@pytest.fixture(params=HERE)
def isa(request: pytest.FixtureRequest) -> str:
    """Each instruction set that this CPU and this build have."""
    name: str = request.param
    return name


@pytest.fixture(scope="session")
def triton_twins() -> SimpleNamespace:
    """The Triton twins and the device to run them on: a GPU, or else the CPU through Triton's interpreter."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    pytest.importorskip("triton", reason="Triton is not installed")
    twins = {
        op: importlib.import_module(f"i2sb_kernels.{op}.gpu") for op in ("noise", "bridge_step", "group_norm_silu")
    }
    return SimpleNamespace(**twins, device="cuda" if torch.cuda.is_available() else "cpu")
