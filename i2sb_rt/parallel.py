"""Several images at work at once: how many, in what order they come back, and how much memory they may take."""

from __future__ import annotations

import os
import re
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def cores() -> int:
    """Return the number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def default_jobs(images: int, threads: int, batch: int = 1) -> int:
    """Return how many images to work on at once with so many CPU threads. batch: images that the engine takes together.

    A network call spreads well over about four threads; and with two images, one is read or written while the other
    is in the network. So a batch is gathered while another is at work.
    """
    if batch > 1:
        return max(1, min(images, 2 * batch))
    return max(1, min(images, threads, max(2, threads // 4)))


def in_order(
    work: Callable[[Item], Result], items: Iterable[Item], jobs: int, stop: Callable[[], None] | None = None
) -> Iterator[Result]:
    """Yield work(item) for each item, in order; `jobs` run at once, each in a thread.

    What `work` raises is raised when its turn comes, and what has not begun by then is left undone. stop: called when
    no more results are wanted, so that what is at work may end early; one job alone needs no telling.
    """
    if jobs == 1:
        yield from map(work, items)
        return
    pending: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(jobs) as pool:
        try:
            for item in items:
                if len(pending) == 2 * jobs:  # so that nobody is idle while the first one takes long
                    yield pending.popleft().result()
                pending.append(pool.submit(work, item))
            while pending:
                yield pending.popleft().result()
        finally:
            if stop is not None:
                stop()
            for future in pending:
                future.cancel()


class Room:
    """Room for images of `limit` pixels together, which bounds the memory; a larger one is let in when it is alone.

    Who comes first is let in first, so that no large image waits for ever.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held = 0
        self._line: deque[object] = deque()
        self._changed = threading.Condition()

    @contextmanager
    def of(self, pixels: int) -> Iterator[None]:
        """Wait for room for an image of so many pixels, and hold it during the body of the `with`."""
        turn, held = object(), 0

        def fits() -> bool:
            return self._line[0] is turn and (not self._held or self._held + pixels <= self._limit)

        try:
            with self._changed:
                self._line.append(turn)
                self._changed.wait_for(fits)
                held = pixels
                self._held += held
                self._line.popleft()
                self._changed.notify_all()  # the next one may fit beside it
            yield
        finally:
            with self._changed:
                self._held -= held
                if turn in self._line:
                    self._line.remove(turn)
                self._changed.notify_all()


def peak_memory() -> int | None:
    """Tell the peak memory of this process in bytes. Linux keeps it as VmHWM; ru_maxrss begins with the parent's."""
    try:
        found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    except OSError:
        return None
    return int(found[1]) * 1024 if found else None
