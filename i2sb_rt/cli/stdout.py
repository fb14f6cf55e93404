"""Standard output that may be full, closed, or without a reader."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from i2sb_rt.errors import OutputError


def say(text: str) -> None:
    """Print a line. Raises what `checked` raises."""
    with checked():
        print(text, flush=True)


def write(data: bytes) -> None:
    """Write bytes. Raises what `checked` raises, and OutputError where standard output is closed."""
    if sys.stdout is None:
        raise OutputError("standard output is closed")
    with checked():
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()


@contextmanager
def checked() -> Iterator[None]:
    """Raise OutputError where standard output takes no more, and BrokenPipeError where its reader has gone."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        drop()
        raise OutputError(f"standard output cannot be written: {error.strerror or error}") from error


def drop() -> None:
    """Let what was not written, and all that follows, go nowhere: Python would try again at its end and complain."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
