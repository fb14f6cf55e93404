"""Stopping cleanly on Ctrl-C or SIGTERM."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, TypeVar

Result = TypeVar("Result")


@contextmanager
def nothing_to_stop() -> Iterator[None]:
    """While entered, Ctrl-C ends the process at once: NumPy's import would take an exception for a broken install."""
    if not _heeded(signal.SIGINT):
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _heeded(number: int) -> bool:
    """Whether this thread may handle a signal, and whoever started the process did not have it ignored."""
    here = threading.current_thread() is threading.main_thread()
    return here and signal.getsignal(number) is not signal.SIG_IGN


class Stop:
    """While entered, the first SIGINT or SIGTERM is noted in `signal`; a second of its kind ends the process.

    One that the process was started to ignore, as `nohup` and a shell's `&` do, stays ignored.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Stop:
        heeded = filter(_heeded, (signal.SIGINT, signal.SIGTERM))
        self._before = {number: signal.signal(number, self._note) for number in heeded}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.signal = number
        signal.signal(number, signal.SIG_DFL)
        with suppress(OSError):  # whoever read our messages may have gone
            print("i2sb-rt: stopping after this network call; once more stops at once", file=sys.stderr)

    def run(self, work: Callable[[], Result]) -> Result:
        """Run in a second thread, so that this one, where Python handles signals, is never deep in native code.

        It looks up now and then, for the system may give a signal to any thread, and that alone does not wake this one.
        """
        with ThreadPoolExecutor(1) as pool:
            done = pool.submit(work)
            while not done.done():
                wait([done], timeout=0.1)
            return done.result()
