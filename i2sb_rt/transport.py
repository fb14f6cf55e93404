"""Diffusion Schrodinger bridges at work: samples from a prior, and states carried to the other end."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from i2sb_rt import _core, models
from i2sb_rt.engines import Engine, open_engine
from i2sb_rt.engines.native import openvino_library
from i2sb_rt.errors import ModelFileError, UsageError, from_core
from i2sb_rt.model_file import ModelInfo
from i2sb_rt.parallel import cores, default_jobs, in_order
from i2sb_rt.plan import Plan
from i2sb_rt.sampling import Seeds, seed_list

F32 = NDArray[np.float32]

DIRECTIONS: Final = ("forward", "backward")
MOST: Final = 10_000_000  # samples at once
_PRIOR: Final = 3  # the purpose of the noise that a prior is drawn with


def load_transport(
    name_or_path: str | Path,
    direction: str | None = None,
    engine: str = "auto",
    threads: int | None = None,
    precision: str = "auto",
    states: int = 1,
) -> Transport:
    """Load one direction of a diffusion Schrodinger bridge.

    name_or_path: NAME-forward.onnx or NAME-backward.onnx, or the NAME that both begin with. direction: "forward", from
    the data, or "backward"; None is that of the file. engine, threads, precision: as for `load`, but "auto" is fp32 for
    points. states: how many a call will carry, so that as many batches of them are at work at once as pays; it may
    carry more. Raises ModelFileError for a file that is missing or no such model, DeviceError, and UsageError for
    values that are none of these.
    """
    if direction not in (None, *DIRECTIONS):
        raise UsageError(f"direction is forward or backward, not {direction!r}")
    path, model, info = find_transport(models.as_path(name_or_path), direction)
    if info.holds_points and engine == "auto":
        engine = "native" if openvino_library() else "torch"
    jobs = default_jobs(math.ceil(states / info.batch), threads or cores())
    return Transport(path, info, model, open_engine(path, model, engine, threads, precision, jobs), jobs)


def find_transport(path: Path, direction: str | None) -> tuple[Path, _core.Model, ModelInfo]:
    """Open the file of a direction of a bridge, given it, that of the other direction, or what their names share.

    Raises ModelFileError where there is none, or it is not a diffusion Schrodinger bridge.
    """
    if not path.name:
        raise ModelFileError(f"{path} names no model file")
    if not path.is_file() and path.suffix != ".onnx" and str(path) not in models.names():
        told = path.name.endswith(tuple(f"-{one}" for one in DIRECTIONS))
        path = path.with_name(f"{path.name}.onnx" if told else f"{path.name}-{direction or 'forward'}.onnx")
    path = models.find(path)
    if path.suffix != ".onnx":
        raise ModelFileError(f"{path}: bridges run from .onnx files; `i2sb-rt export` makes one of it")
    model, info = _opened(path)
    found = info.direction
    if direction is None or found == direction:
        return path, model, info
    twin = path.with_name(f"{path.stem.removesuffix(f'-{found}')}-{direction}.onnx")
    if not twin.is_file():
        raise ModelFileError(f"{path} runs {found}; its twin {twin}, which runs {direction}, is not there")
    model, info = _opened(twin)
    if info.direction != direction:
        raise ModelFileError(f"{twin} does not run {direction}, as its name says")
    return twin, model, info


def _opened(path: Path) -> tuple[_core.Model, ModelInfo]:
    with from_core():
        model = _core.Model(str(path))
    info = ModelInfo.from_metadata(model.metadata, str(path))
    if not info.is_dsb:
        raise ModelFileError(f"{path}: {info.name} is no diffusion Schrodinger bridge; `restore` runs it")
    return model, info


class Transport:
    """One direction of a bridge, ready to run; any thread may use it at any time.

    path: the model's file; info: what it says of itself; engine: what runs its network; jobs: batches at work at once.
    """

    def __init__(self, path: Path, info: ModelInfo, model: _core.Model, engine: Engine, jobs: int = 1) -> None:
        self.path, self.info, self.engine, self.jobs = path, info, engine, jobs
        self._model = model

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape of a state, [C, H, W]: points are [dim, 1, 1], images as large as the network was trained on."""
        side = 1 if self.info.holds_points else int(self.info.network["image_size"])
        return self.info.channels, side, side

    def plan(self, nfe: int | None = None) -> Plan:
        """Return the plan of so many network calls; None is the model's own. UsageError for another number."""
        return Plan.of_model(self._model, nfe)

    def sample(
        self,
        count: int,
        seed: int = 0,
        nfe: int | None = None,
        trajectory: bool = False,
        observer: _core.Observer | None = None,
    ) -> F32:
        """Draw samples from the prior and carry them to the data; sample k has the seed `seed` + k.

        Returns float32 [count, C, H, W], images in about [-1, 1]; with trajectory [count, nfe, C, H, W], index 0 final.
        The same seed gives the same sample, whatever the count. Raises UsageError where the bridge does not run
        backward or has no prior, or a value does not fit; NonFiniteError, DeviceError, CancelledError.
        """
        if self.info.direction != "backward" or not self.info.prior:
            why = "runs forward" if self.info.direction == "forward" else "goes between two sets of data"
            raise UsageError(f"{self.path}: {self.info.name} {why}; samples are made backward from a prior")
        if not 1 <= count <= MOST:
            raise UsageError(f"a count of samples lies in 1 .. {MOST}, not {count}")
        seeds = _following(seed, count)
        size = int(np.prod(self.shape))
        with from_core():
            start = np.stack([_core.noise(one, 0, size, 0, _PRIOR) for one in seeds])
        x = (np.float32(self.info.prior) * start).reshape(count, *self.shape)
        return self.translate(x, seeds, nfe, trajectory, observer)

    def translate(
        self,
        states: ArrayLike,
        seeds: Seeds = None,
        nfe: int | None = None,
        trajectory: bool = False,
        observer: _core.Observer | None = None,
    ) -> F32:
        """Carry states to the other end: float [n, C, H, W], or points [n, dim].

        seeds: a sequence of one each, or an integer: state k has the seed `seeds` + k, and None is 0; the two
        directions draw other noise for one seed (`ModelInfo.noise_seed`). nfe: network calls, 1 .. the number of steps;
        None is the model's own. Returns float32 of the same shape; with trajectory
        [n, nfe, ...], index 0 final. Raises UsageError for another shape or a value that does not fit; NonFiniteError,
        DeviceError, CancelledError.
        """
        given = np.asarray(states)
        if not np.issubdtype(given.dtype, np.number) or np.iscomplexobj(given):
            raise UsageError(f"states are numbers, not {given.dtype}")
        flat = given.ndim == 2 and self.info.holds_points
        x = np.require(given[..., None, None] if flat else given, np.float32, "C")
        size = (self.info.channels,) + ((1, 1) if self.info.holds_points else x.shape[2:])
        if x.ndim != 4 or x.shape[1:] != size or not x.size:
            wanted = f"[n, {size[0]}]" if self.info.holds_points else f"[n, {size[0]}, height, width]"
            raise UsageError(f"states of {self.info.name} are {wanted}, not {list(given.shape)}")
        multiple, least = self.info.multiple, self.info.minimum
        if any(side % multiple or side < least for side in x.shape[2:]):
            raise UsageError(
                f"sides of {self.info.name}'s states are multiples of {multiple}, at least {least}, not {x.shape[2:]}"
            )
        listed = _following(seeds, len(x)) if seeds is None or np.ndim(seeds) == 0 else seed_list(seeds, len(x))
        streams = [self.info.noise_seed(seed) for seed in listed]
        rows = self.plan(nfe).rows

        def run(part: slice) -> F32:
            with from_core():
                return _core.sample(
                    self.engine.core,
                    rows,
                    x[part],
                    seeds=streams[part],
                    trajectory=trajectory,
                    network_batch=self.info.batch,
                    threads=1,
                    observer=observer,
                )

        size_of_part = self.info.batch * math.ceil(len(x) / (self.info.batch * self.jobs))
        parts = [slice(first, first + size_of_part) for first in range(0, len(x), size_of_part)]
        out = np.concatenate(list(in_order(run, parts, len(parts))))
        return out[..., 0, 0] if flat else out


def _following(seed: Any, count: int) -> list[int]:
    """List `count` seeds from one on, modulo 2^64."""
    (first,) = seed_list(seed, 1)
    return [(first + k) % 2**64 for k in range(count)]
