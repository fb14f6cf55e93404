"""The models that come with the package: NAME.onnx, beside its card NAME.md."""

import contextlib
import os
from pathlib import Path
from typing import Any

from i2sb_rt.errors import ModelFileError, UsageError

_FOLDER = Path(__file__).parent


def names() -> list[str]:
    """Return the names of the models that come with the package, sorted."""
    return sorted(path.stem for path in _FOLDER.glob("*.onnx"))


def as_path(name_or_path: Any) -> Path:
    """Return a name or a path as a path. Raises UsageError for what is neither."""
    if not isinstance(name_or_path, str | os.PathLike):
        raise UsageError(f"a model is a name or a path, not {type(name_or_path).__name__}")
    return Path(name_or_path)


def find(name_or_path: str | Path) -> Path:
    """Return the file of a model, given the name of a shipped one or a path ending in .onnx or .safetensors.

    Raises ModelFileError where there is none, listing the names there are, or where the path is not UTF-8, and
    UsageError for what is neither.
    """
    path = as_path(name_or_path)
    text = str(name_or_path) if isinstance(name_or_path, str) else str(path)
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ModelFileError(f"the model path {text!r} is not UTF-8; rename the file or its folder") from None
    if text in names():
        return _FOLDER / f"{text}.onnx"
    with contextlib.suppress(OSError):  # such as that the name is too long
        if path.is_file():
            return path
    if path.suffix in (".onnx", ".safetensors"):
        raise ModelFileError(f"there is no model file {path}")
    known = ", ".join(names()) or "none"
    raise ModelFileError(f"there is no model called {text!r}; the ones that come with i2sb-rt: {known}")
