"""The options that a results folder was trained with: options.pkl, a pickled argparse.Namespace."""

from pathlib import Path, PurePath, PurePosixPath, PureWindowsPath
from typing import Any, Final

from i2sb_rt.conversion.pickles import Make, Record, Refusal, read_pickle
from i2sb_rt.errors import ModelFileError

LARGEST: Final = 64 * 1024  # bytes; the file of a training has less than a thousand
_NAMESPACE: Final = "argparse.Namespace"
_ONLY: Final = "only an argparse.Namespace of plain values and pathlib paths"


def read_options(path: Path) -> dict[str, Any]:
    """Read options.pkl: the namespace's options by name, its paths as pure paths of either kind.

    Raises ModelFileError for a file that is missing, larger than 64 KiB, damaged, or holds anything else; nothing in
    it runs.
    """
    data = _content(path)
    value = read_pickle(data, str(path), _NAMES, _ONLY)
    if not isinstance(value, Record):
        raise ModelFileError(f"{path} holds a value of type {type(value).__name__}, but must hold an {_NAMESPACE}.")
    return value.attributes


def _content(path: Path) -> bytes:
    if not path.is_file():
        raise ModelFileError(f"{path}: there is no such file; a results folder holds latest.pt and options.pkl.")
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST + 1)
    except OSError as error:
        raise ModelFileError(f"{path} cannot be read: {error.strerror}.") from None
    if len(data) > LARGEST:
        raise ModelFileError(f"{path} has more than {LARGEST} bytes, which no options need.")
    return data


def _namespace(*arguments: Any) -> Record:
    if arguments:
        raise Refusal(f"calls {_NAMESPACE} with arguments")
    return Record(_NAMESPACE)


def _path(kind: type[PurePath]) -> Make:
    def make(*parts: Any) -> PurePath:
        if not all(isinstance(part, str) for part in parts):
            raise Refusal("makes a path of what is no text")
        return kind(*parts)

    return make


# Python 3.13 wrote pathlib._local, where others write pathlib.
_NAMES: Final[dict[str, Make | None]] = {
    _NAMESPACE: _namespace,
    **{
        f"{module}.{pure}{flavour}Path": _path(kind)
        for module in ("pathlib", "pathlib._local")
        for pure in ("", "Pure")
        for flavour, kind in (("Posix", PurePosixPath), ("Windows", PureWindowsPath))
    },
}
