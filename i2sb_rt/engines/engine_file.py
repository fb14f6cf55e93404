"""Built engines on disk: NAME.engine, and NAME.engine.json that tells what it is before its bytes are let in."""

from __future__ import annotations

import functools
import hashlib
import importlib
import importlib.util
import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from i2sb_rt.errors import DeviceError, ModelFileError, OutputError
from i2sb_rt.model_file import ModelInfo, file_sha256, replacing

FORMAT: Final = 1
MODULES: Final = ("tensorrt", "tensorrt_rtx")
_LARGEST_NOTE: Final = 1 << 20

Shape = tuple[int, int, int]
"""Batch, height and width."""


def library(wanted: Sequence[str] = MODULES) -> Any:
    """Return the first of these modules that is installed; DeviceError where none is, or one is not TensorRT's."""
    for name in wanted:
        if name not in MODULES:
            raise DeviceError(f"{name!r} is no release of TensorRT; there are {' and '.join(MODULES)}.")
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    raise DeviceError(f"engines need {' or '.join(wanted)}: pip install 'i2sb-rt[tensorrt]'.")


@functools.cache
def logger(trt: Any) -> Any:
    """Return the one logger of a module of TensorRT, which all its objects share; it writes warnings to stderr.

    Its own logger writes to stdout, where pictures and JSON may go.
    """

    class Log(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, msg: str) -> None:
            if int(severity) <= int(trt.ILogger.WARNING):
                print(f"{trt.__name__}: {msg}", file=sys.stderr)

    return Log()


def gpu_here() -> str:
    """Return the name of PyTorch's GPU, such as NVIDIA H100 80GB HBM3."""
    import torch

    return torch.cuda.get_device_name()


def architecture_here() -> str | None:
    """Tell what PyTorch's GPU is, such as sm89; None where there is none, or no PyTorch."""
    if importlib.util.find_spec("torch") is None:
        return None
    import torch

    if not torch.cuda.is_available():
        return None
    major, minor = torch.cuda.get_device_capability()
    return f"sm{major}{minor}"


@dataclass(frozen=True, kw_only=True)
class Profile:
    """The input shapes that an engine takes: from `min` to `max`, fastest at `opt`; each batch, height, width."""

    min: Shape
    opt: Shape
    max: Shape


@dataclass(frozen=True, kw_only=True)
class EngineFile:
    """What stands beside an engine. library, version: what built it and alone can read it; architectures: such as sm89.

    precision: that of its activations. source_sha256: of the .onnx file that it was built of. gpu: the name of the only
    GPU that it is for, "" where any of its architectures will do. size, sha256: its own.
    """

    info: ModelInfo
    library: str
    version: str
    architectures: tuple[str, ...]
    precision: str
    profile: Profile
    source_sha256: str
    gpu: str = ""
    size: int = 0
    sha256: str = ""


def note_of(engine: Path) -> Path:
    """Return where what is known of an engine stands."""
    return engine.with_name(engine.name + ".json")


def write_engine(path: Path, data: bytes | memoryview, about: EngineFile) -> None:
    """Write an engine and its note, each whole or not at all, the note last. Raises OutputError."""
    facts = asdict(about) | {"format": FORMAT, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    facts["info"] = about.info.to_metadata()
    try:
        note_of(path).unlink(missing_ok=True)  # never beside an engine that it does not tell of
        with replacing(path) as temporary:
            temporary.write_bytes(data)
        with replacing(note_of(path)) as temporary:
            temporary.write_text(json.dumps(facts, indent=1) + "\n")
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror or error}") from error


def read_note(path: Path) -> EngineFile:
    """Read what is known of an engine. Raises ModelFileError where that is missing or not of this release."""
    note = note_of(path)
    try:
        if note.stat().st_size > _LARGEST_NOTE:
            raise ModelFileError(f"{note}: is too large for the note of an engine.")
        facts = json.loads(note.read_text())
    except OSError as error:
        raise ModelFileError(
            f"{path}: what stands beside an engine cannot be read: {note} ({error.strerror})."
        ) from None
    except (ValueError, RecursionError):
        raise ModelFileError(f"{note}: is not JSON.") from None
    try:
        return _parsed(facts, str(note))
    except (KeyError, TypeError, ValueError) as error:
        raise ModelFileError(f"{note}: is not the note of an engine of this release ({error!r}).") from None


def _parsed(facts: Any, source: str) -> EngineFile:
    if not isinstance(facts, Mapping) or facts["format"] != FORMAT:
        raise ValueError("format")
    texts = {key: facts[key] for key in ("library", "version", "precision", "source_sha256", "gpu", "sha256")}
    if not all(isinstance(text, str) for text in texts.values()) or not re.fullmatch("[0-9a-f]{64}", texts["sha256"]):
        raise ValueError("texts")
    if not isinstance(facts["info"], Mapping) or not all(isinstance(text, str) for text in facts["info"].values()):
        raise ValueError("info")
    shapes: dict[str, Shape] = {}
    for name in ("min", "opt", "max"):
        batch, height, width = facts["profile"][name]
        if not all(type(side) is int and side > 0 for side in (batch, height, width)):
            raise ValueError("profile")
        shapes[name] = batch, height, width
    architectures = facts["architectures"]
    if not isinstance(architectures, list) or not all(isinstance(name, str) for name in architectures):
        raise ValueError("architectures")
    if type(facts["size"]) is not int:
        raise ValueError("size")
    info = ModelInfo.from_metadata(facts["info"], source)
    return EngineFile(
        info=info, profile=Profile(**shapes), architectures=tuple(architectures), size=facts["size"], **texts
    )


def load_engine(path: Path, library: str, version: str, architecture: str, gpu: str) -> tuple[EngineFile, bytes]:
    """Return an engine's note and bytes, after making sure that they belong together and can run here.

    library, version: of what is to read it; architecture, gpu: of the GPU, and its name. Raises DeviceError for an
    engine of another of these, ModelFileError for one that is missing, cut short or not the one that its note tells of.
    """
    about = read_note(path)
    if (about.library, about.version) != (library, version):
        raise DeviceError(
            f"{path}: was built by {about.library} {about.version}, which alone can read it, but {library} {version} "
            "is here; build it again."
        )
    if architecture not in about.architectures:
        raise DeviceError(f"{path}: was built for {', '.join(about.architectures)}, but this GPU is {architecture}.")
    if about.gpu not in ("", gpu):
        raise DeviceError(f"{path}: was built for {about.gpu}, but this GPU is {gpu}; build it again.")
    try:
        if path.stat().st_size != about.size:
            raise ModelFileError(f"{path}: is {path.stat().st_size} bytes long, not {about.size}: it was cut short.")
        data = path.read_bytes()
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be read ({error.strerror}).") from None
    if hashlib.sha256(data).hexdigest() != about.sha256:
        raise ModelFileError(f"{path}: is not the engine that {note_of(path)} tells of: its bytes were changed.")
    return about, data


def require_source(path: Path, about: EngineFile, model: Path) -> None:
    """Refuse an engine that was built of another file than this model. Raises ModelFileError."""
    if file_sha256(model) != about.source_sha256:
        raise ModelFileError(f"{path}: was built of another {model.name} than {model}; it is stale, build it again.")
