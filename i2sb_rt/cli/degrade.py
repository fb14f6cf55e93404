"""i2sb-rt degrade: images in, damaged images out, to test restoring with."""

from __future__ import annotations

import argparse
from typing import Any

from i2sb_rt.cli.arguments import add_files, add_images, at_least_one


def add_parser(subparsers: Any) -> None:
    """Add the command; nothing heavy is imported until it runs."""
    parser = subparsers.add_parser("degrade", help="damage images", description="Damage images, to test with.")
    parser.set_defaults(run=_run)
    add_images(parser)
    parser.add_argument("--task", required=True, metavar="NAME", help="jpeg-10, gaussian-2, sr4x-bicubic, ... (docs)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of masks and choices (default: 0)")
    parser.add_argument(
        "--vary-seed", action="store_true", help="seed N for the first image, N + 1 for the second, ..."
    )
    parser.add_argument("--mask-out", metavar="PATH", help="inpaint tasks: also write the masks; a file or a folder")
    parser.add_argument("--full-size", action="store_true", help="sr4x tasks: enlarge the small image again")
    parser.add_argument(
        "--jobs", type=at_least_one, metavar="N", help="images at work at once (default: by images and cores)"
    )
    add_files(parser)


def _run(options: argparse.Namespace) -> int:
    from i2sb_rt.cli.stop import nothing_to_stop

    with nothing_to_stop():
        from i2sb_rt.cli.degrade_run import run
    return run(options)
