"""What `i2sb-rt verify` does with an export of any kind: compare it, restore with it, and tell what came out."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from i2sb_export import verify
from i2sb_export.onnx import export_onnx
from i2sb_export.restorations import Restored, Task, Way, restorations
from i2sb_export.verify import Check
from i2sb_rt import operators
from i2sb_rt.engines.engine_file import architecture_here, read_note, require_source
from i2sb_rt.errors import UsageError
from i2sb_rt.evaluation.drawn import drawn_picture
from i2sb_rt.image import U8, files_of, read
from i2sb_rt.model_file import ModelInfo, read_info
from i2sb_rt.operators import Operator

LOST = 0.1  # dB of PSNR against clean pictures that an engine may stay behind PyTorch
_DRAWN = (192, 256)  # height and width of the picture that is drawn


@dataclass(frozen=True)
class Request:
    """What is to be compared with what; images: clean pictures, a file or a folder; task: an operator's name."""

    exported: Path
    source: Path
    images: Path | None = None
    task: str | None = None


@dataclass
class Proof:
    """What was found: comparisons, restorations, and what could not be done here, in sentences."""

    checks: list[Check] = field(default_factory=list)
    restored: list[Restored] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        """Whether every comparison is within its limit."""
        return all(check.holds for check in self.checks)

    def record(self) -> dict[str, Any]:
        """Return it as JSON takes it; what is not finite becomes null."""
        checks = [{**asdict(check), "ok": check.holds} for check in self.checks]
        tables = {"checks": checks, "restorations": [asdict(restored) for restored in self.restored]}
        for row in (*tables["checks"], *tables["restorations"]):
            row.update(
                {key: None for key, value in row.items() if isinstance(value, float) and not math.isfinite(value)}
            )
        return {"ok": self.holds, **tables, "notes": self.notes}

    def text(self) -> str:
        """Return it as a person reads it."""
        width = max(len(check.what) for check in self.checks)
        lines = []
        for check in self.checks:
            verdict = "    " if check.limit is None else "ok  " if check.holds else "FAIL"
            error = f"{check.error:.1e}" if isinstance(check.error, float) else f"{check.error}"
            limit = "" if check.limit is None else f" of {check.limit:g} allowed"
            lines.append(f"{verdict} {check.what:<{width}}  {error} {check.unit}{limit}  {check.detail}".rstrip())
        if self.restored:
            lines += [
                "",
                f"     {'restorations':<14}precision   PSNR [dB]  to the first [dB]  time [s]  calls  memory [MiB]",
            ]
        for one in self.restored:
            memory = "" if one.peak_memory is None else f"{one.peak_memory / 2**20:.0f}"
            lines.append(
                f"     {one.engine:<14}{one.precision:<9}{one.psnr:12.2f}{one.agreement:19.1f}{one.seconds:10.2f}"
                f"{one.calls:7d}{memory:>14}"
            )
        return "\n".join([*lines, *self.notes])


def prove(request: Request) -> Proof:
    """Compare an export, .onnx, .engine or .pt2, with the model it was made of, .safetensors or .onnx.

    An engine that cannot run here is not run: then the network that it was built of is compared, and a note says so.
    Raises UsageError for what is no export, ModelFileError for files that cannot be read, DeviceError where an engine
    fails, ImageError for pictures that cannot be read.
    """
    kinds = {".onnx": _prove_onnx, ".engine": _prove_engine, ".pt2": _prove_package}
    if request.exported.suffix not in kinds:
        raise UsageError(f"{request.exported}: exports end in {', '.join(kinds)}.")
    return kinds[request.exported.suffix](request)


def _prove_onnx(request: Request) -> Proof:
    exported, source = request.exported, request.source
    if read_info(exported).is_quantized:
        return _prove_int8(request)
    proof = Proof(verify.verify(exported, source))
    ways = [Way("pytorch", str(source)), Way("onnxruntime", str(exported)), Way("native", str(exported))]
    return _restored(proof, request, exported, ways)


def _prove_int8(request: Request) -> Proof:
    """Judge a file in int8 by the pictures that it restores, beside the native engine in float32."""
    with _as_onnx(request.source, "fp16") as model:
        proof = Proof([verify.compare_metadata(read_info(request.exported), read_info(model))])
        ways = [
            Way("pytorch", str(request.source)),
            Way("native", str(model.resolve())),
            Way("native int8", str(request.exported)),
        ]
        return _restored(proof, request, model, ways)


def _prove_engine(request: Request) -> Proof:
    about = read_note(request.exported)
    with _as_onnx(request.source, about.info.dtype) as model:
        require_source(request.exported, about, model)
        proof = Proof(verify.verify_typed(model, about.precision))
        if architecture_here() not in about.architectures:
            proof.notes.append("not run here: the engine itself; compare it on its GPU.")
            return proof
        ways = [Way("pytorch", str(request.source)), Way("tensorrt", str(request.exported.resolve()))]
        return _restored(proof, request, model, ways)


def _prove_package(request: Request) -> Proof:
    proof = Proof(verify.verify_package(request.exported, request.source))
    with _as_onnx(request.source, "fp32") as model:
        ways = [Way("pytorch", str(request.source)), Way("aoti", str(request.exported))]
        return _restored(proof, request, model, ways)


@contextmanager
def _as_onnx(source: Path, dtype: str) -> Iterator[Path]:
    """Lend the .onnx file of a model, exported for the time being where the model is none: the same bytes each time."""
    if source.suffix == ".onnx":
        yield source
        return
    with TemporaryDirectory() as folder:
        path = Path(folder) / f"{source.stem}.onnx"
        export_onnx(source, path, dtype)
        yield path


def _restored(proof: Proof, request: Request, model: Path, ways: list[Way]) -> Proof:
    """Add whole restorations to a proof that holds so far."""
    info = read_info(model)
    operator = _operator(request, info)
    if not proof.holds or operator is None:
        if proof.holds:
            proof.notes.append(f"no restorations: no operator is known for the task {info.task}; name one with --task.")
        return proof
    clean = [_cut(picture, operator.factor) for picture in _pictures(request.images)]
    proof.restored = restorations(model, ways, Task.of(clean, operator, info.upscale))
    first, *others = proof.restored
    for one in others:
        detail = f"{one.psnr:.2f} dB against clean, PyTorch {first.psnr:.2f}"
        proof.checks.append(Check(f"{operator.name}, {one.engine}", first.psnr - one.psnr, LOST, "dB lost", detail))
    return proof


def _operator(request: Request, info: ModelInfo) -> Operator | None:
    if request.task is not None:
        return operators.get(request.task)
    return next(iter(operators.of_task(info.task)), None) if not info.is_dsb else None


def _pictures(path: Path | None) -> list[U8]:
    """Return clean pictures, RGB: those of a folder or a file, or a drawn one."""
    if path is None:
        return [drawn_picture(3, *_DRAWN, np.random.default_rng(0))]
    pictures = (read(file).colour for file in files_of(path))
    return [np.repeat(colour[..., None], 3, axis=2) if colour.ndim == 2 else colour for colour in pictures]


def _cut(picture: U8, factor: int) -> U8:
    height, width = (side // factor * factor for side in picture.shape[:2])
    return picture[:height, :width]
