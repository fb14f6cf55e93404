"""Images in, restored images out: a model file, an engine, and the core's loop between them."""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from i2sb_rt import _core, models
from i2sb_rt.engines import Engine, open_engine
from i2sb_rt.errors import ModelFileError, UsageError, from_core
from i2sb_rt.image import U8, Picture, from_array, from_pil, to_array, to_pil
from i2sb_rt.model_file import ModelInfo
from i2sb_rt.parallel import Room, cores, in_order
from i2sb_rt.plan import Plan, whole
from i2sb_rt.sampling import Seeds, seed_list

ImageLike = NDArray[Any] | Image.Image

ENSEMBLES: Final = (1, 2, 4, 8)
# Of all images at work at once in one restorer: about 4 GB for the states of the loop.
PIXELS_AT_WORK: Final = 64_000_000


def load(
    name_or_path: str | Path,
    engine: str = "auto",
    threads: int | None = None,
    precision: str = "auto",
    jobs: int | None = None,
    batch: int | None = None,
) -> Restorer:
    """Load a model and make it ready to restore.

    name_or_path: a model that comes with the package, or an .onnx file. engine: auto, native (OpenVINO), torch, cuda,
    or FILE.engine, built of this model by `i2sb-rt export`; `Restorer.engine_name` tells which one it became. threads:
    None is one a core. precision: auto, fp32, bf16, on a GPU also tf32 or fp16.
    jobs: images of a list, or from several threads, that are at work at once; the threads are shared out among them.
    None is 1, or twice the batch. batch: on a GPU, images of one size, or tiles, that the GPU takes
    together, always as many: more images a second, but one image takes as long as all of them.
    Raises ModelFileError, DeviceError, and UsageError for values that are none of these.
    """
    for name, value in (("threads", threads), ("jobs", jobs), ("batch", batch)):
        if value is not None:
            whole(name, value)
    path = models.find(name_or_path)
    if path.suffix != ".onnx":
        raise ModelFileError(f"{path}: images are restored from .onnx files; `i2sb-rt export` makes one of it")
    with from_core():
        model = _core.Model(str(path))
    info = ModelInfo.from_metadata(model.metadata, str(path))
    at_once = jobs if jobs is not None else 2 * batch if batch is not None and batch > 1 else 1
    if info.is_quantized and engine == "auto":
        engine = "native"
    opened = open_engine(path, model, engine, threads, precision, at_once, batch)
    return Restorer(path, info, model, opened, at_once, threads)


def restore(images: Any, model: str | Path = "jpeg", *, engine: str = "auto", **options: Any) -> Any:
    """Restore images with a model that is loaded once and kept.

    images, options: as for `Restorer.restore`. Raises what `load` and `Restorer.restore` raise.
    """
    return _kept(str(model), engine).restore(images, **options)


class Restorer:
    """A model ready to restore images; any thread may use it at any time.

    path: the model's file; info: what it says of itself; engine: what runs its network; jobs: images at work at once.
    """

    def __init__(
        self, path: Path, info: ModelInfo, model: _core.Model, engine: Engine, jobs: int = 1, threads: int | None = None
    ) -> None:
        if info.holds_points:
            raise ModelFileError(
                f"{path}: this model carries points, not images; `i2sb-rt translate` takes them as a .npy file"
            )
        if info.channels not in (1, 3):
            raise ModelFileError(f"{path}: this model works on {info.channels} channels; images have 1 or 3")
        self.path = path
        self.info = info
        self.engine = engine
        self.jobs = jobs
        self._model = model
        self._threads = max(1, (threads or cores()) // jobs)
        self._room = Room(PIXELS_AT_WORK)

    @property
    def engine_name(self) -> str:
        """Which engine runs the network: native, torch, cuda or tensorrt."""
        return self.engine.name

    @property
    def precision(self) -> str:
        """What the network is computed in: fp32, bf16, tf32 or fp16."""
        return self.engine.precision

    def restore(
        self,
        images: Any,
        nfe: int | None = None,
        sampler: str | None = None,
        eta: float | None = None,
        seed: Seeds = 0,
        mask: Any = None,
        tile: str | int = "auto",
        overlap: int | None = None,
        threads: int | None = None,
        observer: _core.Observer | None = None,
        ensemble: int = 1,
    ) -> Any:
        """Restore one image or a list of them; each comes back as what it was given as.

        images: uint8 arrays [H, W], [H, W, 1 to 4] or PIL images; grey stays grey, alpha is kept as it is.
        nfe: network calls, 1 .. interval - 1; sampler: sde, ode, dbim1, dbim2, dbim3 or i3sb; None takes the model's
        own. eta: fresh noise on the way, 0 .. 1, for dbim1 (None is 0) and i3sb (0.6).
        seed: 0 .. 2^64 - 1, for every image, or one each. mask: [H, W] of the image's size, 1, True or 255 = hole, for
        every image, or a list of one each; a model that fills holes needs it. tile: "auto", 0 (the whole image at once)
        or the side of a tile; overlap of tiles, None for the model's own. ensemble: 1, or 2, 4 or 8: the mean of so
        many restorations, of the image as it is and mirrored (2), upside down (4), and turned (8), which is truer and
        takes as many times as long (arXiv 1707.02921, section 3.4). threads: for the work around the network,
        None for those of one job.
        observer: called after each piece of work with (phase, row, rows, tile, tiles, begin_ns, end_ns), by several
        threads where there are several jobs; true stops.
        Raises UsageError, NonFiniteError, CancelledError, DeviceError, OutOfMemoryError.
        """
        many = isinstance(images, list | tuple)
        given = list(images) if many else [images]
        masks = list(mask) if isinstance(mask, list | tuple) else [mask] * len(given)
        if len(masks) != len(given):
            raise UsageError(f"{len(masks)} masks for {len(given)} images: give one for all or one each")
        plan = self.plan(nfe, sampler, eta)
        self.check_tiles(tile, overlap)

        jobs, stopped = min(self.jobs, max(1, len(given))), threading.Event()
        if jobs > 1:
            _load_shared([*given, *masks])
        # A GPU's loop is not asked at each row unless somebody observes: that costs it its graph of the whole plan.
        watched = observer is not None or (jobs > 1 and self.engine_name in ("native", "torch"))

        def asked(*event: Any) -> bool:
            return stopped.is_set() or bool(observer is not None and observer(*event))

        observe = asked if watched else None

        def one(task: tuple[ImageLike, int, Any]) -> ImageLike:
            image, one_seed, one_mask = task
            picture = _picture(image)
            out = self.restore_picture(picture, plan, one_seed, one_mask, tile, overlap, threads, observe, ensemble)
            return _as_given(out, image)

        tasks = zip(given, seed_list(seed, len(given)), masks, strict=True)
        restored = list(in_order(one, tasks, jobs, stopped.set))
        return restored if many else restored[0]

    def plan(self, nfe: int | None = None, sampler: str | None = None, eta: float | None = None) -> Plan:
        """Return the plan of a sampler in so many network calls; None takes the model's own.

        Raises UsageError for a sampler or a number that this model cannot be run with.
        """
        return Plan.of_model(self._model, nfe, sampler, eta)

    def tile_of(self, width: int, height: int, tile: str | int = "auto", overlap: int | None = None) -> int:
        """Return the side of the tiles that an image of this size is cut into, 0 if it is not cut.

        Raises UsageError for a tile, an overlap or a size that the model does not take.
        """
        with from_core():
            return self._model.layout(width, height, *_tiling(tile, overlap))["tile"]

    def check_tiles(self, tile: str | int = "auto", overlap: int | None = None) -> None:
        """Raise UsageError for tiles that the model cuts no image into, however small the images at hand are."""
        side, shared = _tiling(tile, overlap)
        if side:
            with from_core():
                self._model.layout(1, 1, self.info.tile if side < 0 else side, shared)

    def restore_picture(
        self,
        picture: Picture,
        plan: Plan,
        seed: int = 0,
        mask: Any = None,
        tile: str | int = "auto",
        overlap: int | None = None,
        threads: int | None = None,
        observer: _core.Observer | None = None,
        ensemble: int = 1,
    ) -> Picture:
        """Restore a picture by a plan; the arguments and errors are those of `restore`."""
        grey = picture.colour.ndim == 2
        if self.info.channels == 1 and not grey:
            raise UsageError(f"the model {self.info.name} works on grey images, and this one has colour")
        hole = None if mask is None else _hole(mask, (picture.height, picture.width))
        side, shared = _tiling(tile, overlap)
        with self._room.of(picture.width * picture.height * self.info.upscale**2), from_core():
            out = _core.restore(
                self._model,
                self.engine.core,
                plan.rows,
                picture.colour[..., None] if grey else picture.colour,
                clip=plan.clip,
                known=plan.known,
                mask=hole,
                seed=self.info.noise_seed(seed),
                tile=side,
                overlap=shared,
                ensemble=_passes(ensemble),
                threads=threads or self._threads,
                observer=observer,
            )
        if grey:
            out = out[..., 0]
        return replace(picture, colour=out, alpha=_enlarged(picture.alpha, self.info.upscale))


@lru_cache(maxsize=4)
def _kept(model: str, engine: str) -> Restorer:
    return load(model, engine)


def _load_shared(things: list[Any]) -> None:
    """Decode PIL images that stand in a list more than once: they are read when first used, by one thread at a time."""
    counts = Counter(map(id, things))
    for thing in things:
        if counts[id(thing)] > 1 and isinstance(thing, Image.Image):
            thing.load()
            with contextlib.suppress(Exception):  # damaged EXIF says nothing
                thing.getexif()


def _tiling(tile: str | int, overlap: int | None) -> tuple[int, int]:
    """Return tile and overlap as the core takes them, where -1 leaves the choice to the model."""
    if isinstance(tile, str) and tile == "auto":
        side = -1
    elif isinstance(tile, str) or tile is None or (side := whole("tile", tile)) < 0:
        raise UsageError(f'tile is "auto", 0 or the side of a tile in pixels, not {tile!r}')
    if overlap is not None and whole("overlap", overlap) < 0:
        raise UsageError(f"overlap is 0 or more pixels, not {overlap}")
    return side, -1 if overlap is None else whole("overlap", overlap)


def _passes(ensemble: int) -> int:
    if ensemble not in ENSEMBLES:
        raise UsageError(f"ensemble is {', '.join(map(str, ENSEMBLES[:-1]))} or {ENSEMBLES[-1]}, not {ensemble!r}")
    return int(ensemble)


def _enlarged(alpha: U8 | None, factor: int) -> U8 | None:
    if alpha is None or factor == 1:
        return alpha
    height, width = alpha.shape
    return np.asarray(Image.fromarray(alpha).resize((width * factor, height * factor), Image.Resampling.BICUBIC))


def _picture(image: ImageLike) -> Picture:
    """Read an image argument."""
    if isinstance(image, Image.Image):
        return from_pil(image)
    if isinstance(image, np.ndarray):
        return from_array(image)
    raise UsageError(f"an image is a uint8 array or a PIL image, not {type(image).__name__}")


def _as_given(picture: Picture, image: ImageLike) -> ImageLike:
    """Return the result as the kind of thing that its image was given as."""
    return to_pil(picture) if isinstance(image, Image.Image) else to_array(picture, image.shape)


def _hole(mask: Any, shape: tuple[int, int]) -> U8:
    """Read a mask argument: uint8 [H, W], 1 = hole."""
    values = np.asarray(mask)
    if values.shape != shape:
        raise UsageError(f"the mask has the shape {list(values.shape)}, the image {list(shape)}")
    if not np.isin(values, (0, 1, 255)).all():
        raise UsageError("a mask holds 0 where the image is known and 1, True or 255 in the hole, nothing between")
    return values.astype(bool).astype(np.uint8)
