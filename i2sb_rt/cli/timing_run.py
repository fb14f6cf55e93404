"""The work of i2sb-rt bench: opens the engines, has them timed, and tells what came out."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from typing import Any, Final

import numpy as np

from i2sb_rt import inventory, models
from i2sb_rt.cli import stdout
from i2sb_rt.cli.image_run import stoppable
from i2sb_rt.cli.report import printable, told
from i2sb_rt.cli.stop import Stop
from i2sb_rt.errors import CancelledError, DeviceError, UsageError
from i2sb_rt.evaluation.drawn import drawn_picture
from i2sb_rt.evaluation.rows import markdown
from i2sb_rt.evaluation.speed import Way, Work, measure
from i2sb_rt.image import MAX_PIXELS, U8
from i2sb_rt.model_file import ModelInfo, file_sha256, read_info
from i2sb_rt.parallel import cores
from i2sb_rt.restorer import Restorer, load

# What PyTorch as it comes makes of a network is what the others are measured by.
WAYS: Final = (("torch", "fp32"), ("native", "fp32"), ("native", "auto"), ("cuda", "auto"))
SIDE: Final = 512
_HEAD: Final = ("way", "precision", "ready [s]", "ms a picture", "a second", "in the network", "speedup", "PSNR [dB]")


def run(options: argparse.Namespace) -> int:
    """Measure what the options name; return the exit code."""
    return stoppable(lambda stop: _bench(options, stop), MAX_PIXELS)


def _bench(options: argparse.Namespace, stop: Stop) -> int:
    info = read_info(models.find(options.model))
    width, height = _size(options, info)
    ways = list(_opened(options, info, (width, height)))
    on_gpu = any(way.restorer.engine_name in ("cuda", inventory.TENSORRT) for way in ways)
    if options.batch and not on_gpu:
        raise UsageError(f"--batch {options.batch} is for engines on a GPU, and none of the ways is one")
    count = options.jobs or (2 * options.batch if options.batch and options.batch > 1 else 1)
    picture = _drawn(info.channels, height, width)
    mask = _hole(height, width) if info.fills_holes else None
    work = Work(pictures=[picture] * count, mask=mask, nfe=options.nfe, sampler=options.sampler)
    about = _about(options, ways[0].restorer, work)

    def tell(way: Way) -> None:
        _say(options, f"{way.named}: ready after {way.ready:.1f} s")

    with suppress(CancelledError):
        measure(ways, work, options.seconds, lambda: stop.signal is not None, tell)
    return _tell(options, ways, about, stop)


def _size(options: argparse.Namespace, info: ModelInfo) -> tuple[int, int]:
    side = info.tile if info.minimum == info.tile else SIDE
    width, height = options.size or (side, side)
    if width * height > MAX_PIXELS:
        raise UsageError(f"--size {width}x{height} is more than {MAX_PIXELS:,} pixels")
    return width, height


def _opened(options: argparse.Namespace, info: ModelInfo, size: tuple[int, int]) -> Iterator[Way]:
    """Open each way that is asked for, or those that can be had here, no two of them alike.

    Each engine is tried with a small model before, so that what a process loads once is not counted.
    """
    wanted = options.way or ([("native", "auto")] if info.is_quantized else WAYS)
    kinds = [inventory.TENSORRT if name.endswith(".engine") else name for name, _ in wanted]
    missing = {kind: why for kind in dict.fromkeys(kinds) if (why := inventory.offer(kind).missing)}
    if missing and (options.way or len(missing) == len(set(kinds))):
        raise DeviceError("; ".join(missing.values()))
    for kind, why in missing.items():
        _say(options, f"left out, {kind}: {why}")
    found: set[tuple[str, str]] = set()
    for (name, precision), kind in zip(wanted, kinds, strict=True):
        if kind in missing:
            continue
        begin = time.perf_counter()
        restorer = _restorer(options, name, precision)
        took = time.perf_counter() - begin
        if not found:  # a plan or a size that the model does not take is refused before others are opened
            restorer.plan(options.nfe, options.sampler)
            restorer.tile_of(*size)
        if options.way or (name, restorer.precision) not in found:
            found.add((name, restorer.precision))
            yield Way(name if precision == "auto" else f"{name}:{precision}", restorer, took)


def _restorer(options: argparse.Namespace, name: str, precision: str) -> Restorer:
    on_gpu = name == "cuda" or name.endswith(".engine")
    batch = options.batch if on_gpu else None
    jobs = options.jobs or (None if on_gpu else 1)  # a GPU has twice its batch at work
    return load(options.model, name, options.threads, precision, jobs, batch)


def _drawn(channels: int, height: int, width: int) -> U8:
    """Draw a picture [H, W, C] that repeats itself, so that a large one takes no more memory than its bytes."""
    piece = drawn_picture(channels, min(height, SIDE), min(width, SIDE), np.random.default_rng(0))
    return np.tile(piece, (-(-height // SIDE), -(-width // SIDE), 1))[:height, :width]


def _hole(height: int, width: int) -> U8:
    """Return a mask with a hole in the middle, a quarter of the picture."""
    mask = np.zeros((height, width), np.uint8)
    mask[height // 4 : height // 4 + -(-height // 2), width // 4 : width // 4 + -(-width // 2)] = 1
    return mask


def _about(options: argparse.Namespace, restorer: Restorer, work: Work) -> dict[str, Any]:
    """Return what holds of all ways."""
    height, width = work.pictures[0].shape[:2]
    return {
        "schema": 1,
        "model": restorer.info.name,
        "model_sha256": file_sha256(restorer.path),
        "w": width,
        "h": height,
        "nfe": restorer.plan(work.nfe, work.sampler).nfe,
        "sampler": work.sampler or restorer.info.sampler,
        "tile": restorer.tile_of(width, height),
        "pictures": len(work.pictures),
        "threads": options.threads or cores(),
        "batch": options.batch or 1,
        "cpu": asdict(inventory.cpu()),
        "gpus": [asdict(card) for card in inventory.gpus()],
    }


def _tell(options: argparse.Namespace, ways: list[Way], about: dict[str, Any], stop: Stop) -> int:
    """Print what was measured, and return the exit code."""
    timed = [way for way in ways if way.each and way.error is None]
    if options.json:
        for record in _records(ways, timed, about):
            stdout.say(json.dumps(record, allow_nan=False))
    elif timed:
        stdout.say(_text(timed, about))
    failures = [(way.named, way.error) for way in ways if way.error is not None]
    for named, error in failures:
        print(f"i2sb-rt: {printable(f'{named} was not timed: {error}')}", file=sys.stderr)
    if stop.signal is not None:
        return 128 + stop.signal
    return int(failures[0][1].exit_code) if failures else 0


def _records(ways: list[Way], timed: list[Way], about: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for way in ways:
        engine = way.restorer.engine
        what = {"way": way.named, "engine": engine.name, "precision": engine.precision}
        what["library"] = inventory.library_of(engine)
        if way.error is not None:
            yield {**about, **what, "status": "failed", "error": told(way.error)}
        elif way in timed:
            yield {**about, **what, "status": "ok", **way.record(timed[0])}


def _text(timed: list[Way], about: dict[str, Any]) -> str:
    """Return a line of what was run and where, and a table."""
    lines: list[tuple[str, ...]] = [_HEAD]
    for way in timed:
        found = way.record(timed[0])
        share = "" if found["network_share"] is None else f"{100 * found['network_share']:.1f}%"
        close = "equal" if found["psnr"] is None else f"{found['psnr']:.1f}"
        figures = (f"{found['ready_s']:.1f}", f"{found['ms']:.1f}", f"{1e3 / found['ms']:.2f}", share)
        lines.append((printable(way.named), way.restorer.precision, *figures, f"{found['speedup']:.2f} x", close))
    calls = f"{about['nfe']} network call{'' if about['nfe'] == 1 else 's'} of {about['sampler']}"
    many = "" if about["pictures"] == 1 else f", {about['pictures']} pictures at once"
    many += "" if about["batch"] == 1 else f" in batches of {about['batch']}"
    cards = "".join(f", {card['name']}" for card in about["gpus"])
    threads = f"{about['threads']} thread{'' if about['threads'] == 1 else 's'}"
    where = f"{about['cpu']['name']}, {threads}, {about['cpu']['isa']}{cards}"
    head = f"{about['model']}, {about['w']}x{about['h']}, {calls}{many}; {where}"
    return f"{printable(head)}\n\n{markdown(lines, text=2)}"


def _say(options: argparse.Namespace, text: str) -> None:
    if not options.quiet:
        print(f"i2sb-rt: {printable(text)}", file=sys.stderr)
