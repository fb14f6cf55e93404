"""What the runtime asks of TensorRT, done by PyTorch on a CPU: buffers are known by their addresses alone.

An engine's bytes are the path of the model that it would have been built of.
"""

import ctypes
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from i2sb_rt.model_file import read_info
from i2sb_rt.networks.loading import load_network

__version__ = "1.2.3"
DynamicShapesKernelSpecializationStrategy = SimpleNamespace(LAZY="lazy", EAGER="eager")


class Logger:
    """A logger of this name is made and handed on."""

    WARNING = 1

    def __init__(self, severity: int) -> None:
        self.severity = severity


class Context:
    """Runs one shape at a time, where the addresses that it was given last point to."""

    def __init__(self, model: Path, strategy: str) -> None:
        assert strategy == "eager", "kernels that are chosen on the way make bytes that differ"
        self.network, self.channels = load_network(model), read_info(model).channels
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.addresses: dict[str, int] = {}

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.shapes[name] = shape
        return True

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return True

    def execute_async_v3(self, stream: int) -> bool:
        assert stream == 0
        x, t = (torch.from_numpy(self._at(name, self.shapes[name]).copy()) for name in ("x", "t"))
        with torch.no_grad():
            batch, _, *sides = x.shape
            self._at("out", (batch, self.channels, *sides))[...] = self.network(x, t).numpy()
        return True

    def _at(self, name: str, shape: tuple[int, ...]) -> np.ndarray[Any, np.dtype[np.float32]]:
        values = (ctypes.c_float * math.prod(shape)).from_address(self.addresses[name])
        return np.frombuffer(values, np.float32).reshape(shape)


class Engine:
    """Gives contexts with the configuration that a call made."""

    def __init__(self, model: Path) -> None:
        self.model = model

    def create_runtime_config(self) -> SimpleNamespace:
        return SimpleNamespace(dynamic_shapes_kernel_specialization_strategy="lazy")

    def create_execution_context(self, config: SimpleNamespace) -> Context:
        return Context(self.model, config.dynamic_shapes_kernel_specialization_strategy)


class Runtime:
    """Reads engines."""

    def __init__(self, logger: Logger) -> None:
        self.logger = logger

    def deserialize_cuda_engine(self, data: bytes) -> Engine | None:
        model = Path(data.decode())
        return Engine(model) if model.is_file() else None
