"""When each piece of work began and ended: sums for reports, Chrome trace events for a profile."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Timeline:
    """The events of one image: name, begin and end in nanoseconds of the steady clock, and what else is known."""

    events: list[tuple[str, int, int, dict[str, Any]]] = field(default_factory=list)

    @contextmanager
    def span(self, name: str, **facts: Any) -> Iterator[None]:
        """Record the time that the body of the `with` takes."""
        begin = time.monotonic_ns()
        try:
            yield
        finally:
            self.events.append((name, begin, time.monotonic_ns(), facts))

    def observe(self, phase: str, row: int, rows: int, tile: int, tiles: int, begin_ns: int, end_ns: int) -> None:
        """Record an event of the core's loop; it has the form of the core's observer."""
        self.events.append((phase, begin_ns, end_ns, {"row": row, "rows": rows, "tile": tile, "tiles": tiles}))

    def milliseconds(self) -> dict[str, float]:
        """Return the time spent under each name, rounded to microseconds."""
        sums: dict[str, int] = {}
        for name, begin, end, _ in self.events:
            sums[name] = sums.get(name, 0) + end - begin
        return {name: round(total / 1e6, 3) for name, total in sums.items()}


def chrome_trace(timelines: dict[str, Timeline]) -> str:
    """Return the JSON that chrome://tracing and Perfetto open: one track an image, named by its key."""
    process = os.getpid()
    events: list[dict[str, Any]] = []
    for track, (image, timeline) in enumerate(timelines.items(), start=1):
        events.append({"ph": "M", "name": "thread_name", "pid": process, "tid": track, "args": {"name": image}})
        for name, begin, end, facts in timeline.events:
            times = {"ts": begin / 1e3, "dur": (end - begin) / 1e3}
            events.append({"ph": "X", "name": name, "pid": process, "tid": track, **times, "args": facts})
    return json.dumps({"traceEvents": events, "displayTimeUnit": "ms"})
