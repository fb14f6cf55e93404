"""i2sb-rt models: which models there are, and what each says of itself."""

from __future__ import annotations

import argparse
import json
from typing import Any


def add_parser(subparsers: Any) -> None:
    """Add the command."""
    parser = subparsers.add_parser("models", help="list the models, or describe one")
    parser.set_defaults(run=_list, json=False)
    parser.add_argument("--json", action="store_true", help="print JSON")
    actions = parser.add_subparsers(metavar="ACTION", title="actions")
    lister = actions.add_parser("list", help="list the models that come with i2sb-rt (the default)")
    lister.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print JSON")
    teller = actions.add_parser("info", help="print what a model says of itself")
    teller.add_argument("model", metavar="NAME|PATH", help="a model that comes with i2sb-rt, or a model file")
    teller.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print JSON")
    teller.set_defaults(run=_info)


def _list(options: argparse.Namespace) -> int:
    from i2sb_rt import models
    from i2sb_rt.cli import stdout
    from i2sb_rt.model_file import read_info

    found = []
    for name in models.names():
        path = models.find(name)
        info = read_info(path)
        found.append({"name": name, "task": info.task, "bytes": path.stat().st_size, "license": info.license})
    if options.json:
        stdout.say(json.dumps(found))
        return 0
    for model in found:
        stdout.say("{name:<16} {task:<16} {bytes:>12,} bytes  {license}".format(**model))
    return 0


def _info(options: argparse.Namespace) -> int:
    from i2sb_rt import models
    from i2sb_rt.cli import stdout
    from i2sb_rt.cli.report import printable
    from i2sb_rt.model_file import read_info

    path = models.find(options.model)
    facts = {"path": str(path), **read_info(path).to_metadata()}
    if options.json:
        stdout.say(json.dumps(facts))
        return 0
    for key, value in facts.items():
        stdout.say(f"{key.removeprefix('i2sb.'):<15} {printable(value)}")
    return 0
