"""i2sb-rt translate: points or images carried to the other end of a diffusion Schrodinger bridge."""

from __future__ import annotations

import argparse
from typing import Any

from i2sb_rt.cli.arguments import add_files, add_images, add_speed


def add_parser(subparsers: Any) -> None:
    """Add the command; nothing heavy is imported until it runs."""
    about = "Carry points or images from one end of a diffusion Schrodinger bridge to the other."
    parser = subparsers.add_parser("translate", help="carry images or points over a DSB model", description=about)
    parser.set_defaults(run=_run)
    parser.add_argument("model", metavar="MODEL", help="NAME-forward.onnx, or NAME; its twin is beside it")
    add_images(parser)
    parser.add_argument("--reverse", action="store_true", help="from the end to the data")
    parser.add_argument("--nfe", type=int, metavar="N", help="network calls (default: the model's own)")
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="of every image; point k of a .npy has N + k (default: 0)"
    )
    add_speed(parser)
    add_files(parser)


def _run(options: argparse.Namespace) -> int:
    from i2sb_rt.cli.stop import nothing_to_stop

    with nothing_to_stop():
        from i2sb_rt.cli.transport_run import run_translate
    return run_translate(options)
