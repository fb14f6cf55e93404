"""Stopping cleanly on Ctrl-C or SIGTERM."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from types import FrameType
from typing import Any, TypeVar

Result = TypeVar("Result")


@contextmanager
def nothing_to_stop() -> Iterator[None]:
    """While entered, Ctrl-C ends the process at once: NumPy's import would take an exception for a broken install."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


class Stop:
    """While entered, the first SIGINT or SIGTERM is noted in `signal`; a second of its kind ends the process."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Stop:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.signal = number
        signal.signal(number, signal.SIG_DFL)
        print("i2sb-rt: stopping after this network call; once more stops at once", file=sys.stderr)

    def run(self, work: Callable[[], Result]) -> Result:
        """Run in a second thread, so that this one, where Python handles signals, is never deep in native code."""
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(work).result()
