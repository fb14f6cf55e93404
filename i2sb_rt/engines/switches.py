"""PyTorch's switches of precision, which belong to the whole process, as one loop wants them."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator


class Switches:
    """PyTorch's switches of precision and algorithms, which are of the whole process, as a loop wants them.

    Loops that want the same run together, others in turn; when none runs they are as the host program left them.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._users, self._tf32 = 0, False
        self._before: tuple[Any, ...] = ()

    @contextmanager
    def held(self, tf32: bool) -> Iterator[None]:
        """Compute float32 convolutions and products as asked, by the same algorithms each time, whatever others set."""
        with self._changed:
            self._changed.wait_for(lambda: not self._users or self._tf32 == tf32)
            if not self._users:
                self._before, self._tf32 = self._read(), tf32
                self._write(("tf32", "tf32", False, True) if tf32 else ("ieee", "ieee", False, True))
            self._users += 1
        try:
            yield
        finally:
            with self._changed:
                self._users -= 1
                if not self._users:
                    self._write(self._before)
                    self._changed.notify_all()

    @staticmethod
    def _read() -> tuple[Any, ...]:
        cudnn: Any = torch.backends.cudnn
        products = torch.backends.cuda.matmul.fp32_precision
        return cudnn.conv.fp32_precision, products, cudnn.benchmark, cudnn.deterministic

    @staticmethod
    def _write(values: tuple[Any, ...]) -> None:
        cudnn: Any = torch.backends.cudnn
        cudnn.conv.fp32_precision, products, cudnn.benchmark, cudnn.deterministic = values
        torch.backends.cuda.matmul.fp32_precision = products


SWITCHES: Final = Switches()
