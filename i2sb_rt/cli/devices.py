"""i2sb-rt devices: what is here that can run a network, and what each engine would do with it."""

from __future__ import annotations

import argparse
import json
from typing import Any


def add_parser(subparsers: Any) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "devices",
        help="list what can run a model here",
        description="List the CPU, the GPUs, and the engines: which can run here, and why others cannot.",
    )
    parser.set_defaults(run=_run)
    parser.add_argument("--json", action="store_true", help="print JSON")


def _run(options: argparse.Namespace) -> int:
    from dataclasses import asdict

    from i2sb_rt import __version__
    from i2sb_rt.cli import stdout
    from i2sb_rt.cli.report import printable
    from i2sb_rt.engines import best
    from i2sb_rt.errors import DeviceError
    from i2sb_rt.inventory import cpu, gpus, offers

    processor, cards, engines = cpu(), gpus(), offers()
    try:
        auto = best()
    except DeviceError:  # I2SB_RT_OPENVINO names no file; the engine's line says so
        auto = ""
    if options.json:
        facts = {"cpu": asdict(processor), "gpus": list(map(asdict, cards)), "engines": list(map(asdict, engines))}
        stdout.say(json.dumps({"schema": 1, "version": __version__, **facts, "auto": auto}))
        return 0
    plural = "" if processor.cores == 1 else "s"
    lines = [("cpu", f"{processor.name}, {processor.cores} core{plural}, {processor.isa}")]
    for index, card in enumerate(cards):
        lines.append((f"gpu {index}", f"{card.name}, {card.architecture}, {card.memory / 2**30:.1f} GiB"))
    for one in engines:
        here = ", ".join(filter(None, (one.library, one.precision)))
        lines.append((one.engine, f"not here: {one.missing}" if one.missing else here))
    for name, text in (*lines, ("auto", auto or "none")):
        stdout.say(f"{name:<9} {printable(text)}")
    return 0
