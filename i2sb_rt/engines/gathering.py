"""Requests from several threads that meet at one device: those of a kind are run together."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

Request = TypeVar("Request")
Result = TypeVar("Result")


@dataclass(eq=False)
class _Waiting(Generic[Request, Result]):
    kind: Hashable
    request: Request
    result: Result | None = None
    error: BaseException | None = None
    done: bool = False


class Gathering(Generic[Request, Result]):
    """Runs requests one batch at a time, whoever comes first for all of its kind that wait by then.

    run: a list of requests of one kind to their results, in order; a result may be an exception, which is raised where
    the request came from. most: requests of a batch. What `run` raises is raised for every request of the batch.
    """

    def __init__(self, run: Callable[[list[Request]], list[Result | BaseException]], most: int) -> None:
        self._run, self._most = run, most
        self._line: list[_Waiting[Request, Result]] = []
        self._changing = threading.Lock()
        self._device = threading.Lock()

    def __call__(self, kind: Hashable, request: Request) -> Result:
        """Wait for the result of a request. kind: what requests must have in common to be run together."""
        mine: _Waiting[Request, Result] = _Waiting(kind, request)
        try:
            with self._changing:
                self._line.append(mine)
            with self._device:  # whoever had it before may have run this request too
                while not mine.done:
                    self._serve(kind)
        except BaseException:  # Ctrl-C while it waited
            self._leave(mine)
            raise
        if mine.error is not None:
            raise mine.error
        return mine.result  # type: ignore[return-value]

    def _serve(self, kind: Hashable) -> None:
        taken: list[_Waiting[Request, Result]] = []
        try:
            with self._changing:
                self._line = [waiting for waiting in self._line if not waiting.done]
                taken = [waiting for waiting in self._line if waiting.kind == kind][: self._most]
                self._line = [waiting for waiting in self._line if waiting not in taken]
            results = self._run([waiting.request for waiting in taken])
            for waiting, result in zip(taken, results, strict=True):
                if isinstance(result, BaseException):
                    waiting.error = result
                else:
                    waiting.result = result
                waiting.done = True
        except Exception as error:
            for waiting in taken:
                if not waiting.done:
                    waiting.error, waiting.done = error, True
        except BaseException:  # Ctrl-C, which is for this thread alone
            with self._changing:
                self._line[:0] = [waiting for waiting in taken if not waiting.done]
            raise

    def _leave(self, mine: _Waiting[Request, Result]) -> None:
        """Take a request back, and wait for whoever may run it: what it holds is its caller's, and goes with that."""
        while True:
            try:
                with self._changing:
                    self._line = [waiting for waiting in self._line if waiting is not mine]
                with self._device:
                    return
            except KeyboardInterrupt:
                continue
