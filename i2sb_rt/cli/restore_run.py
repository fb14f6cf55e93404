"""The work of i2sb-rt restore, image by image."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from i2sb_rt.cli.image_run import ImageRun, check_streams, check_tiles, failure_of, read_source, stoppable, write_target
from i2sb_rt.cli.jobs import Job, inside, plan_jobs, protect, without
from i2sb_rt.cli.masks import Masks
from i2sb_rt.cli.report import Report
from i2sb_rt.cli.stop import Stop
from i2sb_rt.compare import compare
from i2sb_rt.errors import ImageTooLargeError, OutputError, UsageError
from i2sb_rt.image import U8, Picture, format_of, write, write_bytes
from i2sb_rt.model_file import ModelInfo, file_sha256
from i2sb_rt.parallel import cores, default_jobs
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
    return stoppable(lambda stop: _restore_all(options, jobs, masks, stop), options.max_pixels)


def _masks(options: argparse.Namespace, jobs: list[Job]) -> Masks | None:
    """Read what the options say of masks; refuse to write where they are."""
    if options.mask is None:
        if options.mask_invert:
            raise UsageError("--mask-invert says how --mask is read, which is not given")
        return None
    masks = Masks(Path(options.mask), options.mask_invert, options.max_pixels)
    targets = [job.target for job in jobs if job.target is not None]
    for target in [*targets, *_side_files(options).values()]:
        if inside(target, masks.path):
            raise UsageError(f"{target} would be written over a mask, or among them")
    return masks


def _check(options: argparse.Namespace, jobs: list[Job]) -> None:
    """Refuse what cannot work before any work begins."""
    seed_list(options.seed, 1)
    check_streams(options)
    if options.compare:
        if len(jobs) > 1:
            raise UsageError(f"--compare draws one image, but {len(jobs)} are given")
        format_of(Path(options.compare))
    protect(_side_files(options), jobs)


def _side_files(options: argparse.Namespace) -> dict[str, Path]:
    """Return what the run writes beside the outputs, by the option that names it."""
    named = {f"--{option}": getattr(options, option) for option in ("compare", "profile")}
    return {option: Path(path) for option, path in named.items() if path}


def _restore_all(options: argparse.Namespace, jobs: list[Job], masks: Masks | None, stop: Stop) -> int:
    at_once = options.jobs
    if at_once is None:
        at_once = default_jobs(len(jobs), options.threads or cores(), options.batch or 1)
    restorer = load(options.model, options.engine, options.threads, options.precision, at_once, options.batch)
    run = _Run(options, restorer, masks, stop, Report(len(jobs), options.json, options.quiet))
    run.process_all(jobs, at_once)
    if options.profile:
        try:
            write_bytes(chrome_trace(run.timelines).encode(), Path(options.profile))
        except OutputError as error:
            run.report.trouble(error)
    return run.report.finish(stop.signal)


class _Run(ImageRun):
    """What is the same for every image of a run."""

    def __init__(
        self, options: argparse.Namespace, restorer: Restorer, masks: Masks | None, stop: Stop, report: Report
    ) -> None:
        super().__init__(options, stop, report)
        self.restorer, self.masks = restorer, masks
        _check_task(restorer.info, masks is not None)
        check_tiles(options, restorer)
        self.timelines: dict[str, Timeline] = {}
        sampler = options.sampler or restorer.info.sampler
        self.plan = restorer.plan(options.nfe, sampler, options.eta)
        self.facts = {
            "model": restorer.info.name,
            "nfe": self.plan.nfe,
            "sampler": sampler,
            "ensemble": options.ensemble,
            "seed": options.seed,
            "precision": restorer.precision,
            "engine": restorer.engine_name,
        }
        if options.json:
            self.facts["model_sha256"] = file_sha256(restorer.path)

    def side_files(self, job: Job) -> list[Path]:
        """Return the file that the image is compared in, if it is."""
        return [Path(self.options.compare)] if self.options.compare else []

    def work(self, job: Job) -> dict[str, Any]:
        """Restore one image."""
        timeline, options = Timeline(), self.options
        self.report.progress(job.source_name, 0)
        with timeline.span("total"):
            with timeline.span("decode"):
                picture = self._read(job)
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
                ensemble=options.ensemble,
                observer=self._observer(job, timeline),
            )
            with timeline.span("encode"):
                write_target(restored, job)
        if options.compare:
            self._compare(picture, restored, job)
        if options.profile:
            self.timelines[job.source_name] = timeline
        size = {"w": picture.width, "h": picture.height, "out_w": restored.width, "out_h": restored.height}
        named = {} if mask is None else {"mask": str(mask)}
        return {**size, **named, "tile": tile, "ms": timeline.milliseconds()}

    def _read(self, job: Job) -> Picture:
        """Read an image of which the result has no more pixels than the limit."""
        limit, factor = self.options.max_pixels, self.restorer.info.upscale
        try:
            return read_source(job, limit // factor**2)
        except ImageTooLargeError as error:
            if factor == 1:
                raise
            raise ImageTooLargeError(f"{error}, for {limit} when it is enlarged {factor} times") from error

    def _hole(self, job: Job, picture: Picture) -> tuple[Path | None, U8 | None]:
        """Return the image's mask file and the hole in it; nothing where there are no masks."""
        if self.masks is None:
            return None, None
        file = self.masks.file_of(job)
        hole = self.masks.hole_of(file, picture, job.source_name)
        if not hole.any():
            self.report.warn(f"the mask {file} has no hole, so nothing of {job.source_name} is filled")
        return file, hole

    def _observer(self, job: Job, timeline: Timeline) -> Observer:
        def observe(phase: str, row: int, rows: int, tile: int, tiles: int, begin_ns: int, end_ns: int) -> bool:
            timeline.observe(phase, row, rows, tile, tiles, begin_ns, end_ns)
            if phase == "network":
                self.report.progress(job.source_name, (row + tile / tiles) / rows)
            return self.stop.signal is not None

        return observe

    def _compare(self, before: Picture, after: Picture, job: Job) -> None:
        facts = self.facts
        nfe = f"{facts['nfe']}" if facts["ensemble"] == 1 else f"{facts['nfe']} x {facts['ensemble']}"
        labels = (
            f"before: {Path(job.source_name).name}",
            f"after: {facts['model']}, NFE {nfe}, {facts['sampler']}",
        )
        try:
            write(compare(before, after, labels), Path(self.options.compare))
        except Exception as error:  # the image itself is restored and written
            self.report.trouble(failure_of(error, job))


def _check_task(info: ModelInfo, masked: bool) -> None:
    """Refuse holes for a model that knows none, and a model of holes without any."""
    if masked and not info.fills_holes:
        raise UsageError(f"the model {info.name} fills no holes (its task is {info.task}), so it takes no --mask")
    if info.fills_holes and not masked:
        raise UsageError(f"the model {info.name} fills holes: name them with --mask")
