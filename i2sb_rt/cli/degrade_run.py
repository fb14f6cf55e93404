"""The work of i2sb-rt degrade, image by image."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any, Final

import numpy as np

from i2sb_rt import operators
from i2sb_rt.cli.image_run import ImageRun, check_streams, read_source, stoppable, write_target
from i2sb_rt.cli.jobs import Job, plan_jobs, without
from i2sb_rt.cli.report import Report
from i2sb_rt.cli.stop import Stop
from i2sb_rt.errors import UsageError
from i2sb_rt.image import Picture, write
from i2sb_rt.operators import Operator
from i2sb_rt.operators.pictures import degrade
from i2sb_rt.parallel import Room, cores, default_jobs
from i2sb_rt.sampling import seed_list
from i2sb_rt.timeline import Timeline

# Of all images at work at once: about 4 GB.
PIXELS_AT_WORK: Final = 16_000_000


def run(options: argparse.Namespace) -> int:
    """Damage everything that the options name; return the exit code."""
    inputs = [*options.inputs, *options.input]
    jobs = plan_jobs(inputs, options.output, options.overwrite)
    check_streams(options)
    seed_list(options.seed, 1)
    operator = operators.get(options.task)
    if options.full_size and operator.reduce is None:
        raise UsageError(f"--full-size: {operator.name} keeps the size of an image, so nothing is enlarged again")
    masks = {}
    if options.mask_out is not None:
        sources = {os.path.realpath(job.source) for job in jobs if job.source is not None}
        jobs = without(jobs, Path(options.mask_out))
        masks = _mask_files(options.mask_out, operator, inputs, jobs)
        for file in masks.values():
            if os.path.realpath(file) in sources and not options.overwrite:
                raise UsageError(f"--mask-out {file} is an input and would be replaced; --overwrite allows it")

    def work(stop: Stop) -> int:
        at_once = options.jobs or default_jobs(len(jobs), cores())
        run = _Run(options, operator, jobs, masks, stop)
        run.process_all(jobs, at_once)
        return run.report.finish(stop.signal)

    return stoppable(work, options.max_pixels)


def _mask_files(path: str, operator: Operator, inputs: list[str], jobs: list[Job]) -> dict[Path | None, Path]:
    """Return the mask's file of each input: where its image would go if the output were `path`."""
    if operator.hole is None:
        raise UsageError(f"--mask-out: {operator.name} makes no holes, so there is no mask to write")
    files = {job.source: job.target for job in plan_jobs(inputs, path)}
    masks = {job.source: file for job in jobs if (file := files.get(job.source)) and file.suffix.lower() == ".png"}
    if len(masks) < len(jobs):
        raise UsageError(f"--mask-out {path}: masks are written as .png files, to a file or a folder")
    outputs = {os.path.realpath(job.target) for job in jobs if job.target is not None}
    for file in masks.values():
        if os.path.realpath(file) in outputs:
            raise UsageError(f"--mask-out {file} would replace an output")
    return masks


class _Run(ImageRun):
    """What is the same for every image of a run. masks: the file for the mask of each input, if they are written."""

    def __init__(
        self,
        options: argparse.Namespace,
        operator: Operator,
        jobs: list[Job],
        masks: dict[Path | None, Path],
        stop: Stop,
    ) -> None:
        super().__init__(options, stop, Report(len(jobs), options.json, options.quiet))
        self.operator, self.masks = operator, masks
        self.facts = {"task": operator.name}
        self.numbers = {job: number for number, job in enumerate(jobs)}
        self.room = Room(PIXELS_AT_WORK)

    def side_files(self, job: Job) -> list[Path]:
        """Return the image's mask, if masks are written."""
        return [self.masks[job.source]] if self.masks else []

    def work(self, job: Job) -> dict[str, Any]:
        """Damage one image."""
        timeline, options = Timeline(), self.options
        seed = (options.seed + self.numbers[job]) % 2**64 if options.vary_seed else options.seed
        self.report.progress(job.source_name, 0)
        with timeline.span("total"):
            with timeline.span("decode"):
                picture = read_source(job, options.max_pixels)
            with timeline.span("degrade"), self.room.of(picture.width * picture.height):
                mask = self.operator.mask(picture.height, picture.width, seed)
                damaged = degrade(picture, self.operator, seed, mask, options.full_size)
            with timeline.span("encode"):
                if mask is not None and self.masks:
                    write(Picture(mask.astype(np.uint8) * 255), self.masks[job.source])
                write_target(damaged, job)
        size = {"w": picture.width, "h": picture.height, "out_w": damaged.width, "out_h": damaged.height}
        return {"seed": seed, **size, "ms": timeline.milliseconds()}
