"""i2sb-rt sample: samples of a diffusion Schrodinger bridge, from its prior."""

from __future__ import annotations

import argparse
from typing import Any

from i2sb_rt.cli.arguments import add_engine


def add_parser(subparsers: Any) -> None:
    """Add the command; nothing heavy is imported until it runs."""
    about = "Draw samples of a diffusion Schrodinger bridge that begins with a prior."
    parser = subparsers.add_parser("sample", help="draw samples of a DSB model", description=about)
    parser.set_defaults(run=_run)
    parser.add_argument("model", metavar="MODEL", help="NAME-backward.onnx, or NAME")
    parser.add_argument("-n", "--count", type=int, default=64, metavar="N", help="how many samples (default: 64)")
    parser.add_argument(
        "-o", "--output", required=True, metavar="FILE", help="samples.npy, or for images one picture of all"
    )
    parser.add_argument("--nfe", type=int, metavar="N", help="network calls a sample (default: the model's own)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="sample k has the seed N + k (default: 0)")
    parser.add_argument("--trajectory", action="store_true", help="to .npy: every step of each sample, the last first")
    add_engine(parser)
    parser.add_argument("-q", "--quiet", action="store_true", help="print nothing but errors")


def _run(options: argparse.Namespace) -> int:
    from i2sb_rt.cli.stop import nothing_to_stop

    with nothing_to_stop():
        from i2sb_rt.cli.transport_run import run_sample
    return run_sample(options)
