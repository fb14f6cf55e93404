"""The command i2sb-rt: finds the subcommand, runs it, and turns every failure into a sentence and an exit code."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from i2sb_rt.errors import Exit, I2SBError, UsageError, ours

# Commands of this package, each a module here with add_parser(subparsers); those of others are entry points.
_COMMANDS = ("restore", "models", "degrade", "eval", "convert", "sample", "translate", "devices", "bench")
_GROUP = "i2sb_rt.commands"

Subparsers = Any  # argparse has no public name for what add_subparsers returns


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; `argv` is sys.argv[1:] by default."""
    from i2sb_rt.cli import stdout

    if sys.stderr is None:  # closed, and `print` would take standard output in its place
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115, PTH123
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        code = _run(arguments)
        with stdout.checked():
            if sys.stdout is not None:
                sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # whoever read our output has gone
        stdout.drop()
        return 141
    except Exception as error:
        return report_failure(error)


def report_failure(error: Exception) -> int:
    """Print an error as one sentence, with a traceback where I2SB_RT_DEBUG is set; return its exit code."""
    from i2sb_rt.cli.report import printable

    if os.environ.get("I2SB_RT_DEBUG"):
        import traceback

        traceback.print_exception(error)
    failure = ours(error)
    hint = " (I2SB_RT_DEBUG=1 shows where)" if failure is not error and failure.exit_code == Exit.INTERNAL else ""
    print(f"i2sb-rt: {printable(str(failure))}{hint}", file=sys.stderr)
    return int(failure.exit_code)


def _run(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="i2sb-rt", description="Restore images with diffusion bridges.")
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    asked = next((argument for argument in arguments if not argument.startswith("-")), None)
    for name in _COMMANDS:
        import_module(f"i2sb_rt.cli.{name}").add_parser(subparsers)
    if asked not in _COMMANDS:
        _add_plugins(subparsers, asked)
    try:
        options = parser.parse_args(arguments)
    except SystemExit as stop:  # argparse has printed what there is to say
        return stop.code if isinstance(stop.code, int) else int(Exit.USAGE)
    if options.version:
        from i2sb_rt import __version__
        from i2sb_rt.cli import stdout

        stdout.say(__version__)
        return int(Exit.OK)
    if options.command is None:
        parser.print_help(sys.stderr)
        return int(Exit.USAGE)
    try:
        return int(options.run(options))
    except ModuleNotFoundError as error:
        extra = getattr(options, "extra", None)  # of commands that need packages beside those of the runtime
        missing = (error.name or "").partition(".")[0]
        if extra is None or not missing or missing.startswith("i2sb_"):
            raise
        raise UsageError(f"{options.command} needs the package {missing}: pip install 'i2sb-rt[{extra}]'") from error


def _add_plugins(subparsers: Subparsers, asked: str | None) -> None:
    """Add the commands of other packages: the one that is asked for, or all where none of them is (for the help)."""
    from importlib.metadata import entry_points

    found = sorted(entry_points(group=_GROUP), key=lambda entry: entry.name)
    for entry in [entry for entry in found if entry.name == asked] or found:
        try:
            entry.load()(subparsers)
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            if entry.name == asked:
                raise I2SBError(f"the command {entry.name} cannot be loaded: {reason}") from error
            subparsers.add_parser(entry.name, help=f"(not available: {reason})".replace("%", "%%"))
