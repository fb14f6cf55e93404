"""A device that somebody else keeps busy, so that requests stand in line."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from i2sb_rt.engines.gathering import FLIGHTS, Gathering


@contextmanager
def held(gathering: Gathering[Any, Any], flights: int = FLIGHTS) -> Iterator[None]:
    """Keep a device busy with so many batches: with all that it takes, or with fewer."""
    with gathering._changed:
        gathering._flying += [[] for _ in range(flights)]
    try:
        yield
    finally:
        with gathering._changed:
            del gathering._flying[:flights]
            gathering._changed.notify_all()
