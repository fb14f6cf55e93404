"""`i2sb-rt export` and `i2sb-rt verify`; PyTorch and the rest are imported when they run."""

import argparse
import json
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from i2sb_export.tensorrt import Report
    from i2sb_export.verify import Check

    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]


def add_export_parser(subparsers: "Subparsers") -> None:
    """Register `export`; it sets `run`, a function of the arguments that returns an exit code."""
    parser = subparsers.add_parser(
        "export", help="write a model as one ONNX file, or as an engine (needs the extra `export`)"
    )
    parser.add_argument("model", metavar="MODEL", help="a model file, to an engine or package also a shipped one")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help="FILE.onnx, .engine or .pt2")
    parser.add_argument("--to", choices=("onnx", "tensorrt", "aoti"), help="(default: by the ending of FILE)")
    onnx = parser.add_argument_group("to ONNX")
    onnx.add_argument("--dtype", choices=("fp16", "fp32"), default="fp16", help="of stored weights (default: fp16)")
    onnx.add_argument("--verify", action="store_true", help="then compare the file with PyTorch, as `verify` does")
    engine = parser.add_argument_group("to an engine of TensorRT or TensorRT-RTX")
    engine.add_argument(
        "--precision", choices=("fp16", "bf16", "fp32"), default="fp16", help="of activations (default: fp16)"
    )
    engine.add_argument(
        "--shapes", metavar="MIN:OPT:MAX", help="each [Bx]HxW or one side (default: the model's smallest, its tile)"
    )
    engine.add_argument("--arch", metavar="SM[,SM...]", help="GPUs to build for, such as sm89 (default: the one here)")
    engine.add_argument("-q", "--quiet", action="store_true", help="show no progress")
    package = parser.add_argument_group("to a package of AOTInductor")
    package.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where it will run (default: cpu)")
    parser.set_defaults(run=_export)


def add_verify_parser(subparsers: "Subparsers") -> None:
    """Register `verify`; it sets `run`, a function of the arguments that returns an exit code."""
    parser = subparsers.add_parser("verify", help="compare an ONNX file with its source (needs the extra `export`)")
    parser.add_argument("model", type=Path, metavar="MODEL.onnx")
    parser.add_argument("--against", type=Path, required=True, metavar="MODEL.safetensors")
    parser.add_argument("--json", action="store_true", help="print one line of JSON in place of the table")
    parser.set_defaults(run=_verify)


def _export(options: argparse.Namespace) -> int:
    endings = {".engine": "tensorrt", ".pt2": "aoti"}
    ways = {"onnx": _to_onnx, "tensorrt": _to_engine, "aoti": _to_package}
    return ways[options.to or endings.get(options.output.suffix, "onnx")](options)


def _to_onnx(options: argparse.Namespace) -> int:
    from i2sb_export.onnx import export_onnx

    source = Path(options.model)
    info = export_onnx(source, options.output, options.dtype)
    size = options.output.stat().st_size / 2**20
    print(f"{options.output}: {info.name}, {info.dtype}, {size:.1f} MiB, weights {info.weights_sha256[:16]}")
    return _report(options.output, source, as_json=False) if options.verify else 0


def _to_engine(options: argparse.Namespace) -> int:
    """Build an engine, then compare the network that it was built of with the model; 0 if that holds, else 1."""
    from i2sb_export.tensorrt import build_engine
    from i2sb_export.verify import verify_typed
    from i2sb_rt import models

    source = models.find(options.model)
    architectures = options.arch.split(",") if options.arch else []
    with _progress(options.quiet) as report:
        about = build_engine(source, options.output, options.precision, options.shapes, architectures, report)
    sizes = ", ".join("x".join(map(str, shape)) for shape in (about.profile.min, about.profile.opt, about.profile.max))
    print(
        f"{options.output}: {about.info.name}, {about.precision}, {about.size / 2**20:.1f} MiB, {about.library} "
        f"{about.version}, {', '.join(about.architectures)}, {sizes} pixels"
    )
    checks = verify_typed(source, about.precision)
    print(_as_table(checks))
    print("not run here: the engine itself; compare it on its GPU.")
    return 0 if all(check.holds for check in checks) else 1


def _to_package(options: argparse.Namespace) -> int:
    """Compile a package, then compare it with PyTorch where it can run; 0 if that holds, else 1."""
    from i2sb_export.aoti import export_package
    from i2sb_export.verify import verify_package
    from i2sb_rt import models

    source = models.find(options.model)
    info = export_package(source, options.output, options.device)
    print(f"{options.output}: {info.name}, {options.device}, {options.output.stat().st_size / 2**20:.1f} MiB")
    checks = verify_package(options.output, source, options.device)
    print(_as_table(checks))
    return 0 if all(check.holds for check in checks) else 1


@contextmanager
def _progress(quiet: bool) -> "Iterator[Report | None]":
    """Show the phases of a builder as bars on a terminal; give nothing where there is none."""
    if quiet or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress, TaskID

    tasks: dict[str, TaskID] = {}
    with Progress(console=Console(stderr=True), transient=True) as bars:

        def report(phase: str, share: float) -> None:
            if phase not in tasks:
                tasks[phase] = bars.add_task(phase, total=1.0)
            bars.update(tasks[phase], completed=share)

        yield report


def _verify(options: argparse.Namespace) -> int:
    return _report(options.model, options.against, options.json)


def _report(exported: Path, source: Path, as_json: bool) -> int:
    """Print what `verify` finds; 0 if all of it holds, else 1."""
    from i2sb_export.verify import verify

    checks = verify(exported, source)
    good = all(check.holds for check in checks)
    print(json.dumps(_as_json(checks, good)) if as_json else _as_table(checks))
    return 0 if good else 1


def _as_json(checks: "list[Check]", good: bool) -> dict[str, object]:
    return {"ok": good, "checks": [{**vars(check), "ok": check.holds} for check in checks]}


def _as_table(checks: "list[Check]") -> str:
    width = max(len(check.what) for check in checks)
    lines = []
    for check in checks:
        verdict = "    " if check.limit is None else "ok  " if check.holds else "FAIL"
        error = f"{check.error:.1e}" if check.unit == "relative" else f"{check.error:g}"
        limit = "" if check.limit is None else f" of {check.limit:g} allowed"
        lines.append(f"{verdict} {check.what:<{width}}  {error} {check.unit}{limit}  {check.detail}".rstrip())
    return "\n".join(lines)
