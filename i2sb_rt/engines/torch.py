"""PyTorch on the CPU as the network of the native loop: for machines without OpenVINO, and as a second opinion."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from i2sb_rt import _core
from i2sb_rt.errors import DeviceError

try:
    import torch
except ImportError as error:
    raise DeviceError("the engine torch needs PyTorch: pip install 'i2sb-rt[torch]'") from error

F32 = NDArray[np.float32]


class TorchEngine:
    """The network as a PyTorch module; "auto" is fp32, "bf16" is autocast. Threads are set for all of torch.

    One call runs at a time: it takes all threads.
    """

    name = "torch"

    def __init__(self, path: Path, threads: int | None, precision: str) -> None:
        from i2sb_rt.networks.loading import load_network

        if threads is not None:
            torch.set_num_threads(threads)
        self.precision = "bf16" if precision == "bf16" else "fp32"
        self._lock, self._process = threading.Lock(), os.getpid()
        self._network = load_network(path).eval()
        self.core = _core.Engine.callback(self._predict)

    def _predict(self, x: F32, t: F32) -> F32:
        if os.getpid() != self._process:  # its threads are not there, and would be waited for
            raise DeviceError("PyTorch does not survive a fork: load the model in the new process, or spawn that")
        autocast = torch.autocast("cpu", torch.bfloat16, enabled=self.precision == "bf16")
        with self._lock, torch.inference_mode(), autocast:
            out = self._network(torch.tensor(x), torch.tensor(t))
        result: F32 = out.float().contiguous().numpy()
        return result
