"""The work of i2sb-rt restore, image by image."""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from i2sb_rt.cli import stdout
from i2sb_rt.cli.jobs import Job, inside, plan_jobs, protect, without
from i2sb_rt.cli.masks import Masks
from i2sb_rt.cli.report import Report
from i2sb_rt.cli.stop import Stop
from i2sb_rt.compare import compare
from i2sb_rt.errors import CancelledError, I2SBError, ImageMissingError, OutOfMemoryError, UsageError
from i2sb_rt.image import U8, Picture, encode, format_of, read, write, write_bytes
from i2sb_rt.model_file import ModelInfo
from i2sb_rt.parallel import cores, default_jobs, in_order
from i2sb_rt.restorer import Restorer, load
from i2sb_rt.sampling import seed_list
from i2sb_rt.timeline import Timeline, chrome_trace

if TYPE_CHECKING:
    from i2sb_rt._core import Observer


def run(options: argparse.Namespace) -> int:
    """Restore everything that the options name; return the exit code."""
    jobs = plan_jobs([*options.inputs, *options.input], options.output, options.overwrite)
    masks = _masks(options, jobs)
    jobs = jobs if masks is None else without(jobs, masks.path)
    _check(options, jobs)
    with Stop() as stop, _one_pixel_limit(options.max_pixels), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, of metadata that it cannot read
        return stop.run(lambda: _restore_all(options, jobs, masks, stop))


@contextmanager
def _one_pixel_limit(max_pixels: int) -> Iterator[None]:
    """Put our limit in the place of Pillow's, which is one for the whole process."""
    before = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = max_pixels
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = before


def _masks(options: argparse.Namespace, jobs: list[Job]) -> Masks | None:
    """Read what the options say of masks; refuse to write where they are."""
    if options.mask is None:
        if options.mask_invert:
            raise UsageError("--mask-invert says how --mask is read, which is not given")
        return None
    masks = Masks(Path(options.mask), options.mask_invert, options.max_pixels)
    side_files = [Path(path) for path in (options.compare, options.profile) if path]
    for target in [*(job.target for job in jobs if job.target is not None), *side_files]:
        if inside(target, masks.path):
            raise UsageError(f"{target} would be written over a mask, or among them")
    return masks


def _check(options: argparse.Namespace, jobs: list[Job]) -> None:
    """Refuse what cannot work before any work begins."""
    seed_list(options.seed, 1)
    if options.json and options.output == "-":
        raise UsageError("--json and -o - both write to standard output; choose one")
    if options.compare:
        if len(jobs) > 1:
            raise UsageError(f"--compare draws one image, but {len(jobs)} are given")
        format_of(Path(options.compare))
    for option in ("compare", "profile"):
        path = getattr(options, option)
        if path:
            protect(Path(path), jobs, f"--{option}")


def _restore_all(options: argparse.Namespace, jobs: list[Job], masks: Masks | None, stop: Stop) -> int:
    at_once = options.jobs
    if at_once is None:
        at_once = default_jobs(len(jobs), options.threads or cores())
    restorer = load(options.model, options.engine, options.threads, options.precision, at_once)
    run = _Run(options, restorer, masks, stop, Report(len(jobs), options.json, options.quiet))
    for outcome in in_order(run.process, jobs, min(at_once, len(jobs))):
        if outcome is not None:
            run.report.done(*outcome)
    if options.profile:
        write_bytes(chrome_trace(run.timelines).encode(), Path(options.profile))
    return run.report.finish(stop.signal)


# What the JSON line says of an image, and why it failed if it did.
Outcome = tuple[dict[str, Any], I2SBError | None]


class _Run:
    """What is the same for every image of a run."""

    def __init__(
        self, options: argparse.Namespace, restorer: Restorer, masks: Masks | None, stop: Stop, report: Report
    ) -> None:
        self.options, self.restorer, self.masks, self.stop, self.report = options, restorer, masks, stop, report
        _check_task(restorer.info, masks is not None)
        self.failed = False
        self.timelines: dict[str, Timeline] = {}
        sampler = options.sampler or restorer.info.sampler
        self.plan = restorer.plan(options.nfe, sampler, options.eta)
        self.facts: dict[str, Any] = {
            "model": restorer.info.name,
            "nfe": self.plan.nfe,
            "sampler": sampler,
            "seed": options.seed,
            "precision": restorer.precision,
            "engine": restorer.engine_name,
        }
        if options.json:
            self.facts["model_sha256"] = hashlib.sha256(restorer.path.read_bytes()).hexdigest()

    def process(self, job: Job) -> Outcome | None:
        """Restore one image; whatever goes wrong is its failure alone. None if the run was stopped before its end."""
        if self.stop.signal is not None or (self.options.fail_fast and self.failed):
            return None
        record: dict[str, Any] = {"schema": 1, "in": job.source_name, "out": job.target_name}
        if self.options.skip_existing and job.has_output:
            return {**record, "status": "skipped"}, None
        try:
            done = self._restore(job)
        except Exception as error:
            failure = _failure(error, job)
            if isinstance(failure, CancelledError):
                return None
            self.failed = True
            details = {"code": failure.code, "message": str(failure)}
            return {**record, "status": "failed", "error": details}, failure
        return {**record, "status": "ok", **self.facts, **done}, None

    def _restore(self, job: Job) -> dict[str, Any]:
        timeline, options = Timeline(), self.options
        self.report.progress(job.source_name, 0)
        with timeline.span("total"):
            with timeline.span("decode"):
                picture = _read(job, options.max_pixels // self.restorer.info.upscale**2)
                mask, hole = self._hole(job, picture)
            tile = self.restorer.tile_of(picture.width, picture.height, options.tile, options.tile_overlap)
            restored = self.restorer.restore_picture(
                picture,
                self.plan,
                seed=options.seed,
                mask=hole,
                tile=options.tile,
                overlap=options.tile_overlap,
                threads=options.threads,
                observer=self._observer(job, timeline),
            )
            with timeline.span("encode"):
                _write(restored, job)
        if options.compare:
            self._compare(picture, restored, job)
        if options.profile:
            self.timelines[job.source_name] = timeline
        size = {"w": picture.width, "h": picture.height, "out_w": restored.width, "out_h": restored.height}
        named = {} if mask is None else {"mask": str(mask)}
        return {**size, **named, "tile": tile, "ms": timeline.milliseconds()}

    def _hole(self, job: Job, picture: Picture) -> tuple[Path | None, U8 | None]:
        """Return the image's mask file and the hole in it; nothing where there are no masks."""
        if self.masks is None:
            return None, None
        file = self.masks.file_of(job)
        return file, self.masks.hole_of(file, picture, job.source_name)

    def _observer(self, job: Job, timeline: Timeline) -> Observer:
        def observe(phase: str, row: int, rows: int, tile: int, tiles: int, begin_ns: int, end_ns: int) -> bool:
            timeline.observe(phase, row, rows, tile, tiles, begin_ns, end_ns)
            if phase == "network":
                self.report.progress(job.source_name, (row + tile / tiles) / rows)
            return self.stop.signal is not None

        return observe

    def _compare(self, before: Picture, after: Picture, job: Job) -> None:
        facts = self.facts
        labels = (
            f"before: {Path(job.source_name).name}",
            f"after: {facts['model']}, NFE {facts['nfe']}, {facts['sampler']}",
        )
        write(compare(before, after, labels), Path(self.options.compare))


def _check_task(info: ModelInfo, masked: bool) -> None:
    """Refuse holes for a model that knows none, and a model of holes without any."""
    if masked and not info.fills_holes:
        raise UsageError(f"the model {info.name} fills no holes (its task is {info.task}), so it takes no --mask")
    if info.fills_holes and not masked:
        raise UsageError(f"the model {info.name} fills holes: name them with --mask")


def _read(job: Job, max_pixels: int) -> Picture:
    if job.source is None and sys.stdin is None:
        raise ImageMissingError("standard input is closed")
    return read(job.source or sys.stdin.buffer, max_pixels)


def _write(picture: Picture, job: Job) -> None:
    if job.target is not None:
        write(picture, job.target)
        return
    stdout.write(encode(picture, "PNG"))


def _failure(error: Exception, job: Job) -> I2SBError:
    """Return the error as one of ours, naming the image."""
    if os.environ.get("I2SB_RT_DEBUG"):
        traceback.print_exception(error)
    if isinstance(error, BrokenPipeError):
        raise error
    if isinstance(error, MemoryError):
        return OutOfMemoryError(f"{job.source_name}: there is not enough memory")
    if not isinstance(error, I2SBError):
        return I2SBError(f"{job.source_name}: internal error: {type(error).__name__}: {error}")
    if job.source_name not in str(error) and job.target_name not in str(error):
        return type(error)(f"{job.source_name}: {error}")
    return error
