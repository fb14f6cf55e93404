"""The work of i2sb-rt sample and translate."""

from __future__ import annotations

import argparse
import io
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from i2sb_rt.cli import restore_run
from i2sb_rt.cli.image_run import stoppable
from i2sb_rt.cli.report import line, printable
from i2sb_rt.cli.stop import Stop
from i2sb_rt.errors import CancelledError, ImageBrokenError, ImageMissingError, UsageError
from i2sb_rt.image import MAX_PIXELS, Picture, encode, format_of, write_bytes
from i2sb_rt.sampling import seed_list
from i2sb_rt.transport import Transport, find_transport, load_transport

if TYPE_CHECKING:
    from i2sb_rt._core import Observer

F32 = NDArray[np.float32]


def run_sample(options: argparse.Namespace) -> int:
    """Draw samples and write them; return the exit code."""
    target = Path(options.output)
    seed_list(options.seed, 1)
    as_array = _is_array(target)
    if not as_array:
        format_of(target)
    if options.trajectory and not as_array:
        raise UsageError(f"{target}: a trajectory is written to a .npy file")

    def work(stop: Stop) -> int:
        transport = _loaded(options, "backward", options.count)
        if not as_array and transport.info.channels not in (1, 3):
            raise UsageError(f"{target}: {transport.info.name} makes points, which are written to a .npy file")
        began = time.perf_counter()
        states = _until_stopped(
            stop, lambda watch: transport.sample(options.count, options.seed, options.nfe, options.trajectory, watch)
        )
        if states is None:
            return 128 + (stop.signal or 0)
        if as_array:
            _save(states[..., 0, 0] if transport.info.holds_points else states, target)
        else:
            write_bytes(encode(Picture(grid(states)), format_of(target), str(target)), target)
        _tell(options.quiet, transport, len(states), target, began)
        return 0

    return stoppable(work, MAX_PIXELS)


def run_translate(options: argparse.Namespace) -> int:
    """Carry images, or the points of one .npy file, to the other end; return the exit code."""
    direction = "backward" if options.reverse else "forward"
    inputs = [*options.inputs, *options.input]
    if not any(_is_array(Path(text)) for text in inputs):
        # An image is carried as it is restored: any size, in tiles, grey or colour, each file failing on its own.
        options.model = str(find_transport(Path(options.model), direction)[0])
        unset = {
            "sampler": None,
            "eta": None,
            "ensemble": 1,
            "mask": None,
            "mask_invert": False,
            "compare": None,
            "profile": None,
        }
        return restore_run.run(argparse.Namespace(**{**vars(options), **unset}))
    return _translate_points(options, inputs, direction)


def _translate_points(options: argparse.Namespace, inputs: list[str], direction: str) -> int:
    source, target = Path(inputs[0]), Path(options.output)
    if len(inputs) > 1 or not _is_array(target):
        raise UsageError("points are carried from one .npy file to one .npy file")
    if target.resolve() == source.resolve() and not options.overwrite:
        raise UsageError(f"{target} is an input and would be replaced; --overwrite allows it")
    if options.json:
        raise UsageError("--json tells of images; a .npy file has no lines of its own")
    if options.skip_existing and target.exists():
        if not options.quiet:
            print(line({"status": "skipped", "in": str(source), "out": str(target)}), file=sys.stderr)
        return 0
    seed_list(options.seed, 1)
    points = _load(source)

    def work(stop: Stop) -> int:
        transport = _loaded(options, direction, len(points) if points.ndim else 1)
        began = time.perf_counter()
        try:
            carried = _until_stopped(
                stop, lambda watch: transport.translate(points, options.seed, options.nfe, observer=watch)
            )
        except UsageError as error:
            raise UsageError(f"{source}: {error}") from error
        if carried is None:
            return 128 + (stop.signal or 0)
        _save(carried, target)
        _tell(options.quiet, transport, len(carried), target, began)
        return 0

    return stoppable(work, options.max_pixels)


def _loaded(options: argparse.Namespace, direction: str, states: int) -> Transport:
    return load_transport(options.model, direction, options.engine, options.threads, options.precision, states)


def grid(states: F32) -> NDArray[np.uint8]:
    """Lay images [n, C, H, W] out as one picture, uint8 [H', W'] or [H', W', 3], a pixel apart, nearly square."""
    count, channels, height, width = states.shape
    columns = math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    pixels = np.rint((states.clip(-1, 1) + 1) * 127.5).astype(np.uint8)
    whole = np.full((rows * (height + 1) - 1, columns * (width + 1) - 1, channels), 255, np.uint8)
    for k, image in enumerate(pixels):
        top, left = k // columns * (height + 1), k % columns * (width + 1)
        whole[top : top + height, left : left + width] = image.transpose(1, 2, 0)
    return whole[..., 0] if channels == 1 else whole


def _is_array(path: Path) -> bool:
    return path.suffix.lower() == ".npy"


def _until_stopped(stop: Stop, work: Callable[[Observer], F32]) -> F32 | None:
    """Run the work; None where a signal stopped it."""
    try:
        return work(lambda *_: stop.signal is not None)
    except CancelledError:
        return None


def _load(path: Path) -> NDArray[np.generic]:
    """Read a .npy file, without its pickles. Raises ImageMissingError, ImageBrokenError."""
    try:
        with path.open("rb") as file:
            found: NDArray[np.generic] = np.lib.format.read_array(file, allow_pickle=False)
    except OSError as error:
        raise ImageMissingError(f"{path} cannot be read: {error.strerror or error}") from error
    except Exception as error:  # a damaged header may end in any
        reason = str(error) or type(error).__name__
        raise ImageBrokenError(f"{path} is not a .npy file of numbers: {reason}") from error
    return found


def _save(values: F32, path: Path) -> None:
    buffer = io.BytesIO()
    np.save(buffer, values)
    write_bytes(buffer.getvalue(), path)


def _tell(quiet: bool, transport: Transport, count: int, target: Path, began: float) -> None:
    if not quiet:
        spent = time.perf_counter() - began
        text = f"{count} of {transport.info.name} ({transport.engine.name}, {spent:.2f} s) -> {target}"
        print(printable(text), file=sys.stderr)
