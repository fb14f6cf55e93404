"""What every degradation is: a callable on batches of images, with a mask where it makes holes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from i2sb_rt.errors import UsageError
from i2sb_rt.sampling import Seeds, seed_list

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
U8 = NDArray[np.uint8]
Mask = NDArray[np.bool_]

MASKS: Final = 1
CHOICES: Final = 2


@dataclass(frozen=True)
class Operator:
    """A degradation of images in [-1, 1]; call it as `operator(x, seed=0)`.

    name: as `i2sb_rt.operators.get` takes it. degrade: one image [3, H, W] and its seed to the damaged one.
    hole: the mask of a height, a width and a seed, for a degradation that makes holes.
    reduce: one image [3, H, W] to the small one, for a degradation that loses resolution; `factor` times smaller.
    Those of `i2sb_rt.operators.get` can be pickled, and so given to other processes.
    """

    name: str
    degrade: Callable[[F32, int], NDArray[Any]]
    hole: Callable[[int, int, int], Mask] | None = None
    reduce: Callable[[F32], NDArray[Any]] | None = None
    factor: int = 1

    def __call__(self, x: F32, seed: Seeds = 0) -> F32:
        """Damage a batch of images; each result depends on its own image and seed alone.

        x: float32 [B, 3, H, W], finite, in [-1, 1]; it is left as it is. seed: 0 .. 2^64 - 1, one for all or one each.
        Returns float32 [B, 3, H, W]; some operators leave [-1, 1]. Raises UsageError for what does not fit.
        """
        check(x)
        out = np.empty(x.shape, np.float32)
        for image, number, place in zip(x, seed_list(seed, len(x)), out, strict=True):
            place[...] = self.degrade(image, number)
        return out

    def mask(self, height: int, width: int, seed: int = 0) -> Mask | None:
        """Return the mask of an image of this size and seed, bool [H, W], True in the hole; None if it makes none.

        Raises UsageError for a size that the mask cannot have and for a seed outside 0 .. 2^64 - 1.
        """
        if self.hole is None:
            return None
        return self.hole(height, width, *seed_list(seed, 1))

    def downsample(self, x: F32) -> F32:
        """Return the small images, float32 [B, 3, ceil(H / factor), ceil(W / factor)], of float32 [B, 3, H, W].

        Raises UsageError for what does not fit, and where the operator loses no resolution.
        """
        check(x)
        if self.reduce is None:
            raise UsageError(f"{self.name} keeps the size of an image; only sr4x operators have a small one")
        height, width = (-(-side // self.factor) for side in x.shape[2:])
        out = np.empty((len(x), 3, height, width), np.float32)
        for image, place in zip(x, out, strict=True):
            place[...] = self.reduce(image)
        return out


class Draws:
    """Random integers of a seed, the same on every platform and with every NumPy.

    They are the raw words of Philox4x64-10, key (seed, purpose), which NumPy promises to keep. No float is involved.
    """

    def __init__(self, seed: int, purpose: int) -> None:
        self._words = np.random.Philox(key=np.array([seed, purpose], np.uint64))

    def below(self, bound: int) -> int:
        """Return an integer in 0 .. bound - 1; that the first ones are likelier by bound / 2^64 does not matter."""
        return int(self._words.random_raw()) % bound

    def between(self, low: int, high: int) -> int:
        """Return an integer in low .. high, both included."""
        return low + self.below(high - low + 1)


def check(x: Any) -> None:
    """Raise UsageError for what is not float32 [B, 3, H, W] with finite numbers."""
    if not isinstance(x, np.ndarray) or x.dtype != np.float32:
        kind = x.dtype if isinstance(x, np.ndarray) else type(x).__name__
        raise UsageError(f"an operator takes a float32 array with values in [-1, 1], not {kind}")
    if x.ndim != 4 or x.shape[1] != 3 or 0 in x.shape[2:]:
        raise UsageError(f"an operator takes the shape [B, 3, H, W], not {list(x.shape)}")
    if not np.isfinite(x).all():
        raise UsageError("the images hold NaN or infinity")


def to_bytes(x: NDArray[Any]) -> U8:
    """Return an image [3, H, W] in [-1, 1] as uint8 [H, W, 3], clamped and rounded half to even."""
    levels = np.rint((np.clip(x, -1, 1) + 1) * 127.5)
    return np.ascontiguousarray(levels.astype(np.uint8).transpose(1, 2, 0))


def from_bytes(pixels: U8) -> F32:
    """Return uint8 [H, W, 3] as a float32 image [3, H, W] in [-1, 1]."""
    return np.ascontiguousarray((pixels.astype(np.float32) / np.float32(127.5) - 1).transpose(2, 0, 1))
