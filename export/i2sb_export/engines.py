"""The engines that exports are compared in: PyTorch, ONNX Runtime, and whatever runs a package."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from i2sb_rt import _core
from i2sb_rt.errors import DeviceError
from i2sb_rt.networks.loading import load_network

F32 = NDArray[np.float32]


@dataclass(frozen=True)
class Opened:
    """An engine as `Restorer` takes it: its name, its precision, and what the core calls."""

    name: str
    precision: str
    core: _core.Engine


def onnxruntime(path: Path) -> Opened:
    """Open an .onnx file in ONNX Runtime on the CPU. Raises DeviceError where that is not installed."""
    try:
        from onnxruntime import InferenceSession
    except ImportError:
        raise DeviceError("verifying needs ONNX Runtime: pip install 'i2sb-rt[export]'.") from None
    session = InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def predict(x: F32, t: F32) -> F32:
        out: F32 = session.run(["out"], {"x": x, "t": t})[0]
        return out

    return Opened("onnxruntime", "fp32", _core.Engine.callback(predict))


def pytorch(path: Path) -> Opened:
    """Open a model file as eager PyTorch runs it, in float32 on the CPU."""
    return Opened("pytorch", "fp32", _module(load_network(path), "cpu"))


def package(path: Path) -> Opened:
    """Open a package of AOTInductor on the device that it was made for."""
    from i2sb_export.aoti import open_package

    _, network, device = open_package(path)
    return Opened("aoti", "fp32", _module(network, device))


def _module(network: Callable[..., object], device: str) -> _core.Engine:
    import torch

    def predict(x: F32, t: F32) -> F32:
        with torch.inference_mode():
            out = network(torch.tensor(x).to(device), torch.tensor(t).to(device))
            assert isinstance(out, torch.Tensor)
            values: F32 = out.cpu().numpy()
        return values

    return _core.Engine.callback(predict)
