"""What runs the network: OpenVINO or PyTorch for the native loop, or a GPU with a loop of its own."""

from __future__ import annotations

import importlib.util
from contextlib import suppress
from pathlib import Path
from typing import Final, Protocol

from i2sb_rt import _core
from i2sb_rt.engines.native import NativeEngine, openvino_library
from i2sb_rt.errors import UsageError

MAX_JOBS: Final = 256
MAX_BATCH: Final = MAX_JOBS // 2  # one batch is gathered while another is at work
PRECISIONS: Final = {
    "native": ("auto", "fp32", "bf16"),
    "torch": ("auto", "fp32", "bf16"),
    "cuda": ("auto", "fp32", "tf32", "bf16", "fp16"),
}


class Engine(Protocol):
    """A network ready to run.

    name: native, torch, cuda or tensorrt; precision: that of its sums; core: what the core calls.
    """

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def precision(self) -> str: ...  # noqa: D102
    @property
    def core(self) -> _core.Engine: ...  # noqa: D102


def open_engine(
    path: Path,
    model: _core.Model,
    engine: str,
    threads: int | None,
    precision: str,
    jobs: int = 1,
    batch: int | None = None,
) -> Engine:
    """Open a model's network with the named engine, or with FILE.engine that `i2sb-rt export` built of it.

    "auto" takes a GPU where PyTorch and Triton have one, else OpenVINO where it is installed, else PyTorch.
    threads: of all jobs together, None is one a core. jobs: network calls that may run at once; only OpenVINO runs
    several. batch: images that a GPU takes together. Raises UsageError for unknown names, DeviceError where the engine
    cannot run.
    """
    if threads is not None and threads < 1:
        raise UsageError(f"threads is at least 1, not {threads}")
    if engine == "auto":
        engine = best()
    built = engine.endswith(".engine")
    if batch is not None and engine != "cuda" and not built:
        raise UsageError(f"a batch is a choice of engines on a GPU; {engine} takes the model's own")
    if batch is not None and not 1 <= batch <= MAX_BATCH:
        raise UsageError(f"batch lies in 1 .. {MAX_BATCH}, not {batch}")
    if not 1 <= jobs <= MAX_JOBS:
        raise UsageError(f"jobs lies in 1 .. {MAX_JOBS}, not {jobs}")
    if precision not in PRECISIONS.get(engine, (precision,)):
        raise UsageError(f"precision is {' or '.join(PRECISIONS[engine])} for the engine {engine}, not {precision!r}")
    if engine == "native":
        return NativeEngine(model, threads, precision, jobs)
    if engine == "torch":
        from i2sb_rt.engines.torch import TorchEngine

        return TorchEngine(path, threads, precision)
    if engine == "cuda":
        from i2sb_rt.engines.cuda import CudaEngine

        return CudaEngine(path, precision, batch=batch)
    if built:
        if precision != "auto":
            raise UsageError(f"precision is a choice at the building of an engine, so it is auto, not {precision!r}")
        from i2sb_rt.engines.tensorrt import TensorRTEngine

        return TensorRTEngine(Path(engine), path, batch)
    raise UsageError(f"engine is auto, {', '.join(PRECISIONS)} or FILE.engine, not {engine!r}")


def best() -> str:
    """Return the engine that "auto" takes here; PyTorch is not imported on machines without a GPU."""
    has_torch = importlib.util.find_spec("torch") is not None
    if has_torch and Path("/dev/nvidiactl").exists() and importlib.util.find_spec("triton") is not None:
        with suppress(ImportError, OSError):  # a broken PyTorch does not stop OpenVINO
            import torch

            if torch.cuda.is_available():
                return "cuda"
    return "native" if openvino_library() or not has_torch else "torch"
