"""Self-describing model files: their weights and metadata, read and written.

A model is NAME.safetensors (training, conversion) or NAME.onnx (what every engine runs). Both carry the same flat text
metadata under the prefix `i2sb.`, and the same parameters under the same names.
"""

import contextlib
import hashlib
import math
import os
import secrets
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from i2sb_rt.errors import ModelFileError, from_core
from i2sb_rt.model_info import PREFIX
from i2sb_rt.model_info import ModelInfo as ModelInfo

Weights = Mapping[str, NDArray[Any]]


def file_sha256(path: Path) -> str:
    """Fingerprint of a whole file, in hexadecimal. Raises OSError where it cannot be read."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def weights_sha256(weights: Weights) -> str:
    """Fingerprint of parameters as they are stored, in hexadecimal: it does not depend on the file around them.

    weights: arrays by name, in the type they are stored in (bf16 as its bits, uint16). Hashed in the order of the
    names: each name in UTF-8, a NUL byte, the array's little-endian bytes.
    """
    digest = hashlib.sha256()
    for name in sorted(weights):
        array = np.asarray(weights[name])
        digest.update(name.encode() + b"\0")
        digest.update(np.ascontiguousarray(array, array.dtype.newbyteorder("<")).data)
    return digest.hexdigest()


def stored_weights(weights: Weights, dtype: str) -> dict[str, NDArray[Any]]:
    """Round parameters to what a file of `dtype` holds: float32, float16, or bf16's bits as uint16 (ties to even).

    Raises ModelFileError, naming the parameter, for a value that is not finite or too large for the type.
    """
    stored = {name: _rounded(np.asarray(weights[name], np.float32, order="C"), dtype) for name in sorted(weights)}
    for name, array in stored.items():
        if not np.isfinite(as_values(array)).all():
            raise ModelFileError(f"the weight {name} is not finite in {dtype}; fp32 holds larger values.")
    return stored


def _rounded(array: NDArray[np.float32], dtype: str) -> NDArray[Any]:
    if dtype == "fp16":
        with np.errstate(over="ignore"):
            return array.astype(np.float16)
    if dtype == "bf16":
        bits = array.view(np.uint32)
        return np.asarray((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16, np.uint16)
    return array


def as_values(stored: NDArray[Any]) -> NDArray[Any]:
    """Undo the storage of `stored_weights`: bf16's bits become float32, other arrays stay as they are."""
    return np.asarray(stored.astype(np.uint32) << 16).view(np.float32) if stored.dtype == np.uint16 else stored


def read_info(path: str | os.PathLike[str]) -> ModelInfo:
    """Read what a model file says of itself; of the weights nothing is read from a .safetensors file.

    Raises ModelFileError for a file that is missing, broken, of another kind, or without valid metadata.
    """
    return ModelInfo.from_metadata(_open(Path(path))[0], str(path))


def load_weights(path: str | os.PathLike[str]) -> dict[str, NDArray[Any]]:
    """Read a model file's parameters by state-dict name, float32 or float16 as stored (bf16 widened to float32).

    Raises ModelFileError as `read_info`, and where the weights do not match the file's own weights_sha256.
    """
    metadata, read = _open(Path(path))
    info = ModelInfo.from_metadata(metadata, str(path))
    if info.is_quantized:
        raise ModelFileError(f"{path}: its weights are in int8, for the engine native alone; take what it was made of.")
    stored = read()
    found = weights_sha256(stored)
    if found != info.weights_sha256:
        raise ModelFileError(
            f"{path}: the weights are damaged or were changed: their SHA-256 is {found}, "
            f"but {PREFIX}weights_sha256 says {info.weights_sha256}."
        )
    return {name: as_values(array) for name, array in stored.items()}


def save_safetensors(path: str | os.PathLike[str], weights: Weights, info: ModelInfo) -> ModelInfo:
    """Write weights and metadata to `path`, whole or not at all; returns the info as written, fingerprint included.

    weights: float arrays by state-dict name, rounded to `info.dtype`. Raises ModelFileError for weights that are not
    finite in that type, OSError where the file cannot be written.
    """
    import torch
    from safetensors.torch import save

    stored = stored_weights(weights, info.dtype)
    info = replace(info, weights_sha256=weights_sha256(stored))
    tensors = {name: torch.from_numpy(array) for name, array in stored.items()}
    if info.dtype == "bf16":
        tensors = {name: tensor.view(torch.bfloat16) for name, tensor in tensors.items()}
    with replacing(path) as temporary:
        temporary.write_bytes(save(tensors, info.to_metadata()))
    return info


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str], prefix: str = ".") -> Iterator[Path]:
    """Yield a new file's path in the folder of `path`; on success it is flushed to disk and takes the place of `path`.

    A link stays, and what it points to is replaced; a file that is replaced leaves its permissions to the new one.
    On any failure the new file is removed and `path` stays as it was; only a process that is killed leaves it behind,
    as PREFIX*.part. Raises OSError where the folder is not writable.
    """
    target = Path(os.path.realpath(path))
    temporary = target.with_name(f"{prefix}{secrets.token_hex(8)}.part")  # short, as the target's may be of any length
    try:
        temporary.touch(exist_ok=False)
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        if target.is_file():
            temporary.chmod(stat.S_IMODE(target.stat().st_mode))
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def _open(path: Path) -> tuple[dict[str, str], Callable[[], dict[str, NDArray[Any]]]]:
    """Return the metadata of a model file, and how to read its tensors as stored."""
    if path.suffix not in (".onnx", ".safetensors"):
        raise ModelFileError(f"{path}: a model file ends in .onnx or .safetensors.")
    if not path.is_file():
        raise ModelFileError(f"{path}: there is no such model file.")
    return _open_onnx(path) if path.suffix == ".onnx" else _open_safetensors(path)


def _open_safetensors(path: Path) -> tuple[dict[str, str], Callable[[], dict[str, NDArray[Any]]]]:
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError:
        raise ModelFileError(f"{path}: reading .safetensors needs `pip install 'i2sb-rt[torch]'`.") from None

    def read() -> dict[str, NDArray[Any]]:
        import torch

        bits = {torch.bfloat16: torch.uint16}
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return {name: t.view(bits.get(t.dtype, t.dtype)).numpy() for name, t in tensors.items()}

    try:
        with safe_open(path, framework="np") as file:
            return dict(file.metadata() or {}), read
    except (SafetensorError, OSError) as error:
        raise ModelFileError(f"{path}: not a readable .safetensors file ({error}).") from None


def _open_onnx(path: Path) -> tuple[dict[str, str], Callable[[], dict[str, NDArray[Any]]]]:
    from i2sb_rt._core import Model

    types = {1: "<f4", 10: "<f2", 16: "<u2"}

    def read() -> dict[str, NDArray[Any]]:
        tensors = model.tensors()
        if any(not data and math.prod(shape) for _, shape, data in tensors.values()):
            tensors = _external(path)
        arrays: dict[str, NDArray[Any]] = {}
        for name, (kind, shape, data) in tensors.items():
            if kind not in types:
                raise ModelFileError(f"{path}: the tensor {name} is of ONNX type {kind}, but a weight is 1, 10 or 16.")
            arrays[name] = np.frombuffer(data, np.dtype(types[kind])).reshape(shape)
        return arrays

    with from_core():
        model = Model(str(path))
        return model.metadata, read


def _external(path: Path) -> dict[str, tuple[int, tuple[int, ...], bytes]]:
    """Return the tensors of an ONNX file whose weights lie in a second one, in the form of the core."""
    try:
        import onnx
    except ImportError:
        raise ModelFileError(f"{path}: its weights lie in a second file: pip install 'i2sb-rt[export]'.") from None
    try:
        tensors = onnx.load(path).graph.initializer
    except (OSError, ValueError, onnx.checker.ValidationError) as error:
        raise ModelFileError(f"{path}: the second file, with its weights, cannot be read: {error}") from None
    return {tensor.name: (tensor.data_type, tuple(tensor.dims), tensor.raw_data) for tensor in tensors}
