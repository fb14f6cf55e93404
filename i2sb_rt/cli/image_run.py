"""What the commands that work on image after image share: reading, writing, and failing one by one."""

from __future__ import annotations

import argparse
import os
import sys
import traceback
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from i2sb_rt.cli import stdout
from i2sb_rt.cli.jobs import Job, is_there
from i2sb_rt.cli.report import Report, told
from i2sb_rt.cli.stop import Stop
from i2sb_rt.errors import CancelledError, I2SBError, ImageMissingError, UsageError, ours
from i2sb_rt.image import Picture, encode, read, write
from i2sb_rt.parallel import in_order

if TYPE_CHECKING:
    from i2sb_rt.restorer import Restorer

# What the JSON line says of an image, and why it failed if it did.
Outcome = tuple[dict[str, Any], I2SBError | None]


class ImageRun(ABC):
    """What is the same for every image of a run. options: those that `arguments.add_files` adds are read here."""

    def __init__(self, options: argparse.Namespace, stop: Stop, report: Report) -> None:
        self.options, self.stop, self.report = options, stop, report
        self.failed = False
        self.facts: dict[str, Any] = {}

    @abstractmethod
    def work(self, job: Job) -> dict[str, Any]:
        """Read, work on and write one image; return what its JSON line says beside `facts`."""

    def side_files(self, job: Job) -> list[Path]:
        """Return what is written for an image beside its output."""
        return []

    def process_all(self, jobs: list[Job], at_once: int) -> None:
        """Process every image, `at_once` of them at a time, and tell of each in order."""
        for outcome in in_order(self.process, jobs, min(at_once, len(jobs))):
            if outcome is not None:
                self.report.done(*outcome)

    def process(self, job: Job) -> Outcome | None:
        """Process one image; whatever goes wrong is its failure alone. None if the run was stopped before its end."""
        if self.stop.signal is not None or (self.options.fail_fast and self.failed):
            return None
        record: dict[str, Any] = {"schema": 1, "in": job.source_name, "out": job.target_name}
        if self.options.skip_existing and job.has_output and all(map(is_there, self.side_files(job))):
            return {**record, "status": "skipped"}, None
        try:
            done = self.work(job)
        except Exception as error:
            failure = failure_of(error, job)
            if isinstance(failure, CancelledError):
                return None
            self.failed = True
            return {**record, "status": "failed", "error": told(failure)}, failure
        return {**record, "status": "ok", **self.facts, **done}, None


def stoppable(work: Callable[[Stop], int], max_pixels: int) -> int:
    """Run the work of a command so that Ctrl-C stops it cleanly, and with our limit of pixels; return its exit code."""
    with Stop() as stop, _one_pixel_limit(max_pixels), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, of metadata that it cannot read
        return stop.run(lambda: work(stop))


def check_streams(options: argparse.Namespace) -> None:
    """Refuse two kinds of data on standard output."""
    if options.json and options.output == "-":
        raise UsageError("--json and -o - both write to standard output; choose one")


def check_tiles(options: argparse.Namespace, restorer: Restorer) -> None:
    """Refuse tiles that the model cuts no image into, before the first image that is large enough is met."""
    if options.tile == 0 and options.tile_overlap is not None:
        raise UsageError("--tile-overlap is that of tiles, and -t 0 makes none")
    restorer.check_tiles(options.tile, options.tile_overlap)


def read_source(job: Job, max_pixels: int) -> Picture:
    """Read the input of a job. Raises what `image.read` raises."""
    if job.source is None and sys.stdin is None:
        raise ImageMissingError("standard input is closed")
    return read(job.source or sys.stdin.buffer, max_pixels)


def write_target(picture: Picture, job: Job) -> None:
    """Write the output of a job. Raises what `image.write` raises."""
    if job.target is not None:
        write(picture, job.target)
        return
    stdout.write(encode(picture, "PNG"))


@contextmanager
def _one_pixel_limit(max_pixels: int) -> Iterator[None]:
    """Put our limit in the place of Pillow's, which is one for the whole process."""
    before = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = max_pixels
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = before


def failure_of(error: Exception, job: Job) -> I2SBError:
    """Return the error as one of ours, naming the image."""
    if os.environ.get("I2SB_RT_DEBUG"):
        traceback.print_exception(error)
    if isinstance(error, BrokenPipeError):
        raise error
    failure = ours(error)
    names = ["standard input"] if job.source is None else [str(job.source)]
    names += [] if job.target is None else [str(job.target)]
    if failure is not error or not any(name in str(failure) for name in names):
        return type(failure)(f"{job.source_name}: {failure}")
    return failure
