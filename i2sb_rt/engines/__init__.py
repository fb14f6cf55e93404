"""What runs the network for the native loop: OpenVINO, or PyTorch where that is what there is."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Final, Protocol

from i2sb_rt import _core
from i2sb_rt.engines.native import NativeEngine, openvino_library
from i2sb_rt.errors import UsageError

MAX_JOBS: Final = 256


class Engine(Protocol):
    """A network ready to run. name: native or torch; precision: fp32 or bf16; core: what the native loop calls."""

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def precision(self) -> str: ...  # noqa: D102
    @property
    def core(self) -> _core.Engine: ...  # noqa: D102


def open_engine(
    path: Path, model: _core.Model, engine: str, threads: int | None, precision: str, jobs: int = 1
) -> Engine:
    """Open a model's network with the named engine; "auto" takes OpenVINO where it is installed, else PyTorch.

    threads: of all jobs together, None is one a core. jobs: network calls that may run at once; PyTorch runs one.
    Raises UsageError for unknown names, DeviceError where the engine cannot run.
    """
    if precision not in ("auto", "fp32", "bf16"):
        raise UsageError(f"precision is auto, fp32 or bf16, not {precision!r}")
    if threads is not None and threads < 1:
        raise UsageError(f"threads is at least 1, not {threads}")
    if not 1 <= jobs <= MAX_JOBS:
        raise UsageError(f"jobs lies in 1 .. {MAX_JOBS}, not {jobs}")
    if engine == "auto":
        engine = "native" if openvino_library() or importlib.util.find_spec("torch") is None else "torch"
    if engine == "native":
        return NativeEngine(model, threads, precision, jobs)
    if engine == "torch":
        from i2sb_rt.engines.torch import TorchEngine

        return TorchEngine(path, threads, precision)
    raise UsageError(f"engine is auto, native or torch, not {engine!r}")
