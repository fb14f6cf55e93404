"""i2sb-rt eval: clean pictures in, how well a model restores them out."""

from __future__ import annotations

import argparse
import re
from typing import Any

from i2sb_rt.cli.arguments import add_ensemble, add_list, add_speed, at_least_one, words


def add_parser(subparsers: Any) -> None:
    """Add the command; nothing heavy is imported until it runs."""
    parser = subparsers.add_parser(
        "eval",
        help="measure how well a model restores",
        description="Damage clean pictures, restore them, and tell how close the results come. Needs the extra `eval`.",
    )
    parser.set_defaults(run=_run, fail_fast=False, skip_existing=False)
    parser.add_argument("--images", required=True, metavar="DIR", help="clean pictures, with all that is below")
    parser.add_argument("-n", "--model", default="jpeg", metavar="NAME|PATH", help="the model (default: jpeg)")
    add_list(parser, "--task", _tasks, "T[,T...]", "what to undo: jpeg-10, blur-gauss, ... (docs)", required=True)
    add_list(parser, "--nfe", _counts, "N[,N...]", "network calls a picture (default: the model's own)")
    add_list(parser, "--sampler", words, "NAME[,NAME...]", "as for restore (default: the model's own)")
    parser.add_argument("--eta", type=float, metavar="X", help="fresh noise, 0 .. 1: dbim1 (default 0), i3sb (0.6)")
    add_ensemble(parser)
    metrics = "psnr, ssim, sharpness, lpips, fid, kid (default: psnr,ssim)"
    add_list(parser, "--metrics", words, "M[,M...]", metrics)
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="seed N for the first picture, N + 1 for the second, ..."
    )
    parser.add_argument(
        "--baseline", action="store_true", help="also score Lanczos enlargement (sr4x) and Telea's inpainting (holes)"
    )
    parser.add_argument("--limit", type=at_least_one, metavar="N", help="take only the first N pictures")
    add_speed(parser)
    told = parser.add_argument_group("what is told and written")
    told.add_argument("--save", metavar="DIR", help="write what was restored to DIR/TASK/SAMPLER-NFE/NAME.png")
    told.add_argument("--plot", metavar="FILE", help="draw the metrics over NFE into a .png, .svg or .pdf file")
    told.add_argument("--json", action="store_true", help="print one JSON line a row and a summary line")
    told.add_argument("-q", "--quiet", action="store_true", help="print nothing but the table and errors")


def _run(options: argparse.Namespace) -> int:
    from i2sb_rt.cli.stop import nothing_to_stop

    with nothing_to_stop():
        from i2sb_rt.cli.eval_run import run
    return run(options)


def _tasks(text: str) -> list[str]:
    """Split at commas; those behind `mixture:` part its members, so it is the last task."""
    head, mixture, members = text.partition("mixture:")
    names = words(head.rstrip(", ")) if head else []
    return [*names, mixture + members] if mixture else names


def _counts(text: str) -> list[int]:
    if not re.fullmatch(r"\s*[0-9]{1,9}\s*(,\s*[0-9]{1,9}\s*)*", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of numbers such as 1,2,5")
    return [int(word) for word in text.split(",")]
