"""Training samples: number i of seed s is always the same, whatever the batch, the processes or a restart."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from i2sb_rt import _core, noise
from i2sb_rt.errors import I2SBError
from i2sb_rt.operators.base import Mask
from i2sb_rt.parallel import cores
from i2sb_train import recipe
from i2sb_train.degrade import margin, training_sample
from i2sb_train.procedural import dead_leaves
from i2sb_train.processes import neighbours
from i2sb_train.recipe import Recipe, RecipeError
from i2sb_train.sources import Picture, Pixels

# What else is drawn for a sample must not repeat its picture's draws.
_ORDER_STREAM = 0x0DE5
# Purposes of a seed's noise, as in the runtime.
HOLE_FILL, X1_NOISE = 1, 3


class Sample(NamedTuple):
    """What a training step takes: one sample, or with a leading axis a batch of them.

    clean: uint8 [3, crop, crop]. x1: uint8, or float32 where it is not bytes (1 is white, -1 black; a hole is filled).
    step: the bridge step to train at, int64 []. z: the bridge's noise, N(0, 1), float32 [3, crop, crop], or None with
    ot_ode. mask: bool [1, crop, crop], True in the hole, or None where nothing is known for sure. cond: what is shown
    to the network with cond_x1 where that is not x1, because of add_x1_noise.
    """

    clean: Tensor
    x1: Tensor
    step: Tensor
    z: Tensor | None = None
    mask: Tensor | None = None
    cond: Tensor | None = None

    def part(self, first: int, last: int) -> Sample:
        """Take the samples first to last - 1 of a batch, which share its memory."""
        taken: Any = (None if tensor is None else tensor[first:last] for tensor in self)
        return Sample(*taken)


def filled(x1: Tensor, mask: Mask, fill: str, seed: int) -> Tensor:
    """Fill the hole of x1 [3, H, W] as `restore` does: mask bool [H, W]; fill: "noise", the seed's, or "smooth"."""
    if fill == "smooth":
        return torch.from_numpy(_core.fill_hole(x1.numpy(), mask.astype(np.float32)))
    channels, height, width = x1.shape
    z = torch.from_numpy(noise(seed, (channels, height, width), row=0, purpose=HOLE_FILL))
    return torch.where(torch.from_numpy(mask), z, x1)


class Samples(Dataset[Sample]):
    """Samples by index, each a pure function of (train.seed, index).

    Index i shows a dead-leaves picture with the chance data.procedural, else picture i mod n of epoch i // n, an order
    of all n pictures that (train.seed, epoch) decides.
    """

    def __init__(self, recipe: Recipe, pictures: Sequence[Picture]) -> None:
        self.recipe = recipe
        self.pictures = pictures
        self.side = recipe.data.crop + 2 * margin(recipe.degradation)
        self._epoch, self._order = -1, np.arange(0)
        if recipe.data.procedural < 1:
            self._picture(0)

    def __getitem__(self, index: int) -> Sample:
        data, bridge = self.recipe.data, self.recipe.bridge
        rng = np.random.default_rng([self.recipe.train.seed, index])
        made = rng.random() < data.procedural
        regions = (dead_leaves(self.side, rng),) if made else self._regions(self._picture(index), rng)
        regions = augment(regions, data, rng)
        clean, damaged, mask = training_sample(regions, data.crop, self.recipe.degradation, rng)
        last = bridge.interval - 1
        step = last if rng.random() < self.recipe.train.last_step else int(rng.integers(bridge.interval))
        seed = int(rng.integers(2**63))
        shape = (3, data.crop, data.crop)
        x1 = _tensor(damaged)
        if mask is not None and x1.dtype == torch.uint8:
            x1 = filled(to_signal(x1), mask, bridge.fill, seed)
        cond = x1 if bridge.add_x1_noise and (bridge.cond_x1 or bridge.cond_mask) else None
        if bridge.add_x1_noise:
            x1 = to_signal(x1) + torch.from_numpy(noise(seed, shape, row=0, purpose=X1_NOISE))
        z = None if bridge.ot_ode else torch.from_numpy(noise(seed, shape, row=0))
        return Sample(
            _tensor(clean), x1, torch.tensor(step), z, None if mask is None else _tensor(mask[..., None]), cond
        )

    def _picture(self, index: int) -> Picture:
        """Return the picture of an index; in place of one that is too small, the next in order that is not."""
        count = len(self.pictures)
        epoch, first = divmod(index, max(count, 1))
        if epoch != self._epoch:
            self._order = np.random.default_rng([self.recipe.train.seed, epoch, _ORDER_STREAM]).permutation(count)
            self._epoch = epoch
        for place in range(first, first + count):
            picture = self.pictures[int(self._order[place % count])]
            if self.recipe.data.fit or min(picture[0].shape[:2]) >= self.side:
                return picture
        raise RecipeError(f"no training picture has sides of at least {self.side} pixels.")

    def _regions(self, picture: Picture, rng: np.random.Generator) -> Picture:
        """Cut a square of `side` pixels out of a picture, shrunk to it from an area up to max_shrink times as large.

        With data.fit the area is as large as the picture allows. A pair is cut alike, on the damaged one's pixels.
        """
        data, factor = self.recipe.data, self.recipe.degradation.factor
        height, width = picture[0].shape[:2]
        shortest = min(height, width)
        area = shortest if data.fit else self.side
        if not data.fit and rng.random() < 0.5:
            largest = max(1.0, min(data.max_shrink, shortest / self.side))
            area = min(round(self.side * rng.uniform(1.0, largest)), shortest)
        y, x = (int(rng.integers(0, (side - area) // factor + 1)) * factor for side in (height, width))
        parts = (pixels[y : y + area, x : x + area] for pixels in picture)
        if area == self.side:
            return tuple(parts)
        size = (self.side, self.side)
        return tuple(np.asarray(Image.fromarray(part).resize(size, Image.Resampling.LANCZOS)) for part in parts)


def augment(regions: Picture, data: recipe.Data, rng: np.random.Generator) -> Picture:
    """Turn, mirror and tint a region, or a pair alike; uint8 [n, n, 3].

    data.colour is the chance that contrast, tint and brightness are shifted, data.grey the chance that hue is dropped.
    """
    turns, mirrors = int(rng.integers(4)) if data.turns else 0, rng.random() < 0.5
    tint: tuple[NDArray[np.float64], float] | None = None
    order: NDArray[np.int64] | None = None
    if rng.random() < data.colour:
        tint = rng.uniform(0.75, 1.2) * rng.uniform(0.93, 1.07, 3), rng.uniform(-20, 20)
        order = rng.permutation(3) if rng.random() < 0.3 else None
    drops = rng.random() < data.grey

    def changed(region: Pixels) -> Pixels:
        region = np.rot90(region, turns)
        region = region[:, ::-1] if mirrors else region
        if tint is not None:
            gain, shift = tint
            region = np.clip((region - 128.0) * gain + 128.0 + shift, 0, 255).astype(np.uint8)
        region = region if order is None else region[:, :, order]
        if drops:
            region = np.asarray(Image.fromarray(np.ascontiguousarray(region)).convert("L").convert("RGB"))
        return np.ascontiguousarray(region)

    return tuple(changed(region) for region in regions)


def batches(
    samples: Samples, first: int, last: int, rank: int = 0, count: int = 1, pin: bool = False
) -> Iterator[Sample]:
    """Load the batches of steps first to last - 1, or the share in them of process `rank` of `count`.

    Step s holds the samples s * batch up to (s + 1) * batch - 1, each process an equal run of them. pin: into memory
    that a GPU can copy from by itself. Raises what a sample raises, with its own words.
    """
    batch = samples.recipe.train.batch
    workers = min(samples.recipe.data.workers, max(1, cores() // neighbours()))
    share = batch // count
    starts = range(first * batch + rank * share, last * batch, batch)
    loader: DataLoader[Sample | I2SBError] = DataLoader(
        _Guarded(samples),
        batch_sampler=(list(range(start, start + share)) for start in starts),
        num_workers=workers,
        collate_fn=_collate_or_error,
        prefetch_factor=4 if workers else None,
        worker_init_fn=_begin_worker if workers else None,
        pin_memory=pin,
    )
    for batch in loader:
        if isinstance(batch, I2SBError):
            raise batch
        yield batch


class _Guarded(Dataset["Sample | I2SBError"]):
    """Samples, with an error as the value where one cannot be had: raised in a worker it would lose its words."""

    def __init__(self, samples: Samples) -> None:
        self.samples = samples

    def __getitem__(self, index: int) -> Sample | I2SBError:
        try:
            return self.samples[index]
        except I2SBError as error:
            return error


def _collate_or_error(samples: Sequence[Sample | I2SBError]) -> Sample | I2SBError:
    good = [sample for sample in samples if isinstance(sample, Sample)]
    return collate(good) if len(good) == len(samples) else next(s for s in samples if isinstance(s, I2SBError))


def collate(samples: Sequence[Sample]) -> Sample:
    """Stack samples to a batch."""
    parts: Any = zip(*samples, strict=True)
    stacked: Any = (None if part[0] is None else torch.stack(part) for part in parts)
    return Sample(*stacked)


def _begin_worker(_: int) -> None:
    """Leave signals to the training process, which ends its workers when it has saved its state."""
    torch.set_num_threads(1)
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, signal.SIG_IGN)


def _tensor(pixels: NDArray[Any]) -> Tensor:
    return torch.from_numpy(np.array(pixels.transpose(2, 0, 1), order="C"))


def to_signal(pixels: Tensor) -> Tensor:
    """Map uint8 0..255 to float32 -1..1; float32 is a signal already."""
    return pixels.to(torch.float32) / 127.5 - 1 if pixels.dtype == torch.uint8 else pixels
