"""Arrays on their way to a device and back."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_KINDS: Final = {"seeds": torch.int64}  # the others are float32


class Carrier:
    """Brings arrays to a device and back, on a stream of its own: while one batch is computed others come and go."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.gpu = device, device.type == "cuda"
        # Streams are dealt out in turn from 32 of a priority; none of this one ever captures a graph.
        self._stream: Any = torch.cuda.Stream(device, priority=-1) if self.gpu else None  # type: ignore[no-untyped-call]

    def send(self, arrays: dict[str, NDArray[Any]]) -> tuple[dict[str, Tensor], Any]:
        """Copy arrays to the device; return them there, and the event behind which they are. Nothing waits for it."""
        with torch.cuda.stream(self._stream) if self.gpu else nullcontext():
            staged = {
                name: torch.empty(array.shape, dtype=_KINDS.get(name, torch.float32), pin_memory=self.gpu)
                for name, array in arrays.items()
            }
            for name, array in arrays.items():
                np.copyto(staged[name].numpy(), array)
            if not self.gpu:
                return staged, None
            sent = {name: tensor.to(self.device, non_blocking=True) for name, tensor in staged.items()}
            return sent, self._stream.record_event()

    def receive(self, sent: dict[str, Tensor], behind: Any) -> None:
        """Let the current stream use what was sent."""
        if self.gpu:
            current = torch.cuda.current_stream()
            current.wait_event(behind)
            for tensor in sent.values():
                tensor.record_stream(current)

    def fetch(self, tensor: Tensor, behind: Any) -> NDArray[Any]:
        """Wait for an event of the device, and copy a tensor from there, past what it has begun since."""
        if not self.gpu:
            return tensor.numpy()
        behind.synchronize()
        with torch.cuda.stream(self._stream):
            fetched = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
            fetched.copy_(tensor, non_blocking=True)
            self._stream.record_event().synchronize()
        return fetched.numpy().copy()  # pinned memory is scarce, and its owner may keep this for long
