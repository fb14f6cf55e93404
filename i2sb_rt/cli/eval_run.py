"""The work of i2sb-rt eval, picture by picture."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from i2sb_rt import operators
from i2sb_rt.cli import stdout
from i2sb_rt.cli.image_run import ImageRun, Outcome, check_tiles, read_source, stoppable
from i2sb_rt.cli.jobs import Job, inside, is_folder, is_there, plan_jobs
from i2sb_rt.cli.report import Report
from i2sb_rt.cli.stop import Stop
from i2sb_rt.errors import UsageError
from i2sb_rt.evaluation import baselines, plot
from i2sb_rt.evaluation.rows import Judged, Row, rows_of, table
from i2sb_rt.evaluation.scores import OF_SETS, Score, Scorer
from i2sb_rt.image import MAX_PIXELS, U8, Picture, write
from i2sb_rt.model_file import ModelInfo, file_sha256
from i2sb_rt.operators import Operator
from i2sb_rt.operators.pictures import degrade
from i2sb_rt.parallel import Room, cores, default_jobs
from i2sb_rt.restorer import Restorer, load
from i2sb_rt.sampling import seed_list
from i2sb_rt.timeline import Timeline

if TYPE_CHECKING:
    from i2sb_rt._core import Observer

# Of all pictures at work at once: SSIM alone takes about 500 bytes a pixel.
PIXELS_AT_WORK: Final = 16_000_000


def run(options: argparse.Namespace) -> int:
    """Evaluate what the options name; return the exit code."""
    tasks = [operators.get(name) for name in _once(options.task)]
    metrics = _once(options.metrics) or ["psnr", "ssim"]
    jobs = _jobs(options)
    _check(options, jobs, metrics)
    scorer = Scorer(metrics)
    drawn: list[Row] = []
    code = stoppable(lambda stop: _evaluate(options, jobs, tasks, scorer, drawn, stop), MAX_PIXELS)
    if drawn:  # in this thread: fonts that matplotlib opens do not outlive theirs
        plot.plot(drawn, Path(options.model).stem, Path(options.plot))
    return code


def _jobs(options: argparse.Namespace) -> list[Job]:
    """Return a job for each clean picture; its target is where it would lie directly below --save."""
    folder, save = Path(options.images), options.save
    if not is_folder(folder):
        raise UsageError(f"--images {folder}: there is no such folder")
    if save is None:  # then nothing is written, and no output can replace an input
        jobs = [replace(job, target=None) for job in plan_jobs([f"{folder}/"], f"{folder}/", overwrite=True)]
    elif inside(folder, Path(save)):
        raise UsageError(f"--save {save} would put restored pictures among the clean ones in {folder}")
    elif is_there(Path(save)) and not is_folder(Path(save)):
        raise UsageError(f"--save {save} is a file, not a folder")
    else:
        jobs = plan_jobs([f"{folder}/"], f"{save}/")
    return jobs[: options.limit]


def _check(options: argparse.Namespace, jobs: list[Job], metrics: Sequence[str]) -> None:
    """Refuse what cannot work before any work begins."""
    seed_list(options.seed, 1)
    for name in set(metrics) & set(OF_SETS):
        if len(jobs) < 2:
            raise UsageError(f"the metric {name} compares sets of pictures, so one picture is too few")
    if options.plot:
        for folder in (options.images, options.save):
            if folder is not None and inside(Path(options.plot), Path(folder)):
                raise UsageError(f"--plot {options.plot} would lie among the pictures in {folder}")
        plot.check(Path(options.plot))


def _evaluate(
    options: argparse.Namespace,
    jobs: list[Job],
    tasks: list[Operator],
    scorer: Scorer,
    drawn: list[Row],
    stop: Stop,
) -> int:
    """Evaluate and tell the rows; return the exit code. drawn: takes the rows that are to be drawn."""
    at_once = options.jobs or default_jobs(len(jobs), options.threads or cores(), options.batch or 1)
    restorer = load(options.model, options.engine, options.threads, options.precision, at_once, options.batch)
    run = _Run(options, restorer, tasks, scorer, jobs, stop)
    run.process_all(jobs, at_once)
    run.report.clear()
    rows = run.rows()
    if options.json:
        for row in rows:
            stdout.say(json.dumps({"schema": 1, **run.about_all, **row.record()}, allow_nan=False))
    elif rows:
        stdout.say(table(rows))
    if options.plot and stop.signal is None:
        drawn += [row for row in rows if row.nfe]  # a classical method is no point of a curve
    if run.cropped and not options.quiet:
        count = f"{len(run.cropped)} of {len(jobs)} pictures"
        print(f"i2sb-rt: {count} had their sides cropped to multiples of 4 for the tasks sr4x", file=sys.stderr)
    return run.report.finish(stop.signal)


class _Run(ImageRun):
    """What is the same for every picture of a run."""

    def __init__(
        self,
        options: argparse.Namespace,
        restorer: Restorer,
        tasks: list[Operator],
        scorer: Scorer,
        jobs: list[Job],
        stop: Stop,
    ) -> None:
        super().__init__(options, stop, Report(len(jobs), options.json, options.quiet, each=False))
        self.restorer, self.tasks, self.scorer = restorer, tasks, scorer
        for operator in tasks:
            _check_task(operator, restorer.info)
            self._baseline(operator)
        check_tiles(options, restorer)
        samplers = _once(options.sampler) or [restorer.info.sampler]
        counts = _once(options.nfe) or [restorer.info.nfe]
        ways = [(sampler, nfe) for sampler in samplers for nfe in counts]
        self.plans = {(sampler, nfe): restorer.plan(nfe, sampler, options.eta) for sampler, nfe in ways}
        self.numbers = {job: number for number, job in enumerate(jobs)}
        self.judged: dict[Job, list[Judged]] = {}
        self.cropped: set[Job] = set()
        self.room = Room(PIXELS_AT_WORK)

    @cached_property
    def about_all(self) -> dict[str, Any]:
        """What the JSON lines of all rows say alike."""
        restorer = self.restorer
        return {
            "model": restorer.info.name,
            "model_sha256": file_sha256(restorer.path),
            "seed": self.options.seed,
            "eta": self.options.eta,
            "ensemble": self.options.ensemble,
            "precision": restorer.precision,
            "engine": restorer.engine_name,
        }

    def rows(self) -> list[Row]:
        """Return the rows over all pictures that came through every task."""
        done = [self.judged[job] for job in self.numbers if job in self.judged]
        if not done:
            return []
        columns = zip(self.tasks, zip(*done, strict=True), strict=True)
        rows: list[Row] = []
        for task, judged in columns:
            rows += rows_of(task.name, [*self._baseline(task), *self.plans], judged, self.scorer)
        return rows

    def _baseline(self, task: Operator) -> list[tuple[str, int]]:
        """Return what the row of the classical method is called, if it is asked for and there is one."""
        name = baselines.baseline(task) if self.options.baseline else None
        return [] if name is None else [(name, 0)]

    def process(self, job: Job) -> Outcome | None:
        """Process one picture as other commands do, but tell of no output."""
        outcome = super().process(job)
        if outcome is not None:
            outcome[0].pop("out")
        return outcome

    def work(self, job: Job) -> dict[str, Any]:
        """Damage, restore and score one picture in every task."""
        timeline = Timeline()
        self.report.progress(job.source_name, 0)
        with timeline.span("total"):
            picture = read_source(job, MAX_PIXELS)
            with self.room.of(picture.width * picture.height):
                self.judged[job] = [self._judge(job, picture, number) for number in range(len(self.tasks))]
        return {"w": picture.width, "h": picture.height, "ms": timeline.milliseconds()}

    def _judge(self, job: Job, picture: Picture, number: int) -> Judged:
        """Return what becomes of a clean picture in the task of this number."""
        operator, enlarges = self.tasks[number], self.restorer.info.upscale
        seed = (self.options.seed + self.numbers[job]) % 2**64
        whole = _cropped(picture, operator.factor)
        if whole is not picture:
            self.cropped.add(job)
        mask = operator.mask(whole.height, whole.width, seed)
        damaged = degrade(whole, operator, seed, mask, full_size=enlarges == 1)
        clean, given = _rgb(whole), _rgb(damaged).repeat(enlarges, axis=0).repeat(enlarges, axis=1)
        before = self.scorer.score(clean, given)
        after: list[Score] = []
        for method, _ in self._baseline(operator):
            small = _rgb(damaged)[:: operator.factor // enlarges, :: operator.factor // enlarges]
            classical = baselines.lanczos(small, operator.factor) if mask is None else baselines.telea(small, mask)
            self._save(Picture(classical, None, None), job, operator.name, method)
            after.append(self.scorer.score(clean, classical))
        for way, ((sampler, nfe), plan) in enumerate(self.plans.items()):
            restored = self.restorer.restore_picture(
                damaged,
                plan,
                seed=seed,
                mask=mask,
                tile=self.options.tile,
                overlap=self.options.tile_overlap,
                threads=self.options.threads,
                ensemble=self.options.ensemble,
                observer=self._observer(job, number, way),
            )
            self._save(restored, job, operator.name, f"{sampler}-{nfe}")
            after.append(self.scorer.score(clean, _rgb(restored)))
        about = {"in": job.source_name, "w": whole.width, "h": whole.height}
        return Judged(about, self.scorer.features(clean), before, tuple(after))

    def _observer(self, job: Job, task: int, way: int) -> Observer:
        """Return what shows how far this restoration is, of all of this picture, and stops it where that is asked."""
        calls = [nfe for _, nfe in self.plans]
        begun, whole = task * sum(calls) + sum(calls[:way]), len(self.tasks) * sum(calls)

        def observe(phase: str, row: int, rows: int, tile: int, tiles: int, begin_ns: int, end_ns: int) -> bool:
            if phase == "network":
                self.report.progress(job.source_name, (begun + row + tile / tiles) / whole)
            return self.stop.signal is not None

        return observe

    def _save(self, restored: Picture, job: Job, *folders: str) -> None:
        if job.target is not None:
            write(restored, Path(self.options.save, *folders, job.target.relative_to(self.options.save)))


def _check_task(operator: Operator, info: ModelInfo) -> None:
    """Refuse a task that a model cannot be given: other sizes than its own, or holes where it knows none."""
    if info.upscale not in (1, operator.factor):
        gives = f"makes pictures {operator.factor} times smaller" if operator.factor > 1 else "keeps their size"
        raise UsageError(f"the model {info.name} enlarges {info.upscale} times, but {operator.name} {gives}")
    if info.fills_holes and operator.hole is None:
        raise UsageError(f"the model {info.name} fills holes, but {operator.name} makes none")
    if operator.hole is not None and not info.fills_holes:
        raise UsageError(
            f"the model {info.name} fills no holes (its task is {info.task}), but {operator.name} makes some"
        )


def _cropped(picture: Picture, factor: int) -> Picture:
    """Return the picture with sides that are multiples of a factor: what is over at the right and bottom is cut off."""
    height, width = (side // factor * factor for side in (picture.height, picture.width))
    if (height, width) == (picture.height, picture.width):
        return picture
    if not height or not width:
        raise UsageError(f"the tasks sr4x need sides of at least {factor} pixels")
    alpha = None if picture.alpha is None else picture.alpha[:height, :width]
    return replace(picture, colour=picture.colour[:height, :width], alpha=alpha)


def _rgb(picture: Picture) -> U8:
    """Return the colours, [H, W, 3]; transparency is left out."""
    grey = picture.colour.ndim == 2
    return np.repeat(picture.colour[..., None], 3, axis=2) if grey else picture.colour


def _once(values: Sequence[Any]) -> list[Any]:
    """Return the values without repetitions, in their order."""
    return list(dict.fromkeys(values))
