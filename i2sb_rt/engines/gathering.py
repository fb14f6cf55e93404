"""Requests from several threads that meet at one device: those of a kind are run together."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

Request = TypeVar("Request")
Result = TypeVar("Result")

FLIGHTS: Final = 2  # one batch comes and goes while another computes


@dataclass(eq=False)
class _Waiting(Generic[Request, Result]):
    kind: Hashable
    request: Request
    alone: bool
    result: Result | None = None
    error: BaseException | None = None
    done: bool = False
    serves: list[_Waiting[Request, Result]] = field(default_factory=list)  # the batch that its own thread runs


class Gathering(Generic[Request, Result]):
    """Runs requests in batches, whoever comes first for all of its kind that wait by then.

    run: a list of requests of one kind to their results, in order; a result may be an exception, which is raised where
    the request came from. most: requests of a batch. What `run` raises is raised for every request of the batch. While
    a batch runs another may begin if it is full; one that is not waits for company until nothing runs.
    """

    def __init__(self, run: Callable[[list[Request]], list[Result | BaseException]], most: int) -> None:
        self._run, self._most = run, most
        self._line: list[_Waiting[Request, Result]] = []
        self._flying: list[list[_Waiting[Request, Result]]] = []
        self._changed = threading.Condition()

    def __call__(self, kind: Hashable, request: Request, alone: bool = False) -> Result:
        """Wait for the result of a request.

        kind: what requests must have in common to be run together. alone: no other has this kind, so that a batch of it
        is full.
        """
        mine: _Waiting[Request, Result] = _Waiting(kind, request, alone)
        try:
            with self._changed:
                self._line.append(mine)
                self._changed.notify_all()
            while not mine.done:  # whoever flew before may have taken this request along
                self._serve(mine)
        except BaseException:  # Ctrl-C while it waited
            self._leave(mine)
            raise
        if mine.error is not None:
            raise mine.error
        return mine.result  # type: ignore[return-value]

    def _may_fly(self, mine: _Waiting[Request, Result]) -> bool:
        """Return whether a batch of a kind may begin: it is that kind's turn, and nothing runs, or room is left."""
        if not self._line or self._line[0].kind != mine.kind:
            return False
        full = mine.alone or sum(waiting.kind == mine.kind for waiting in self._line) >= self._most
        return not self._flying or (full and len(self._flying) < FLIGHTS)

    def _serve(self, mine: _Waiting[Request, Result]) -> None:
        taken = mine.serves = []
        try:
            with self._changed:
                self._changed.wait_for(lambda: mine.done or self._may_fly(mine))
                if mine.done:
                    return
                taken += [waiting for waiting in self._line if waiting.kind == mine.kind][: self._most]
                self._flying.append(taken)
                self._line = [waiting for waiting in self._line if waiting not in taken]
                self._changed.notify_all()
            results = self._run([waiting.request for waiting in taken])
            with self._changed:
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
        finally:
            self._land(taken)

    def _land(self, taken: list[_Waiting[Request, Result]]) -> None:
        """End a flight. After Ctrl-C, which is for one thread alone, the others' requests stand in line again."""
        with self._changed:
            self._flying = [flight for flight in self._flying if flight is not taken]
            back = [waiting for waiting in taken if not waiting.done and waiting not in self._line]
            self._line[:0] = [waiting for waiting in back if not any(waiting in flight for flight in self._flying)]
            taken.clear()
            self._changed.notify_all()

    def _leave(self, mine: _Waiting[Request, Result]) -> None:
        """Take a request back, and wait for whoever may run it: what it holds is its caller's, and goes with that."""
        while True:
            try:
                self._land(mine.serves)  # Ctrl-C may have come while that was being done
                with self._changed:
                    while mine in self._line or any(mine in flight for flight in self._flying):
                        self._line = [waiting for waiting in self._line if waiting is not mine]
                        self._changed.notify_all()
                        self._changed.wait_for(lambda: not any(mine in flight for flight in self._flying))
                    return
            except KeyboardInterrupt:
                continue
