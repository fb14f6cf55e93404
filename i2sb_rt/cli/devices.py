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
    from i2sb_rt.cli.stop import nothing_to_stop

    with nothing_to_stop():
        facts = _facts()
    return _tell(facts, options.json)


def _facts() -> dict[str, Any]:
    from dataclasses import asdict

    from i2sb_rt import __version__
    from i2sb_rt.engines import best
    from i2sb_rt.errors import DeviceError
    from i2sb_rt.inventory import cpu, gpus, offers

    engines = offers()
    try:
        auto = best()
    except DeviceError:  # I2SB_RT_OPENVINO names no file
        auto = ""
    return {
        "schema": 1,
        "version": __version__,
        "cpu": asdict(cpu()),
        "gpus": list(map(asdict, gpus())),
        "engines": list(map(asdict, engines)),
        "auto": auto if any(one.engine == auto and not one.missing for one in engines) else "",
    }


def _tell(facts: dict[str, Any], as_json: bool) -> int:
    from i2sb_rt.cli import stdout
    from i2sb_rt.cli.report import printable

    if as_json:
        stdout.say(json.dumps(facts))
        return 0
    processor = facts["cpu"]
    plural = "" if processor["cores"] == 1 else "s"
    lines = [("cpu", f"{processor['name']}, {processor['cores']} core{plural}, {processor['isa']}")]
    for index, card in enumerate(facts["gpus"]):
        lines.append((f"gpu {index}", f"{card['name']}, {card['architecture']}, {card['memory'] / 2**30:.1f} GiB"))
    for one in facts["engines"]:
        here = ", ".join(filter(None, (one["library"], one["precision"])))
        lines.append((one["engine"], f"not here: {one['missing']}" if one["missing"] else here))
    for name, text in (*lines, ("auto", facts["auto"] or "none")):
        stdout.say(f"{name:<9} {printable(text)}")
    return 0
