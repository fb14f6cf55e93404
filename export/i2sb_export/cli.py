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

    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]


def add_export_parser(subparsers: "Subparsers") -> None:
    """Register `export`; it sets `run`, a function of the arguments that returns an exit code."""
    parser = subparsers.add_parser(
        "export",
        help="write a model as one ONNX file, or as an engine (needs the extra `export`)",
        description="Write a model as what its output's ending says: one ONNX file (.onnx), also in int8 for CPUs; an "
        "engine of TensorRT for GPUs (.engine); a package of AOTInductor for C++ programs (.pt2). It is compared with "
        "the model at the end.",
    )
    parser.add_argument("model", metavar="MODEL", help="a model file, to an engine, package or int8 also a shipped one")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help="FILE.onnx, .engine or .pt2")
    parser.add_argument("--to", choices=("onnx", "tensorrt", "aoti"), help="(default: by the ending of FILE)")
    parser.add_argument(
        "--precision",
        choices=("fp16", "bf16", "fp32", "int8"),
        help="of an engine's activations (default: fp16); int8: of an .onnx file, with --calibrate",
    )
    parser.add_argument(
        "--no-verify", action="store_true", help="do not compare the result with the model, as `verify`"
    )
    parser.add_argument("-q", "--quiet", action="store_true", help="show no progress")
    onnx = parser.add_argument_group("to ONNX")
    onnx.add_argument("--dtype", choices=("fp16", "fp32"), help="of stored weights (default: fp16)")
    int8 = parser.add_argument_group("to ONNX in int8, for CPUs (--precision int8; needs the extra `int8`)")
    int8.add_argument("--calibrate", type=Path, metavar="DIR", help="clean pictures that set the scales; needed")
    int8.add_argument(
        "--task", metavar="NAME,...", help="what damages them (default: what the model's task stands for)"
    )
    engine = parser.add_argument_group("to an engine of TensorRT or TensorRT-RTX")
    engine.add_argument(
        "--shapes", metavar="MIN:OPT:MAX", help="each [Bx]HxW or one side (default: the model's smallest, its tile)"
    )
    engine.add_argument("--arch", metavar="SM[,SM...]", help="GPUs to build for, such as sm89 (default: the one here)")
    package = parser.add_argument_group("to a package of AOTInductor")
    package.add_argument("--device", choices=("cpu", "cuda"), help="where it will run (default: cpu)")
    parser.set_defaults(run=_export, extra="export")


def add_verify_parser(subparsers: "Subparsers") -> None:
    """Register `verify`; it sets `run`, a function of the arguments that returns an exit code."""
    parser = subparsers.add_parser("verify", help="compare an export with its source (needs the extra `export`)")
    parser.add_argument("model", type=Path, metavar="EXPORT", help="an .onnx, .engine or .pt2 file")
    parser.add_argument("--against", required=True, metavar="MODEL", help="the model file, or shipped one, it is of")
    parser.add_argument(
        "--images", type=Path, metavar="PATH", help="clean pictures to damage and restore (one is drawn)"
    )
    parser.add_argument("--task", metavar="NAME", help="what damages them (default: the model's own task)")
    parser.add_argument("--json", action="store_true", help="print one line of JSON in place of the table")
    parser.set_defaults(run=_verify, extra="export")


# What each way of exporting makes, and the options that not every way has.
_MAKES = {
    "onnx": "an .onnx file",
    "int8": "an .onnx file in int8 (--precision int8)",
    "tensorrt": "an engine",
    "aoti": "a package",
}
_OPTIONS = {
    "onnx": ("dtype",),
    "int8": ("precision", "calibrate", "task"),
    "tensorrt": ("precision", "shapes", "arch"),
    "aoti": ("device",),
}
_ENDINGS = {".onnx": "onnx", ".engine": "tensorrt", ".pt2": "aoti"}


def _export(options: argparse.Namespace) -> int:
    from i2sb_rt.errors import UsageError

    ways = {"onnx": _to_onnx, "int8": _to_int8, "tensorrt": _to_engine, "aoti": _to_package}
    kind = options.to or _ENDINGS.get(options.output.suffix)
    if kind is None:
        raise UsageError(f"{options.output}: what is made follows from the ending, one of {', '.join(_ENDINGS)}.")
    if options.precision == "int8" and kind != "onnx":
        raise UsageError(f"--precision int8 makes an .onnx file, not {_MAKES[kind]}.")
    kind = "int8" if options.precision == "int8" else kind
    for option in sorted({option for taken in _OPTIONS.values() for option in taken}):
        if getattr(options, option) is not None and option not in _OPTIONS[kind]:
            makers = " or ".join(_MAKES[way] for way, taken in _OPTIONS.items() if option in taken)
            raise UsageError(f"--{option} is for {makers}; {options.output} becomes {_MAKES[kind]}.")
    if kind == "int8" and options.calibrate is None:
        raise UsageError("--precision int8 needs clean pictures: --calibrate DIR.")
    return ways[kind](options)


def _to_int8(options: argparse.Namespace) -> int:
    from i2sb_export.int8 import quantized
    from i2sb_rt import models
    from i2sb_rt.errors import UsageError
    from i2sb_rt.image import files_of
    from i2sb_rt.model_file import replacing

    source = models.find(options.model)
    if options.output.suffix != ".onnx":
        raise UsageError(f"{options.output}: the name of an exported model ends in .onnx.")
    model = quantized(source, files_of(options.calibrate), options.task.split(",") if options.task else ())
    with replacing(options.output) as temporary:
        temporary.write_bytes(model.SerializeToString(deterministic=True))
    before, after = (path.stat().st_size / 2**20 for path in (source, options.output))
    print(f"{options.output}: {source.stem} in int8, {after:.1f} MiB (before: {before:.1f})")
    return _proved(options, source)


def _to_onnx(options: argparse.Namespace) -> int:
    from i2sb_export.onnx import export_onnx
    from i2sb_rt import models
    from i2sb_rt.errors import UsageError

    if options.model in models.names():
        raise UsageError(
            f"{options.model} is shipped as an .onnx file, {models.find(options.model)}; name a .safetensors file, or "
            f"another output: .engine, .pt2, or .onnx with --precision int8."
        )
    source = Path(options.model)
    info = export_onnx(source, options.output, options.dtype or "fp16")
    size = options.output.stat().st_size / 2**20
    print(f"{options.output}: {info.name}, {info.dtype}, {size:.1f} MiB, weights {info.weights_sha256[:16]}")
    return _proved(options, source)


def _to_engine(options: argparse.Namespace) -> int:
    from i2sb_export.tensorrt import build_engine
    from i2sb_rt import models

    source = models.find(options.model)
    architectures = options.arch.split(",") if options.arch else []
    with _progress(options.quiet) as report:
        about = build_engine(source, options.output, options.precision or "fp16", options.shapes, architectures, report)
    sizes = ", ".join("x".join(map(str, shape)) for shape in (about.profile.min, about.profile.opt, about.profile.max))
    print(
        f"{options.output}: {about.info.name}, {about.precision}, {about.size / 2**20:.1f} MiB, {about.library} "
        f"{about.version}, {', '.join(about.architectures)}, {sizes} pixels"
    )
    return _proved(options, source)


def _to_package(options: argparse.Namespace) -> int:
    from i2sb_export.aoti import export_package
    from i2sb_rt import models

    source = models.find(options.model)
    device = options.device or "cpu"
    info = export_package(source, options.output, device)
    print(f"{options.output}: {info.name}, {device}, {options.output.stat().st_size / 2**20:.1f} MiB")
    return _proved(options, source)


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


def _proved(options: argparse.Namespace, source: Path) -> int:
    """Compare what was exported with its source, unless that is not wanted; 0 if all of it holds, else 1."""
    if options.no_verify:
        return 0
    from i2sb_export.proof import Request, prove

    proof = prove(Request(options.output, source))
    print(proof.text())
    return 0 if proof.holds else 1


def _verify(options: argparse.Namespace) -> int:
    """Print what is found; 0 if all of it holds, else 1."""
    from i2sb_export.proof import Request, prove
    from i2sb_rt import models

    against = models.find(options.against)
    proof = prove(Request(options.model, against, options.images, options.task))
    print(json.dumps(proof.record(), allow_nan=False) if options.json else proof.text())
    return 0 if proof.holds else 1
