"""i2sb-rt bench: how fast a model is here, in every engine and precision, beside each other."""

from __future__ import annotations

import argparse
import math
import re
from typing import Any

from i2sb_rt.cli.arguments import ENGINES, PRECISIONS, add_list, at_least_one, words


def add_parser(subparsers: Any) -> None:
    """Add the command; nothing heavy is imported until it runs."""
    parser = subparsers.add_parser(
        "bench",
        help="measure how fast a model is here",
        description="Restore a drawn picture in several engines and precisions, turn about, and tell how long each "
        "takes beside the first. One that restores another picture than the first is told, and not timed.",
    )
    parser.set_defaults(run=_run)
    parser.add_argument("-n", "--model", default="jpeg", metavar="NAME|PATH", help="the model (default: jpeg)")
    size = "of the picture that is given (default: 512x512, or the tile of a model that takes no other size)"
    parser.add_argument("--size", type=_size, metavar="WxH", help=size)
    parser.add_argument("--nfe", type=at_least_one, metavar="N", help="network calls (default: the model's own)")
    parser.add_argument("--sampler", metavar="NAME", help="as for restore (default: the model's own)")
    ways = "native, torch, cuda or FILE.engine, and :fp32 or another precision (default: what is here)"
    add_list(parser, "--way", _ways, "ENGINE[:P][,...]", ways)
    parser.add_argument("--threads", type=at_least_one, metavar="N", help="CPU threads (default: one a core)")
    parser.add_argument("--jobs", type=at_least_one, metavar="N", help="pictures at once (default: 1; 2 of --batch)")
    parser.add_argument("--batch", type=at_least_one, metavar="N", help="pictures that a GPU takes together (1)")
    parser.add_argument("--seconds", type=_seconds, default=30.0, metavar="S", help="how long to time (default: 30)")
    parser.add_argument("--json", action="store_true", help="print one JSON line a way")
    parser.add_argument("-q", "--quiet", action="store_true", help="print nothing but the table and errors")


def _run(options: argparse.Namespace) -> int:
    from i2sb_rt.cli.stop import nothing_to_stop

    with nothing_to_stop():
        from i2sb_rt.cli.timing_run import run
    return run(options)


def _ways(text: str) -> list[tuple[str, str]]:
    return [_way(word) for word in words(text)]


def _way(text: str) -> tuple[str, str]:
    """Read an engine and a precision; a file's name may hold a colon."""
    if text.endswith(".engine"):
        return text, "auto"
    engine, _, precision = text.partition(":")
    names = ENGINES[1:]
    if engine not in names or (precision or "auto") not in PRECISIONS:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not one of {', '.join(names)}, alone or with a precision, as {names[0]}:fp32, nor FILE.engine"
        )
    return engine, precision or "auto"


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch("([1-9][0-9]{0,5})x([1-9][0-9]{0,5})", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no size such as 512x384, width by height")
    return int(match[1]), int(match[2])


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0")
    return seconds
