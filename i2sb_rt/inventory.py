"""What this machine has that can run a network, and what each engine would do with it."""

from __future__ import annotations

import importlib.util
import platform
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from i2sb_kernels import _native
from i2sb_rt.engines import PRECISIONS
from i2sb_rt.errors import I2SBError
from i2sb_rt.parallel import cores
from i2sb_rt.restorer import load

PROBE: Final = "jpeg"  # the shipped model that engines are opened with
TENSORRT: Final = "tensorrt"


@dataclass(frozen=True)
class Cpu:
    """name: the maker's; cores: that this process may use; isa: what the kernels run in, scalar, avx2 or avx512."""

    name: str
    cores: int
    isa: str


@dataclass(frozen=True)
class Gpu:
    """One that PyTorch sees. architecture: such as sm90; memory: in bytes."""

    name: str
    architecture: str
    memory: int


@dataclass(frozen=True)
class Offer:
    """An engine. library: what runs it, with its release; precision: what `auto` is; missing: why it cannot run here.

    missing is empty where it can; else the others are. The precision of TensorRT is that of each engine's file.
    """

    engine: str
    library: str = ""
    precision: str = ""
    missing: str = ""


def cpu() -> Cpu:
    """Tell what the CPU is."""
    try:
        said = Path("/proc/cpuinfo").read_text(errors="replace")
    except OSError:
        said = ""
    found = re.search(r"^model name\s*:\s*(\S.*)$", said, re.MULTILINE)
    name = found[1].strip() if found else platform.processor() or platform.machine()
    return Cpu(name, cores(), _native.isa_best())


def gpus() -> list[Gpu]:
    """List the GPUs that PyTorch sees, in its order; none where there is no PyTorch, or none that works."""
    if importlib.util.find_spec("torch") is None:
        return []
    try:
        import torch

        found = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    except Exception:  # whatever a broken library or driver raises; the engines' lines tell of it
        return []
    return [Gpu(one.name, f"sm{one.major}{one.minor}", one.total_memory) for one in found]


def offers() -> list[Offer]:
    """Tell of every engine whether it can run here."""
    return [offer(name) for name in (*PRECISIONS, TENSORRT)]


def offer(name: str) -> Offer:
    """Open a small shipped model in an engine, and tell whether that could be done, or why not.

    An engine of TensorRT is opened with a file of its own, so only what it needs is looked for.
    """
    try:
        if name == TENSORRT:
            return _tensorrt()
        engine = load(PROBE, name).engine
        return Offer(name, library_of(engine), engine.precision)
    except I2SBError as error:
        return Offer(name, missing=str(error))
    except Exception as error:  # a broken library or driver
        return Offer(name, missing=f"{type(error).__name__}: {error}".partition("\n")[0])


def library_of(engine: Any) -> str:
    """Return what runs an opened engine, with its release, such as OpenVINO 2026.4.1."""
    if engine.name == "native":
        return f"OpenVINO {engine.core.release.partition('-')[0]}"
    if engine.name == TENSORRT:
        return _tensorrt_library()
    import torch

    return f"PyTorch {torch.__version__}" + (f", Triton {_release('triton')}" if engine.name == "cuda" else "")


def _tensorrt() -> Offer:
    from i2sb_rt.engines.engine_file import architecture_here

    name = _tensorrt_library()
    if architecture_here() is None:
        return Offer(TENSORRT, missing=f"{name} is installed, but PyTorch finds no CUDA device here")
    return Offer(TENSORRT, name)


def _tensorrt_library() -> str:
    from i2sb_rt.engines.engine_file import library

    trt = library()
    return f"{trt.__name__} {trt.__version__}"


def _release(module: str) -> str:
    return str(importlib.import_module(module).__version__)
