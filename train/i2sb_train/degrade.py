"""The corruptions a bridge learns to undo, on uint8 RGB arrays."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from i2sb_rt.operators.jpeg import compress
from i2sb_train.recipe import Degradation

SUBSAMPLINGS = ("4:4:4", "4:2:2", "4:2:0")
MARGIN = 16
"""Pixels kept around a crop, so that decoding has true neighbours across its border; also the largest chroma block."""


def jpeg_pair(
    region: NDArray[np.uint8], crop: int, config: Degradation, rng: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
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
