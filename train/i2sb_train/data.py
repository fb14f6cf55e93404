"""Training pairs: sample number i of seed s is always the same pair, whatever the batch, the workers or the restart."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from i2sb_rt.errors import UsageError
from i2sb_train.degrade import MARGIN, Pixels, training_sample
from i2sb_train.procedural import dead_leaves
from i2sb_train.recipe import Recipe, RecipeError

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp"}


def list_pictures(folders: Sequence[Path]) -> list[Path]:
    """List every picture below the folders, sorted; RecipeError for a folder that is missing or holds none."""
    found: list[Path] = []
    for folder in folders:
        if not folder.is_dir():
            raise RecipeError(f"the data folder {folder} does not exist; name another with --data.")
        here = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
        if not here:
            raise RecipeError(f"the data folder {folder} holds no pictures.")
        found += here
    return found


def read_picture(path: Path) -> Pixels:
    """Read one picture as uint8 RGB [H, W, 3], turned as its EXIF orientation says; UsageError if it cannot be."""
    try:
        with Image.open(path) as image:
            return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    except OSError as error:
        raise UsageError(f"{path}: cannot be read as a picture ({error}).") from error


def split_holdout(paths: Sequence[Path], names: Sequence[str]) -> tuple[list[Path], list[Path]]:
    """Part the pictures into those to train on and the held-out ones; variants NAME_* of a held-out one are in neither.

    RecipeError where a name matches no picture: a mistyped name would train on what it should not.
    """
    for name in names:
        if not any(path.stem == name for path in paths):
            raise RecipeError(f"data.holdout names {name!r}, but no such picture is there.")
    kept = [p for p in paths if not any(p.stem == n or p.stem.startswith(f"{n}_") for n in names)]
    return kept, [p for p in paths if p.stem in names]


class Pairs(Dataset[tuple[Tensor, ...]]):
    """Pairs (clean, damaged) of uint8 [3, crop, crop], by index; a pure function of (train.seed, index).

    For inpainting a third comes with them: the mask, bool [1, crop, crop], True in the hole.
    """

    def __init__(self, recipe: Recipe, pictures: Sequence[Pixels]) -> None:
        self.recipe = recipe
        side = recipe.data.crop + 2 * MARGIN
        self.pictures = [p for p in pictures if min(p.shape[:2]) >= side]
        if recipe.data.procedural < 1 and not self.pictures:
            raise RecipeError(f"no training picture has sides of at least {side} pixels (data.crop + {2 * MARGIN}).")
        areas = np.array([p.shape[0] * p.shape[1] for p in self.pictures], np.float64) ** 0.5
        self.weights = areas / areas.sum()

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        data = self.recipe.data
        rng = np.random.default_rng([self.recipe.train.seed, index])
        side = data.crop + 2 * MARGIN
        region = dead_leaves(side, rng) if rng.random() < data.procedural else self._region(side, rng)
        region = augment(region, data.colour, data.grey, rng)
        clean, damaged, mask = training_sample(region, data.crop, self.recipe.degradation, rng)
        pair = _tensor(clean), _tensor(damaged)
        return pair if mask is None else (*pair, _tensor(mask[..., None]))

    def _region(self, side: int, rng: np.random.Generator) -> Pixels:
        """Cut a square of `side` pixels out of a random picture, read from an area up to max_shrink times as large."""
        picture = self.pictures[int(rng.choice(len(self.pictures), p=self.weights))]
        height, width = picture.shape[:2]
        shrink = 1.0
        if rng.random() < 0.5:
            shrink = rng.uniform(1.0, max(1.0, min(self.recipe.data.max_shrink, min(height, width) / side)))
        area = min(round(side * shrink), height, width)
        y, x = rng.integers(0, height - area + 1), rng.integers(0, width - area + 1)
        patch = picture[y : y + area, x : x + area]
        if area == side:
            return patch
        return np.asarray(Image.fromarray(patch).resize((side, side), Image.Resampling.LANCZOS))


def augment(region: Pixels, colour: float, grey: float, rng: np.random.Generator) -> Pixels:
    """Turn and mirror a square of uint8 [n, n, 3] at random.

    `colour` is the chance that contrast, tint and brightness are shifted, `grey` the chance that hue is dropped.
    """
    region = np.rot90(region, int(rng.integers(4)))
    if rng.random() < 0.5:
        region = region[:, ::-1]
    if rng.random() < colour:
        gain = rng.uniform(0.75, 1.2) * rng.uniform(0.93, 1.07, 3)
        region = np.clip((region - 128.0) * gain + 128.0 + rng.uniform(-20, 20), 0, 255).astype(np.uint8)
        if rng.random() < 0.3:
            region = region[:, :, rng.permutation(3)]
    if rng.random() < grey:
        region = np.asarray(Image.fromarray(np.ascontiguousarray(region)).convert("L").convert("RGB"))
    return np.ascontiguousarray(region)


def batches(pairs: Pairs, first: int, last: int) -> DataLoader[tuple[Tensor, ...]]:
    """Load the batches of steps first to last - 1: step s holds the samples s * batch up to (s + 1) * batch - 1."""
    batch, workers = pairs.recipe.train.batch, pairs.recipe.data.workers
    return DataLoader(
        pairs,
        batch_size=batch,
        sampler=range(first * batch, last * batch),
        num_workers=workers,
        prefetch_factor=4 if workers else None,
        worker_init_fn=_one_thread if workers else None,
    )


def _one_thread(_: int) -> None:
    torch.set_num_threads(1)


def _tensor(pixels: NDArray[Any]) -> Tensor:
    return torch.from_numpy(np.array(pixels.transpose(2, 0, 1), order="C"))


def to_signal(pixels: Tensor) -> Tensor:
    """Map uint8 0..255 to float32 -1..1."""
    return pixels.to(torch.float32) / 127.5 - 1
