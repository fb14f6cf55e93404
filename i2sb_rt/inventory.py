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
from i2sb_rt.errors import DeviceError, I2SBError
from i2sb_rt.parallel import cores
from i2sb_rt.restorer import load

PROBE: Final = "jpeg"  # the shipped model that every engine is opened with


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
    """List the GPUs that PyTorch sees, in its order; none where there is no PyTorch."""
    if importlib.util.find_spec("torch") is None:
        return []
    import torch

    found = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    return [Gpu(one.name, f"sm{one.major}{one.minor}", one.total_memory) for one in found]


def offers() -> list[Offer]:
    """Open a small shipped model in every engine, and tell which could, and why others could not."""
    return [*map(_opened, PRECISIONS), _tensorrt()]


def library_of(engine: Any) -> str:
    """Return what runs an opened engine, with its release, such as OpenVINO 2026.4.1."""
    if engine.name == "native":
        return f"OpenVINO {engine.core.release.partition('-')[0]}"
    if engine.name == "tensorrt":
        return _tensorrt_library()
    import torch

    return f"PyTorch {torch.__version__}" + (f", Triton {_release('triton')}" if engine.name == "cuda" else "")


def _opened(name: str) -> Offer:
    try:
        engine = load(PROBE, name).engine
    except I2SBError as error:
        return Offer(name, missing=str(error))
    return Offer(name, library_of(engine), engine.precision)


def _tensorrt() -> Offer:
    """Look for what an engine of TensorRT needs; it is opened with a file of its own."""
    from i2sb_rt.engines.engine_file import architecture_here

    try:
        name = _tensorrt_library()
    except DeviceError as error:
        return Offer("tensorrt", missing=str(error))
    if architecture_here() is None:
        return Offer("tensorrt", missing=f"{name} is installed, but PyTorch finds no CUDA device here")
    return Offer("tensorrt", name)


def _tensorrt_library() -> str:
    from i2sb_rt.engines.engine_file import library

    trt = library()
    return f"{trt.__name__} {trt.__version__}"


def _release(module: str) -> str:
    return str(importlib.import_module(module).__version__)
