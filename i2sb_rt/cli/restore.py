"""i2sb-rt restore: images in, restored images out."""

from __future__ import annotations

import argparse
import re
from typing import Any


def add_parser(subparsers: Any) -> None:
    """Add the command; nothing heavy is imported until it runs."""
    parser = subparsers.add_parser("restore", help="restore images", description="Restore images.")
    parser.set_defaults(run=_run)
    parser.add_argument("inputs", nargs="*", metavar="INPUT", help="files, folders, glob patterns, or - for stdin")
    parser.add_argument("-i", "--input", nargs="+", action="extend", default=[], metavar="INPUT", help="more inputs")
    parser.add_argument("-o", "--output", required=True, metavar="PATH", help="a file, a folder, or - for stdout")
    parser.add_argument("-n", "--model", default="jpeg", metavar="NAME|PATH", help="the model (default: jpeg)")
    parser.add_argument("--nfe", type=int, metavar="N", help="network calls an image (default: the model's own)")
    parser.add_argument(
        "--sampler", metavar="NAME", help="sde, ode, dbim1, dbim2, dbim3 or i3sb (default: the model's own)"
    )
    parser.add_argument("--eta", type=float, metavar="X", help="fresh noise, 0 .. 1: dbim1 (default 0), i3sb (0.6)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of every image's noise (default: 0)")
    holes = parser.add_argument_group("inpainting")
    holes.add_argument("--mask", metavar="FILE|DIR", help="a mask, or a folder of one an image; white is the hole")
    holes.add_argument("--mask-invert", action="store_true", help="black is the hole")
    tiles = parser.add_argument_group("size and speed")
    tiles.add_argument("-t", "--tile", type=_tile, default="auto", metavar="auto|0|N", help="tile side; 0: whole image")
    tiles.add_argument("--tile-overlap", type=int, metavar="N", help="overlap of tiles (default: the model's own)")
    tiles.add_argument("--threads", type=int, metavar="N", help="CPU threads (default: one a core)")
    tiles.add_argument("--jobs", type=int, metavar="N", help="images at work at once (default: by images and threads)")
    tiles.add_argument("--engine", choices=("auto", "native", "torch", "cuda"), default="auto", help="(default: auto)")
    tiles.add_argument(
        "--precision", choices=("auto", "fp32", "tf32", "bf16", "fp16"), default="auto", help="(default: auto)"
    )
    tiles.add_argument(
        "--max-pixels", type=_count, default=128_000_000, metavar="N", help="refuse larger images, e.g. 4M (128M)"
    )
    files = parser.add_argument_group("files")
    files.add_argument("--overwrite", action="store_true", help="let outputs replace inputs")
    files.add_argument("--skip-existing", action="store_true", help="leave out images whose output exists")
    files.add_argument("--fail-fast", action="store_true", help="stop at the first image that fails")
    files.add_argument("--compare", metavar="FILE", help="also draw before and after into one picture (one image)")
    files.add_argument("--profile", metavar="FILE", help="write where the time went, as a Chrome trace")
    files.add_argument("--json", action="store_true", help="print one JSON line an image and a summary line")
    files.add_argument("-q", "--quiet", action="store_true", help="print nothing but errors")


def _run(options: argparse.Namespace) -> int:
    from i2sb_rt.cli.stop import nothing_to_stop

    with nothing_to_stop():
        from i2sb_rt.cli.restore_run import run
    return run(options)


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
