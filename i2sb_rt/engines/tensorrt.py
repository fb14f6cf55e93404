"""An engine of TensorRT or TensorRT-RTX as the network of the loop on a GPU. One path for both."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from i2sb_rt.engines.engine_file import (
    EngineFile,
    architecture_here,
    gpu_here,
    library,
    load_engine,
    logger,
    read_note,
    require_source,
)
from i2sb_rt.engines.native import cache_folder, prune
from i2sb_rt.errors import DeviceError, UsageError
from i2sb_rt.model_file import replacing

try:
    import torch
    from torch import Tensor
except ImportError as error:
    raise DeviceError("engines of TensorRT need PyTorch: pip install 'i2sb-rt[gpu]'") from error

from i2sb_rt.engines.device import DeviceEngine
from i2sb_rt.engines.loop import Loop, Planes

KERNELS_KEPT: Final = 16  # files of kernels that TensorRT-RTX compiled, one an engine
_DIGEST: Final = hashlib.sha256().digest_size


class TensorRTEngine(DeviceEngine):
    """An engine that `export` built of a model, in the loop that stays on the GPU.

    path: the engine; model: the .onnx file that it was built of. batch: as in `DeviceEngine`; None is the smallest that
    the engine takes, and for tiles the one that it is fastest at. Raises DeviceError where there is no GPU, or an
    engine of another library, version or GPU; ModelFileError where the engine is damaged or was built of another model.
    """

    def __init__(self, path: Path, model: Path, batch: int | None = None, device: str = "cuda") -> None:
        here = architecture_here()
        if here is None:
            raise DeviceError("PyTorch finds no CUDA device here")
        trt = library([read_note(path).library])
        about, data = load_engine(path, trt.__name__, trt.__version__, here, gpu_here())
        require_source(path, about, model)
        network = EngineNetwork(trt, about, data, device)
        loop = Loop(network, bucket=batch or about.profile.min[0], tiles=batch or about.profile.opt[0])
        super().__init__("tensorrt", about.precision, loop, batch)


class EngineNetwork(Planes):
    """The network of an engine; each shape has an execution context of its own, as captured graphs demand."""

    def __init__(self, trt: Any, about: EngineFile, data: bytes, device: str) -> None:
        super().__init__(device)
        self.about = about
        self._trt = trt
        try:
            self._runtime = trt.Runtime(logger(trt))
        except TypeError as error:  # so its bindings say that there is no driver, or one that is too old
            raise DeviceError(f"{trt.__name__} {trt.__version__} cannot start; what it said stands above.") from error
        self._engine = self._runtime.deserialize_cuda_engine(data)
        if self._engine is None:
            raise DeviceError(f"{trt.__name__} {trt.__version__} cannot read the engine; what it said stands above.")
        # TensorRT has its kernels since the engine was built; TensorRT-RTX compiles them when a context first runs.
        self._kernels = _Kernels(trt, self._engine, about) if hasattr(self._engine, "create_runtime_config") else None
        self._side: torch.cuda.Stream | None = None

    def bound(self, batch: int, height: int, width: int) -> Callable[[Tensor], Tensor]:
        """Return what runs one shape; see `Planes`. Raises UsageError for one outside of the engine's profile."""
        info, profile = self.about.info, self.about.profile
        asked = (batch, height, width)
        if not all(low <= side <= high for low, side, high in zip(profile.min, asked, profile.max, strict=True)):
            raise UsageError(
                f"the engine takes {_sizes(profile.min)} to {_sizes(profile.max)} (batch x height x width), not "
                f"{_sizes(asked)}; choose another tile or batch, or build it with other --shapes"
            )
        context = self._context()
        _require(context.set_input_shape("x", (batch, info.in_channels, height, width)))
        _require(context.set_input_shape("t", (batch,)))
        # PyTorch's memory, as much as this shape takes; TensorRT's own would be as much as the largest shape takes.
        memory = self.step.new_empty(max(256, context.update_device_memory_size_for_shapes()), dtype=torch.uint8)
        context.set_device_memory(memory.data_ptr(), memory.numel())
        ran = False

        def run(x: Tensor, _held: Tensor = memory) -> Tensor:
            nonlocal ran
            x, t = x.contiguous(), self.time(batch)
            out = x.new_empty((batch, info.channels, height, width))
            for name, tensor in (("x", x), ("t", t), ("out", out)):
                _require(context.set_tensor_address(name, tensor.data_ptr()))
            _require(self._enqueue(context, x.is_cuda))
            if not ran and self._kernels is not None:
                self._kernels.keep()
            ran = True
            return out

        return run

    def _enqueue(self, context: Any, on_gpu: bool) -> bool:
        """Run a context on PyTorch's stream, or beside it where that is the default one, which TensorRT waits for."""
        if not on_gpu:
            return bool(context.execute_async_v3(0))
        stream = torch.cuda.current_stream()
        if stream.cuda_stream:
            return bool(context.execute_async_v3(stream.cuda_stream))
        self._side = self._side or torch.cuda.Stream()  # type: ignore[no-untyped-call]
        self._side.wait_stream(stream)
        ran = bool(context.execute_async_v3(self._side.cuda_stream))
        stream.wait_stream(self._side)
        return ran

    def _context(self) -> Any:
        """Make an execution context that is given its memory later."""
        ours = self._trt.ExecutionContextAllocationStrategy.USER_MANAGED
        context = self._engine.create_execution_context(ours if self._kernels is None else self._kernels.config)
        if context is None:
            raise DeviceError("TensorRT has no room for an execution context; what it said stands above.")
        return context


class _Kernels:
    """What TensorRT-RTX compiles at run time: all before a context runs, so that equal calls give equal bytes.

    Contexts share them, and so do processes through the user's cache: a file of their SHA-256, then their bytes. The
    library refuses what another GPU or driver left there; what was damaged there it does not get to see.
    """

    def __init__(self, trt: Any, engine: Any, about: EngineFile) -> None:
        self.config = engine.create_runtime_config()
        self.config.set_execution_context_allocation_strategy(trt.ExecutionContextAllocationStrategy.USER_MANAGED)
        self.config.dynamic_shapes_kernel_specialization_strategy = trt.DynamicShapesKernelSpecializationStrategy.EAGER
        self._cache = self.config.create_runtime_cache()  # outlives the contexts
        self.config.set_runtime_cache(self._cache)
        folder = cache_folder("tensorrt")
        self._path = None if folder is None else folder / f"{about.sha256[:32]}.kernels"
        if self._path is not None:
            with suppress(OSError):  # there is none yet, or none any more
                kept = self._path.read_bytes()
                if hashlib.sha256(kept[_DIGEST:]).digest() == kept[:_DIGEST]:
                    self._cache.deserialize(kept[_DIGEST:])

    def keep(self) -> None:
        """Write what has been compiled so far for other processes; without room for it they compile it again."""
        if self._path is not None:
            with suppress(OSError):
                with replacing(self._path) as temporary:
                    made = bytes(memoryview(self._cache.serialize()))
                    temporary.write_bytes(hashlib.sha256(made).digest() + made)
                prune(self._path.parent, KERNELS_KEPT)


def _require(done: bool) -> None:
    if not done:
        raise DeviceError("TensorRT could not run the engine; what it said stands above.")


def _sizes(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
