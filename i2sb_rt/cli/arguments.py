"""The arguments that the commands working on images share."""

from __future__ import annotations

import argparse
import re
from typing import Any, Final

ENGINES: Final = ("auto", "native", "torch", "cuda")
PRECISIONS: Final = ("auto", "fp32", "tf32", "bf16", "fp16")


def add_images(parser: Any) -> None:
    """Add where images come from and go to: inputs, input, output."""
    parser.add_argument("inputs", nargs="*", metavar="INPUT", help="files, folders, glob patterns, or - for stdin")
    parser.add_argument("-i", "--input", nargs="+", action="extend", default=[], metavar="INPUT", help="more inputs")
    parser.add_argument("-o", "--output", required=True, metavar="PATH", help="a file, a folder, or - for stdout")


def add_ensemble(parser: Any) -> None:
    """Add how many copies of an image are restored: ensemble."""
    text = "mean over so many copies of the image, mirrored and turned: truer, as many times as long (default: 1)"
    parser.add_argument("--ensemble", type=int, choices=(1, 2, 4, 8), default=1, help=text)


def add_speed(parser: Any) -> None:
    """Add a group with how the network is run: tile, tile_overlap, threads, jobs, engine, precision."""
    speed = parser.add_argument_group("size and speed")
    tile = "tile side, counted in the result; 0: the whole image (default: auto, tiles where it exceeds the model's)"
    speed.add_argument("-t", "--tile", type=_tile, default="auto", metavar="auto|0|N", help=tile)
    speed.add_argument("--tile-overlap", type=int, metavar="N", help="overlap of tiles (default: the model's own)")
    speed.add_argument(
        "--jobs", type=at_least_one, metavar="N", help="images at work at once (default: by images and threads)"
    )
    speed.add_argument(
        "--batch", type=at_least_one, metavar="N", help="images or tiles that a GPU takes together (default: 1)"
    )
    add_engine(speed)


def add_engine(group: Any) -> None:
    """Add what runs the network: threads, engine, precision."""
    group.add_argument("--threads", type=at_least_one, metavar="N", help="CPU threads (default: one a core)")
    names = "auto, native, torch, cuda, FILE.engine (auto)"
    group.add_argument("--engine", type=_engine, default="auto", metavar="NAME", help=names)
    group.add_argument("--precision", choices=PRECISIONS, default="auto", help="(default: auto)")


def add_list(parser: Any, name: str, kind: Any, metavar: str, text: str, required: bool = False) -> None:
    """Add an option that takes several values, with commas between them or given again."""
    parser.add_argument(name, type=kind, action="extend", required=required, default=[], metavar=metavar, help=text)


def add_files(parser: Any) -> Any:
    """Add a group with what is done about files and failures, and what is told of them; return the group."""
    files = parser.add_argument_group("files")
    files.add_argument(
        "--max-pixels", type=_count, default=128_000_000, metavar="N", help="refuse larger images, e.g. 4M (128M)"
    )
    files.add_argument("--overwrite", action="store_true", help="let outputs replace inputs")
    files.add_argument("--skip-existing", action="store_true", help="leave out images whose output exists")
    files.add_argument("--fail-fast", action="store_true", help="stop at the first image that fails")
    files.add_argument("--json", action="store_true", help="print one JSON line an image and a summary line")
    files.add_argument("-q", "--quiet", action="store_true", help="print nothing but errors")
    return files


def at_least_one(text: str) -> int:
    """Read a whole number of at least 1."""
    if not re.fullmatch("[0-9]{1,9}", text) or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def words(text: str) -> list[str]:
    """Read words with commas between them."""
    return [word.strip() for word in text.split(",")]


def _engine(text: str) -> str:
    if text not in ENGINES and not text.endswith(".engine"):
        raise argparse.ArgumentTypeError(f"one of {', '.join(ENGINES)}, or FILE.engine, not {text!r}")
    return text


def _tile(text: str) -> str | int:
    if text == "auto":
        return text
    if not re.fullmatch("[0-9]{1,9}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is neither auto, 0, nor the side of a tile in pixels")
    return int(text)


def _count(text: str) -> int:
    match = re.fullmatch("([0-9]{1,12})([kMG]?)", text)
    if match is None or not int(match[1]):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of pixels such as 4000000 or 4M")
    return int(match[1]) * {"": 1, "k": 10**3, "M": 10**6, "G": 10**9}[match[2]]
