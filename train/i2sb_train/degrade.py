"""The corruptions a bridge learns to undo, on uint8 RGB arrays: what a user's damaged picture holds, bytes and all.

Kind "nvlabs" alone gives float32 in place of bytes, as the published checkpoints were trained.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from i2sb_rt import operators
from i2sb_rt.operators.base import F32, Mask, from_bytes, to_bytes
from i2sb_rt.operators.blur import gaussian_blur
from i2sb_rt.operators.jpeg import compress
from i2sb_rt.operators.pictures import GREY
from i2sb_train.recipe import GAUSSIAN, Degradation
from i2sb_train.sources import Picture, Pixels

Damaged = tuple[Pixels | F32, Mask | None]
Damage = Callable[[Picture, np.random.Generator], Damaged]

SUBSAMPLINGS = ("4:4:4", "4:2:2", "4:2:0")
MARGIN = 16
"""Pixels kept around a crop, so that what is done to it has true neighbours across its border.

Also the largest chroma block, a multiple of the grid of sr4x, and as far as any blur reaches.
"""


def margin(config: Degradation) -> int:
    """Tell how many pixels around a crop `training_sample` is to be given."""
    return 0 if config.kind in ("nvlabs", "paired") else MARGIN


def training_sample(
    regions: Picture, crop: int, config: Degradation, rng: np.random.Generator
) -> tuple[Pixels, Pixels | F32, Mask | None]:
    """Cut a clean crop and its damaged twin from a region of sides crop + 2 margin; where there is one, and the hole.

    regions: the clean region, and of a pair the damaged one. Returns the clean crop, uint8 [crop, crop, 3], the damaged
    one, likewise or float32 in [-1, 1], and the hole, bool [crop, crop], or None. Every draw is the generator's.
    """
    region = regions[0]
    if config.kind == "paired":
        return region, regions[1], None
    if config.kind == "nvlabs":
        return region, *published(region, config, rng)
    if config.kind == "jpeg":
        return *jpeg_pair(region, crop, config, rng), None
    window = (slice(MARGIN, MARGIN + crop),) * 2
    clean = region[window]
    if config.kind == "inpaint":
        mask = training_hole(crop, config, rng)
        return clean, emptied(clean, mask), mask
    return clean, operated(region, _one_of(config.operators, rng), config, rng)[window], None


def _one_of(names: Sequence[str], rng: np.random.Generator) -> str:
    return names[int(rng.integers(len(names)))]


def published(pixels: Pixels, config: Degradation, rng: np.random.Generator) -> Damaged:
    """Apply one of `config.operators` as NVlabs/I2SB does: to the crop alone, float32 [H, W, 3], nothing rounded.

    A hole holds the noise that the operator fills it with.
    """
    operator = operators.get(_one_of(config.operators, rng))
    seed = int(rng.integers(2**63))
    damaged = operator(from_bytes(pixels)[None], seed)[0]
    return damaged.transpose(1, 2, 0), operator.mask(pixels.shape[0], pixels.shape[1], seed)


def jpeg_pair(region: Pixels, crop: int, config: Degradation, rng: np.random.Generator) -> tuple[Pixels, Pixels]:
    """Cut a clean crop and its compressed twin from the middle of a region of sides crop + 2 MARGIN.

    Quality is log-uniform over config.quality, both ends included. The compression grid starts at the crop's corner,
    or, for the fraction config.shifted, anywhere.
    """
    low, high = config.quality
    quality = min(high, math.floor(low * ((high + 1) / low) ** rng.random()))
    weights = np.asarray(config.subsampling) / sum(config.subsampling)
    subsampling = SUBSAMPLINGS[int(rng.choice(3, p=weights))]
    y, x = MARGIN + (rng.integers(-MARGIN // 2, MARGIN // 2, 2) if rng.random() < config.shifted else np.zeros(2, int))
    window = (slice(y, y + crop), slice(x, x + crop))
    return region[window], compress(region, quality, subsampling)[window]


def operated(pixels: Pixels, name: str, config: Degradation, rng: np.random.Generator) -> Pixels:
    """Apply an operator of `config.operators`, add noise, clamp and round: uint8 [H, W, 3] to the same.

    An sr4x picture is noisy and rounded as the small one that a user has, and enlarged by repeating its pixels then, as
    `restore` does.
    """
    image, factor = from_bytes(pixels), 1
    damaged: NDArray[np.floating]
    if name == GAUSSIAN:
        damaged = gaussian_blur(image, _within(config.sigma, rng))
    else:
        operator = operators.get(name)
        factor = operator.factor
        damaged = (operator(image[None]) if operator.reduce is None else operator.downsample(image[None]))[0]
    if config.noise[1] > 0:
        damaged = damaged + _within(config.noise, rng) / 127.5 * rng.standard_normal(damaged.shape)
    height, width = pixels.shape[:2]
    return to_bytes(damaged).repeat(factor, axis=0).repeat(factor, axis=1)[:height, :width]


def emptied(pixels: Pixels, mask: Mask) -> Pixels:
    """Return a picture with grey in the hole, as `i2sb-rt degrade` leaves it; whoever restores it fills in noise."""
    damaged = pixels.copy()
    damaged[mask] = GREY
    return damaged


def strokes(height: int, width: int, config: Degradation, rng: np.random.Generator) -> Mask:
    """Draw a hole of brush strokes, bool [H, W], that covers a share within config.strokes."""
    low, high = config.strokes
    return operators.freeform_mask(height, width, low, high, seed=int(rng.integers(2**63)))


def box(height: int, width: int, config: Degradation, rng: np.random.Generator) -> Mask:
    """Draw a rectangular hole, bool [H, W], each side a share within config.box of the picture's."""
    mask = np.zeros((height, width), np.bool_)
    rows, columns = (_stretch(size, config.box, rng) for size in (height, width))
    mask[rows, columns] = True
    return mask


def _stretch(size: int, band: Sequence[float], rng: np.random.Generator) -> slice:
    length = max(1, round(size * _within(band, rng)))
    start = int(rng.integers(size - length + 1))
    return slice(start, start + length)


def training_hole(crop: int, config: Degradation, rng: np.random.Generator) -> Mask:
    """Draw the hole of a crop: a box for the fraction config.boxes, else strokes; never empty.

    Strokes are as wide as those on a picture up to config.zoom times as wide as the crop, of which a random part with
    some hole in it is taken; there the share that they cover can be any.
    """
    if rng.random() < config.boxes:
        return box(crop, crop, config, rng)
    side = round(crop * rng.uniform(1, config.zoom))
    mask = strokes(side, side, config, rng)
    places = np.argwhere(mask)
    inside = places[rng.integers(len(places))]
    y, x = (int(rng.integers(max(0, p - crop + 1), min(p, side - crop) + 1)) for p in inside)
    return mask[y : y + crop, x : x + crop]


def _within(band: Sequence[float], rng: np.random.Generator) -> float:
    low, high = band
    return rng.uniform(low, high)


def damages(config: Degradation, qualities: Sequence[int]) -> dict[str, Damage]:
    """Name what a network is scored on, each a function of a whole picture (or pair) and a generator.

    JPEG at the given qualities, chroma 4:2:0; or each operator; or each shape of holes that is trained on; or what the
    pairs hold.
    """
    if config.kind == "jpeg":
        return {f"QF {quality}": partial(_compressed, quality=quality) for quality in qualities}
    if config.kind == "operators":
        return {name: partial(_operated, name=name, config=config) for name in config.operators}
    if config.kind == "nvlabs":
        return {name: partial(_published, config=replace(config, operators=[name])) for name in config.operators}
    if config.kind == "paired":
        return {"pairs": lambda picture, _: (picture[1], None)}
    weights = {"strokes": 1 - config.boxes, "boxes": config.boxes}
    shapes = {"strokes": strokes, "boxes": box}
    return {name: partial(_holed, shape=shapes[name], config=config) for name, weight in weights.items() if weight}


def _compressed(picture: Picture, _: np.random.Generator, quality: int) -> Damaged:
    return compress(picture[0], quality), None


def _operated(picture: Picture, rng: np.random.Generator, name: str, config: Degradation) -> Damaged:
    return operated(picture[0], name, config, rng), None


def _published(picture: Picture, rng: np.random.Generator, config: Degradation) -> Damaged:
    return published(picture[0], config, rng)


def _holed(picture: Picture, rng: np.random.Generator, shape: Callable[..., Mask], config: Degradation) -> Damaged:
    mask = shape(*picture[0].shape[:2], config, rng)
    return emptied(picture[0], mask), mask
