"""Checkpoints of PyTorch (.pt): a zip archive around a pickle, checked before PyTorch reads it."""

import contextlib
import zipfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final

from i2sb_rt.conversion.pickles import Make, Name, Record, Refusal, read_pickle
from i2sb_rt.errors import ModelFileError, OutOfMemoryError

OLDEST: Final = "2.10"  # of PyTorch; older ones can be led to run code, or to corrupt memory, by weights_only=True
LARGEST: Final = 4 * 2**20  # bytes of the pickle inside; that of the largest networks has less than one MiB
_ONLY: Final = "only tensors, plain values and what holds them"
_SIZES: Final = {  # bytes an element, by the name of the storage
    "Float": 4, "Half": 2, "BFloat16": 2, "Double": 8,
    "Long": 8, "Int": 4, "Short": 2, "Char": 1, "Byte": 1, "Bool": 1,
}  # fmt: skip


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a .pt file: a dictionary by text. Its tensors stay in the file until they are used.

    The archive and every name in its pickle are checked first, and PyTorch then reads it with weights_only=True.
    Raises ModelFileError for a file that is missing, damaged, of another form, or holds anything but tensors and plain
    values, and where PyTorch is missing or older than 2.10.
    """
    torch = require_torch(path)
    if not path.is_file():
        raise ModelFileError(f"{path}: there is no such file; a results folder holds latest.pt and options.pkl.")
    _check(path)
    try:
        value = torch.load(str(path), map_location="cpu", weights_only=True, mmap=True)
    except MemoryError:
        raise OutOfMemoryError(f"{path}: there is not enough memory to read it.") from None
    except Exception as error:  # whatever PyTorch finds
        reason = str(error).partition("\n")[0]
        if not reason or "weights_only" in reason:  # advice to open the file nevertheless
            reason = type(error).__name__
        raise ModelFileError(f"{path} is refused by PyTorch ({reason}).") from None
    return plain(value, str(path))


def plain(value: object, what: str) -> dict[str, Any]:
    """Return a dictionary as Python's own, its keys text; raises ModelFileError for anything else."""
    if not isinstance(value, dict):
        raise ModelFileError(f"{what} is of type {type(value).__name__}, but must be a dictionary.")
    items = dict(dict.items(value))  # an OrderedDict's attributes come from the file: its own methods are not asked
    for key in items:
        if not isinstance(key, str):
            raise ModelFileError(f"{what} has the key {key!r}, but keys are text.")
    return items


def require_torch(path: Path) -> Any:
    """Import PyTorch to read `path` with; raises ModelFileError where it is missing or too old to be safe."""
    try:
        import torch
        from torch.torch_version import TorchVersion
    except ImportError:
        raise ModelFileError(f"{path}: reading it needs PyTorch: pip install 'i2sb-rt[torch]'.") from None
    if TorchVersion(torch.__version__) < OLDEST:
        raise ModelFileError(
            f"{path}: PyTorch {torch.__version__} does not read checkpoints safely; {OLDEST} or newer does: "
            "pip install 'i2sb-rt[torch]'."
        )
    return torch


def _check(path: Path) -> None:
    """Check the archive and what its pickle names; raises ModelFileError."""
    with _archive(path) as archive:
        records = {entry.filename: entry for entry in archive.infolist()}
        folders = {name.partition("/")[0] for name in records}
        folder = min(folders, default="")
        entry = records.get(f"{folder}/data.pkl")
        if len(folders) != 1 or entry is None or f"{folder}/constants.pkl" in records:
            raise ModelFileError(f"{path} is a zip archive, but not one that torch.save wrote.")
        _check_entries(archive, path)
        if entry.file_size > LARGEST:
            raise ModelFileError(f"{path}: the pickle inside has {entry.file_size} bytes; at most {LARGEST} are read.")
        data = archive.read(entry)
    sizes = {name.removeprefix(f"{folder}/data/"): entry.file_size for name, entry in records.items()}
    read_pickle(data, f"{path}: the pickle inside", _NAMES, _ONLY, partial(_storage, sizes))


@contextlib.contextmanager
def _archive(path: Path) -> Iterator[zipfile.ZipFile]:
    """Open a zip archive; raises ModelFileError for what is none, or damaged."""
    try:
        with path.open("rb") as file:
            start = file.read(4)
            if start != b"PK\3\4":
                raise ModelFileError(
                    f"{path} is no zip archive, as torch.save writes it since PyTorch 1.6. If you trust the file, load "
                    "and save it again with a newer PyTorch."
                )
            with zipfile.ZipFile(file) as archive:
                yield archive
    except (ModelFileError, MemoryError):
        raise
    except OSError as error:
        raise ModelFileError(f"{path} cannot be read: {error.strerror or error}.") from None
    except Exception as error:  # zipfile raises of many kinds
        raise ModelFileError(f"{path} is damaged, or cut short ({error}).") from None


def _check_entries(archive: zipfile.ZipFile, path: Path) -> None:
    """Check that every record lies in the file as it is, once: what is packed could be of any size."""
    entries = archive.infolist()
    for entry in entries:
        if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size or entry.flag_bits & 1:
            raise ModelFileError(f"{path}: {entry.filename} is compressed or encrypted, which torch.save never does.")
    if sum(entry.file_size for entry in entries) > path.stat().st_size:
        raise ModelFileError(f"{path} is damaged: its records say that they are larger than the file.")
    names = {entry.filename.lower() for entry in entries}  # as PyTorch finds them, in either case
    if len(names) != len(entries) or archive.comment:
        raise ModelFileError(f"{path} is not as torch.save writes it: a record stands in it twice, or a comment.")


def _storage(sizes: dict[str, int], reference: object) -> Record:
    """Check a reference to a storage: ("storage", its type, the record's name, the device, the number of elements)."""
    match reference:
        case ("storage", Name(text=kind), str(key), str(), int(count)) if kind in _STORAGES:
            if sizes.get(key) != count * _STORAGES[kind]:
                found = "is missing" if key not in sizes else f"has {sizes[key]} bytes"
                raise Refusal(f"wants {count * _STORAGES[kind]} bytes of the record data/{key[:80]}, which {found}")
            return Record("storage")
    raise Refusal("holds a persistent id that is no storage of a tensor")


def _tensor(storage: object, offset: object, size: object, stride: object, *flags: object) -> Record:
    if not isinstance(storage, Record) or storage.kind != "storage":
        raise Refusal("makes a tensor of what is no storage")
    numbers = [offset, *_numbers(size), *_numbers(stride)]
    if not all(type(number) is int and number >= 0 for number in numbers) or len(flags) not in (2, 3):
        raise Refusal("makes a tensor of no size")
    return Record("tensor")


def _numbers(value: object) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (None,)


def _parameter(tensor: object, *flags: object) -> Record:
    if not isinstance(tensor, Record) or tensor.kind != "tensor" or len(flags) != 2:
        raise Refusal("makes a parameter of what is no tensor")
    return Record("parameter")


def _ordered(*arguments: object) -> Record:
    if arguments:
        raise Refusal("calls collections.OrderedDict with arguments")
    return Record("collections.OrderedDict")


_STORAGES: Final = {f"torch.{kind}Storage": size for kind, size in _SIZES.items()}
_NAMES: Final[dict[str, Make | None]] = {
    "collections.OrderedDict": _ordered,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
    **dict.fromkeys(_STORAGES),
}
