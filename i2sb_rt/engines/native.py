"""OpenVINO, opened by the native core: which library, and where compiled networks are kept."""

from __future__ import annotations

import importlib.util
import os
import shutil
import stat
from contextlib import suppress
from pathlib import Path
from typing import Final

from i2sb_rt import _core
from i2sb_rt.errors import DeviceError, from_core
from i2sb_rt.model_info import QUANTIZED

# Folders of compiled networks, one a model and size, that stay in the cache folder; what is in each is a little larger
# than the model's weights in fp32.
KEPT: Final = 16


class NativeEngine:
    """The network in OpenVINO on this CPU; "auto" is bf16 where the CPU is fast in it, fp32 elsewhere and for points.

    threads: of all jobs together, None is one a core; jobs: how many network calls run at once.
    """

    name = "native"

    def __init__(self, model: _core.Model, threads: int | None, precision: str, jobs: int) -> None:
        self._is_quantized = QUANTIZED in model.metadata
        cache = cache_folder("openvino")
        if cache is not None:
            prune(cache, KEPT)
        with from_core():
            self.core = _core.Engine.openvino(
                model,
                threads=threads or 0,
                streams=jobs,
                precision=precision,
                cache_dir=None if cache is None else str(cache),
                library=openvino_library(),
            )

    @property
    def precision(self) -> str:
        """What the network is computed in, fp32 or bf16; int8 where that is what its file is for."""
        return "int8" if self._is_quantized else self.core.precision


def openvino_library() -> str | None:
    """Return the path of OpenVINO's C library, or None to leave the search to the system's loader.

    I2SB_RT_OPENVINO names it; else it is the one in the installed `openvino` package, which is not imported.
    Raises DeviceError where the variable names no file.
    """
    named = os.environ.get("I2SB_RT_OPENVINO")
    if named:
        if not Path(named).is_file():
            raise DeviceError(f"I2SB_RT_OPENVINO is {named}, which is not a file; it names libopenvino_c.so")
        return named
    spec = importlib.util.find_spec("openvino")
    folders = (spec.submodule_search_locations or []) if spec else []
    found = sorted(path for folder in folders for path in Path(folder, "libs").glob("libopenvino_c.so*"))
    return str(found[-1]) if found else None


def cache_folder(purpose: str) -> Path | None:
    """Return the folder of the user's cache for a purpose, made if missing; None where there can be none.

    I2SB_RT_CACHE names its parent, else XDG_CACHE_HOME/i2sb-rt or ~/.cache/i2sb-rt. A folder that others may write
    is not used, since what is in it is run.
    """
    try:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        folder = Path(os.environ.get("I2SB_RT_CACHE") or Path(base, "i2sb-rt")) / purpose
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.stat()
    except (OSError, RuntimeError):
        return None
    foreign = status.st_uid != os.getuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return None if foreign or not os.access(folder, os.W_OK) else folder


def prune(folder: Path, kept: int) -> None:
    """Remove all but the `kept` entries of a cache folder, files or folders of files, that were used last.

    Another process may do so too.
    """
    used: list[tuple[float, Path]] = []
    for entry in folder.iterdir():
        with suppress(OSError):
            files = [path.stat() for path in (entry.iterdir() if entry.is_dir() else [entry])]
            times = [max(status.st_atime, status.st_mtime) for status in files]
            used.append((max([entry.stat().st_mtime, *times]), entry))
    for _, entry in sorted(used, reverse=True)[kept:]:
        with suppress(OSError):
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
