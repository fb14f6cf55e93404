"""The work of i2sb-rt bench: opens the engines, has them timed, and tells what came out."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any, Final

import numpy as np

from i2sb_rt import inventory, models
from i2sb_rt.cli import stdout
from i2sb_rt.cli.image_run import stoppable
from i2sb_rt.cli.report import printable, told
from i2sb_rt.cli.stop import Stop
from i2sb_rt.errors import CancelledError, DeviceError, I2SBError, UsageError
from i2sb_rt.evaluation.drawn import drawn_picture
from i2sb_rt.evaluation.rows import markdown
from i2sb_rt.evaluation.speed import Way, Work, measure
from i2sb_rt.image import MAX_PIXELS, U8
from i2sb_rt.model_file import ModelInfo, file_sha256, read_info
from i2sb_rt.restorer import Restorer, load

# What PyTorch as it comes makes of a network is what the others are measured by.
ENGINES: Final = ("torch", "native", "cuda")
SIDE: Final = 512
_HEAD: Final = ("engine", "precision", "ready [s]", "ms a picture", "a second", "in the network", "times", "PSNR [dB]")


def run(options: argparse.Namespace) -> int:
    """Measure what the options name; return the exit code."""
    if options.size and options.size[0] * options.size[1] > MAX_PIXELS:
        raise UsageError(f"--size {options.size[0]}x{options.size[1]} is more than {MAX_PIXELS:,} pixels")
    return stoppable(lambda stop: _bench(options, stop), MAX_PIXELS)


def _bench(options: argparse.Namespace, stop: Stop) -> int:
    info = read_info(models.find(options.model))
    ways = list(_ways(options, info))
    work = _work(options, info)
    about = _about(ways[0].restorer, work)
    try:
        measure(ways, work, options.seconds, lambda: stop.signal is not None)
    except CancelledError:
        return 128 + (stop.signal or 0)
    if options.json:
        for record in _records(ways, about):
            stdout.say(json.dumps(record, allow_nan=False))
    elif any(way.error is None for way in ways):
        stdout.say(_text(ways, about))
    code = 0
    for way in ways:
        if way.error is not None:
            print(f"i2sb-rt: not timed, {way.name}: {printable(str(way.error))}", file=sys.stderr)
            code = code or int(way.error.exit_code)
    return code


def _ways(options: argparse.Namespace, info: ModelInfo) -> Iterator[Way]:
    """Open each engine in each precision, no two alike; one that is not asked for by name is left out if it fails."""
    found: set[tuple[str, str]] = set()
    failures: dict[str, I2SBError] = {}
    for name in options.engine or (("native",) if info.is_quantized else ENGINES):
        for precision in ["auto"] if name.endswith(".engine") else options.precision or ["fp32", "auto"]:
            begin = time.perf_counter()
            try:
                restorer = _opened(options, name, precision)
            except (DeviceError, UsageError) as error:
                if options.engine:
                    raise
                failures.setdefault(name, error)
                continue
            if (name, restorer.precision) not in found:
                found.add((name, restorer.precision))
                yield Way(restorer, time.perf_counter() - begin)
    if not found:
        raise next(iter(failures.values()))
    for name, failure in failures.items():
        if not options.quiet:
            print(f"i2sb-rt: left out, {name}: {printable(str(failure))}", file=sys.stderr)


def _opened(options: argparse.Namespace, name: str, precision: str) -> Restorer:
    on_gpu = name == "cuda" or name.endswith(".engine")
    batch = options.batch if on_gpu else None
    jobs = options.jobs or (None if on_gpu else 1)  # a GPU has twice its batch at work
    return load(options.model, name, options.threads, precision, jobs, batch)


def _work(options: argparse.Namespace, info: ModelInfo) -> Work:
    """Draw what is restored: for models that fill holes with one in the middle, a quarter of the picture."""
    side = info.tile if info.minimum == info.tile else SIDE
    width, height = options.size or (side, side)
    picture = drawn_picture(info.channels, height, width, np.random.default_rng(0))
    mask: U8 | None = None
    if info.fills_holes:
        mask = np.zeros((height, width), np.uint8)
        mask[height // 4 : height // 4 + -(-height // 2), width // 4 : width // 4 + -(-width // 2)] = 1
    count = options.jobs or (2 * options.batch if options.batch and options.batch > 1 else 1)
    return Work(pictures=[picture] * count, mask=mask, nfe=options.nfe, sampler=options.sampler)


def _about(restorer: Restorer, work: Work) -> dict[str, Any]:
    """Return what holds of all ways. Raises UsageError for a plan or a size that the model does not take."""
    height, width = work.pictures[0].shape[:2]
    plan = restorer.plan(work.nfe, work.sampler)
    return {
        "schema": 1,
        "model": restorer.info.name,
        "model_sha256": file_sha256(restorer.path),
        "w": width,
        "h": height,
        "nfe": plan.nfe,
        "sampler": work.sampler or restorer.info.sampler,
        "tile": restorer.tile_of(width, height),
        "pictures": len(work.pictures),
        "cpu": asdict(inventory.cpu()),
        "gpus": [asdict(card) for card in inventory.gpus()],
    }


def _records(ways: list[Way], about: dict[str, Any]) -> Iterator[dict[str, Any]]:
    first = next((way for way in ways if way.error is None), None)
    for way in ways:
        engine = way.restorer.engine
        what = {"engine": engine.name, "precision": engine.precision, "library": inventory.library_of(engine)}
        if way.error is None and first is not None:
            yield {**about, **what, "status": "ok", **way.record(first)}
        elif way.error is not None:
            yield {**about, **what, "status": "failed", "error": told(way.error)}


def _text(ways: list[Way], about: dict[str, Any]) -> str:
    """Return a line of what was run and where, and a table."""
    timed = [way for way in ways if way.error is None]
    lines: list[tuple[str, ...]] = [_HEAD]
    for way in timed:
        found = way.record(timed[0])
        share = "" if found["network_share"] is None else f"{100 * found['network_share']:.1f}%"
        close = "equal" if found["psnr"] is None else f"{found['psnr']:.1f}"
        figures = (f"{found['ready_s']:.1f}", f"{found['ms']:.1f}", f"{1e3 / found['ms']:.2f}", share)
        lines.append((way.restorer.engine_name, way.restorer.precision, *figures, f"{found['times']:.2f} x", close))
    calls = f"{about['nfe']} network call{'' if about['nfe'] == 1 else 's'} of {about['sampler']}"
    many = "" if about["pictures"] == 1 else f", {about['pictures']} pictures at once"
    cards = "".join(f", {card['name']}" for card in about["gpus"])
    where = f"{about['cpu']['name']}, {about['cpu']['cores']} cores, {about['cpu']['isa']}{cards}"
    head = printable(f"{about['model']}, {about['w']}x{about['h']}, {calls}{many}; {where}")
    return f"{head}\n\n{markdown(lines, text=2)}"
