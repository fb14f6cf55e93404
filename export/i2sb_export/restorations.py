"""Whole restorations by several engines: what comes out, how long it takes, and how much memory.

Each engine works in a process of its own, `python -m i2sb_export.restorations FOLDER`, whose peak memory is its own.
"""

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from i2sb_export import engines
from i2sb_rt import Restorer, _core
from i2sb_rt.engines import open_engine
from i2sb_rt.errors import DeviceError, from_core
from i2sb_rt.evaluation.metrics import psnr
from i2sb_rt.image import U8, Picture
from i2sb_rt.model_file import read_info
from i2sb_rt.operators import Operator
from i2sb_rt.operators.pictures import degrade
from i2sb_rt.parallel import peak_memory

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Way:
    """An engine by its name, and the file that it runs: pytorch, onnxruntime, native, native int8, tensorrt or aoti."""

    name: str
    path: str


@dataclass(frozen=True)
class Restored:
    """How an engine did, over all pictures.

    psnr: mean, against the clean pictures, in dB; agreement: mean PSNR against the first engine's pictures, infinite
    where they are the same; seconds: median of a restoration, the first one not counted; calls: of the network in each;
    peak_memory: of the process, in bytes, None where the system does not tell.
    """

    engine: str
    precision: str
    psnr: float
    agreement: float
    seconds: float
    calls: int
    peak_memory: int | None


@dataclass(frozen=True)
class Task:
    """What is restored: clean pictures [H, W, 3], their damaged twins, and the holes where there are some."""

    clean: list[U8]
    damaged: list[U8]
    masks: list[Mask | None]

    @classmethod
    def of(cls, clean: Sequence[U8], operator: Operator, upscale: int) -> "Task":
        """Damage pictures with sides that the operator's factor divides; each by the seed of its number."""
        masks = [operator.mask(picture.shape[0], picture.shape[1], seed) for seed, picture in enumerate(clean)]
        damaged = [
            degrade(Picture(picture), operator, seed, mask, full_size=upscale == 1).colour
            for seed, (picture, mask) in enumerate(zip(clean, masks, strict=True))
        ]
        return cls(list(clean), damaged, masks)


def restorations(model: Path, ways: Sequence[Way], task: Task) -> list[Restored]:
    """Restore a task by several engines as the .onnx file `model` says, with its own sampler and number of calls.

    Raises DeviceError where an engine's process fails, with what it said last.
    """
    found: list[Restored] = []
    first: list[U8] = []
    for way in ways:
        with TemporaryDirectory() as name:
            facts, pictures = _apart(Path(name), model, way, task)
        first = first or pictures
        scores = [psnr(clean, picture) for clean, picture in zip(task.clean, pictures, strict=True)]
        agreements = [psnr(wanted, picture) for wanted, picture in zip(first, pictures, strict=True)]
        found.append(Restored(psnr=float(np.mean(scores)), agreement=float(np.mean(agreements)), **facts))
    return found


def _apart(folder: Path, model: Path, way: Way, task: Task) -> tuple[dict[str, Any], list[U8]]:
    """Restore in a process of its own; returns its facts and the pictures."""
    given: dict[str, NDArray[Any]] = {f"damaged{k}": picture for k, picture in enumerate(task.damaged)}
    given |= {f"mask{k}": mask for k, mask in enumerate(task.masks) if mask is not None}
    np.savez(folder / "given.npz", **given)  # type: ignore[arg-type]
    (folder / "what.json").write_text(json.dumps({"model": str(model.resolve()), "way": asdict(way)}))
    done = subprocess.run(
        [sys.executable, "-m", "i2sb_export.restorations", str(folder)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        said = done.stderr.strip().rsplit("\n", 1)[-1] or f"it ended with {done.returncode}"
        raise DeviceError(f"restoring with {way.name} failed: {said}")
    facts: dict[str, Any] = json.loads((folder / "facts.json").read_text())
    with np.load(folder / "restored.npz") as pictures:
        return facts, [pictures[f"restored{k}"] for k in range(len(task.damaged))]


def _restore(folder: Path) -> None:
    """Do what a folder of `_apart` asks for, and leave the answer there."""
    what = json.loads((folder / "what.json").read_text())
    model, way = Path(what["model"]), Way(**what["way"])
    with np.load(folder / "given.npz") as given:
        arrays = dict(given)
    restorer = _restorer(model, way)
    restored, took = {}, []
    count = sum(name.startswith("damaged") for name in arrays)
    for k in (0, *range(count)):  # the first one twice, since engines prepare themselves on it
        begin = time.perf_counter()
        restored[f"restored{k}"] = restorer.restore(arrays[f"damaged{k}"], seed=k, mask=arrays.get(f"mask{k}"))
        took.append(time.perf_counter() - begin)
    np.savez(folder / "restored.npz", **restored)
    facts = {"engine": way.name, "precision": restorer.precision, "seconds": float(np.median(took[1:]))}
    facts |= {"calls": restorer.plan().nfe, "peak_memory": peak_memory()}
    (folder / "facts.json").write_text(json.dumps(facts))


def _restorer(model: Path, way: Way) -> Restorer:
    path = Path(way.path)
    with from_core():
        core = _core.Model(str(path if way.name.startswith("native") else model))
    if way.name.startswith("native"):
        return Restorer(path, read_info(path), core, open_engine(path, core, "native", None, "fp32"))
    if way.name == "tensorrt":
        return Restorer(model, read_info(model), core, open_engine(model, core, way.path, None, "auto"))
    opened = {"pytorch": engines.pytorch, "onnxruntime": engines.onnxruntime, "aoti": engines.package}[way.name](path)
    return Restorer(model, read_info(model), core, opened)


if __name__ == "__main__":
    _restore(Path(sys.argv[1]))
