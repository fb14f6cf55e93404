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
ExecutionContextAllocationStrategy = SimpleNamespace(STATIC="static", USER_MANAGED="user managed")


class ILogger:
    """What a logger is made of."""

    WARNING = 2


class RuntimeCache:
    """Compiled kernels: how many contexts have run with them."""

    def __init__(self) -> None:
        self.kernels = 0

    def serialize(self) -> bytes:
        return b"kernels" * self.kernels

    def deserialize(self, blob: bytes) -> bool:
        self.kernels = blob.count(b"kernels")
        return True


class RuntimeConfig:
    """How an execution context is to be made."""

    dynamic_shapes_kernel_specialization_strategy = "lazy"
    strategy = "static"
    cache: RuntimeCache | None = None

    def set_execution_context_allocation_strategy(self, strategy: str) -> None:
        self.strategy = strategy

    def create_runtime_cache(self) -> RuntimeCache:
        return RuntimeCache()

    def set_runtime_cache(self, cache: RuntimeCache) -> bool:
        self.cache = cache
        return True


class Context:
    """Runs one shape at a time, where the addresses that it was given last point to."""

    def __init__(self, model: Path, config: RuntimeConfig) -> None:
        eager = config.dynamic_shapes_kernel_specialization_strategy == "eager"
        assert eager, "kernels that are chosen on the way make bytes that differ"
        assert config.strategy == "user managed", "memory of its own is as large as the largest shape's"
        assert config.cache is not None, "each context would compile its kernels again"
        self.network, self.channels = load_network(model), read_info(model).channels
        self.cache = config.cache
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.addresses: dict[str, int] = {}
        self.memory = 0

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.shapes[name] = shape
        return True

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return True

    def update_device_memory_size_for_shapes(self) -> int:
        return 64 * math.prod(self.shapes["x"])

    def set_device_memory(self, memory: int, size: int) -> None:
        assert size >= self.update_device_memory_size_for_shapes()
        self.memory = memory

    def execute_async_v3(self, stream: int) -> bool:
        assert stream == 0
        assert self.memory != 0
        self.cache.kernels += 1
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

    def create_runtime_config(self) -> RuntimeConfig:
        return RuntimeConfig()

    def create_execution_context(self, config: RuntimeConfig) -> Context:
        return Context(self.model, config)


class Runtime:
    """Reads engines."""

    def __init__(self, logger: ILogger) -> None:
        assert isinstance(logger, ILogger)

    def deserialize_cuda_engine(self, data: bytes) -> Engine | None:
        model = Path(data.decode())
        if model.is_file():
            return Engine(model)
        return None
