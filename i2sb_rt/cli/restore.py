"""i2sb-rt restore: images in, restored images out."""

from __future__ import annotations

import argparse
from typing import Any

from i2sb_rt.cli.arguments import add_ensemble, add_files, add_images, add_speed


def add_parser(subparsers: Any) -> None:
    """Add the command; nothing heavy is imported until it runs."""
    parser = subparsers.add_parser("restore", help="restore images", description="Restore images.")
    parser.set_defaults(run=_run)
    add_images(parser)
    parser.add_argument("-n", "--model", default="jpeg", metavar="NAME|PATH", help="the model (default: jpeg)")
    parser.add_argument(
        "--nfe",
        type=int,
        metavar="N",
        help="network calls an image, 1 to the model's interval less 1 (default: its own)",
    )
    parser.add_argument(
        "--sampler", metavar="NAME", help="sde, ode, dbim1, dbim2, dbim3 or i3sb (default: the model's own)"
    )
    parser.add_argument("--eta", type=float, metavar="X", help="fresh noise, 0 .. 1: dbim1 (default 0), i3sb (0.6)")
    add_ensemble(parser)
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="seed of every image's noise, 0 to 2^64 - 1 (default: 0)"
    )
    holes = parser.add_argument_group("inpainting")
    holes.add_argument("--mask", metavar="FILE|DIR", help="a mask, or a folder of one an image; white is the hole")
    holes.add_argument("--mask-invert", action="store_true", help="black is the hole")
    add_speed(parser)
    files = add_files(parser)
    files.add_argument("--compare", metavar="FILE", help="also draw before and after into one picture (one image)")
    files.add_argument("--profile", metavar="FILE", help="write where the time went, as a Chrome trace")


def _run(options: argparse.Namespace) -> int:
    from i2sb_rt.cli.stop import nothing_to_stop

    with nothing_to_stop():
        from i2sb_rt.cli.restore_run import run
    return run(options)
