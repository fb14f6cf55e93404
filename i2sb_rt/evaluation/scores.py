"""The metrics of one evaluation: on each picture, then over all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from i2sb_rt.errors import UsageError
from i2sb_rt.evaluation.metrics import psnr, sharpness, skimage_metrics, ssim
from i2sb_rt.evaluation.perceptual import Inception, Lpips
from i2sb_rt.image import U8

Features = NDArray[np.float32]
Measure = Callable[[U8, U8], float]
Distance = Callable[[Sequence[Features], Sequence[Features]], float]

_OF_PICTURES: Final[dict[str, Callable[[], Measure]]] = {
    "psnr": lambda: psnr,
    "ssim": lambda: ssim,
    "sharpness": lambda: sharpness,
    "lpips": Lpips,
}
OF_SETS: Final = ("fid", "kid")
NAMES: Final = (*_OF_PICTURES, *OF_SETS)


@dataclass(frozen=True, eq=False)
class Score:
    """One picture against the clean one. values: by metric; features: what fid and kid compare, empty without them."""

    values: dict[str, float]
    features: Features


class Scorer:
    """Computes the metrics of these names; those of `OF_SETS` speak of all pictures together.

    Raises UsageError for an unknown name, and where a metric's library or weights are missing.
    """

    def __init__(self, names: Sequence[str]) -> None:
        for name in names:
            if name not in NAMES:
                raise UsageError(f"there is no metric {name!r}; there are {', '.join(NAMES)}")
        self.names = tuple(names)
        if "ssim" in names:
            skimage_metrics()  # so that it is told before any work if it is missing
        self._measures = {name: _OF_PICTURES[name]() for name in names if name in _OF_PICTURES}
        self._features: Callable[[U8], Features] = lambda picture: np.empty(0, np.float32)
        self._distances: dict[str, Distance] = {}
        for name in names:
            if name in OF_SETS and not self._distances:
                inception = Inception(name)
                self._features = inception.features
                self._distances = {"fid": inception.fid, "kid": inception.kid}

    def features(self, picture: U8) -> Features:
        """Return what fid and kid compare of a picture, uint8 [H, W, 3]; empty where neither is asked for."""
        return self._features(picture)

    def score(self, clean: U8, picture: U8) -> Score:
        """Score a picture against the clean one, both uint8 [H, W, 3]. Raises UsageError for sizes a metric refuses."""
        values = {name: measure(clean, picture) for name, measure in self._measures.items()}
        return Score(values, self.features(picture))

    def summary(self, clean: Sequence[Features], scores: Sequence[Score]) -> dict[str, float]:
        """Return each metric over all pictures, in the order of the names: a mean, or a distance of sets.

        clean: the features of the clean pictures. A distance of sets of fewer than two pictures is NaN.
        """
        figures = {}
        for name in self.names:
            if name in self._measures:
                figures[name] = float(np.mean([score.values[name] for score in scores]))
            elif len(scores) < 2:
                figures[name] = float("nan")
            else:
                figures[name] = self._distances[name](clean, [score.features for score in scores])
        return figures
