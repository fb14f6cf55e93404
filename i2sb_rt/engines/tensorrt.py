"""An engine of TensorRT or TensorRT-RTX as the network of the loop on a GPU. One path for both."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from i2sb_rt.engines.engine_file import (
    EngineFile,
    architecture_here,
    library,
    load_engine,
    read_note,
    require_source,
)
from i2sb_rt.errors import DeviceError, UsageError

try:
    import torch
    from torch import Tensor
except ImportError as error:
    raise DeviceError("engines of TensorRT need PyTorch: pip install 'i2sb-rt[gpu]'") from error

from i2sb_rt.engines.device import DeviceEngine
from i2sb_rt.engines.loop import Loop, Planes


class TensorRTEngine(DeviceEngine):
    """An engine that `export` built of a model, in the loop that stays on the GPU.

    path: the engine; model: the .onnx file that it was built of. batch: as in `DeviceEngine`, None is the one that the
    engine is fastest at. Raises DeviceError where there is no GPU, or an engine of another library, version or GPU;
    ModelFileError where the engine is damaged or was built of another model.
    """

    def __init__(self, path: Path, model: Path, batch: int | None = None, device: str = "cuda") -> None:
        here = architecture_here()
        if here is None:
            raise DeviceError("PyTorch finds no CUDA device here")
        trt = library([read_note(path).library])
        about, data = load_engine(path, trt.__name__, trt.__version__, here)
        require_source(path, about, model)
        loop = Loop(EngineNetwork(trt, about, data, device), bucket=batch or about.profile.opt[0])
        super().__init__("tensorrt", about.precision, loop, batch)


class EngineNetwork(Planes):
    """The network of an engine; each shape has an execution context of its own, as captured graphs demand."""

    def __init__(self, trt: Any, about: EngineFile, data: bytes, device: str) -> None:
        super().__init__(device)
        self.about = about
        self._trt, self._runtime = trt, trt.Runtime(trt.Logger(trt.Logger.WARNING))
        self._engine = self._runtime.deserialize_cuda_engine(data)
        if self._engine is None:
            raise DeviceError(f"{trt.__name__} {trt.__version__} cannot read the engine; what it said stands above.")

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
        context.set_input_shape("x", (batch, info.in_channels, height, width))
        context.set_input_shape("t", (batch,))

        def run(x: Tensor) -> Tensor:
            x, t = x.contiguous(), self.time(batch)
            out = x.new_empty((batch, info.channels, height, width))
            for name, tensor in (("x", x), ("t", t), ("out", out)):
                context.set_tensor_address(name, tensor.data_ptr())
            if not context.execute_async_v3(torch.cuda.current_stream().cuda_stream if x.is_cuda else 0):
                raise DeviceError("TensorRT could not run the engine; what it said stands above.")
            return out

        return run

    def _context(self) -> Any:
        """Make an execution context; all its kernels are there before it runs, so that equal calls give equal bytes."""
        strategies = getattr(self._trt, "DynamicShapesKernelSpecializationStrategy", None)
        if strategies is None:  # TensorRT knows its kernels since the engine was built
            context = self._engine.create_execution_context()
        else:
            config = self._engine.create_runtime_config()
            config.dynamic_shapes_kernel_specialization_strategy = strategies.EAGER
            context = self._engine.create_execution_context(config)
        if context is None:
            raise DeviceError("TensorRT has no room for an execution context; what it said stands above.")
        return context


def _sizes(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
