"""`i2sb-rt export` and `i2sb-rt verify`; PyTorch and the rest are imported when they run."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from i2sb_export.verify import Check

    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]


def add_export_parser(subparsers: "Subparsers") -> None:
    """Register `export`; it sets `run`, a function of the arguments that returns an exit code."""
    parser = subparsers.add_parser("export", help="write a trained model as one ONNX file (needs the extra `export`)")
    parser.add_argument("model", type=Path, metavar="MODEL.safetensors")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="MODEL.onnx")
    parser.add_argument("--dtype", choices=("fp16", "fp32"), default="fp16", help="of stored weights (default: fp16)")
    parser.add_argument("--verify", action="store_true", help="then compare the file with PyTorch, as `verify` does")
    parser.set_defaults(run=_export)


def add_verify_parser(subparsers: "Subparsers") -> None:
    """Register `verify`; it sets `run`, a function of the arguments that returns an exit code."""
    parser = subparsers.add_parser("verify", help="compare an ONNX file with its source (needs the extra `export`)")
    parser.add_argument("model", type=Path, metavar="MODEL.onnx")
    parser.add_argument("--against", type=Path, required=True, metavar="MODEL.safetensors")
    parser.add_argument("--json", action="store_true", help="print one line of JSON in place of the table")
    parser.set_defaults(run=_verify)


def _export(options: argparse.Namespace) -> int:
    from i2sb_export.onnx import export_onnx

    info = export_onnx(options.model, options.output, options.dtype)
    size = options.output.stat().st_size / 2**20
    print(f"{options.output}: {info.name}, {info.dtype}, {size:.1f} MiB, weights {info.weights_sha256[:16]}")
    return _report(options.output, options.model, as_json=False) if options.verify else 0


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
