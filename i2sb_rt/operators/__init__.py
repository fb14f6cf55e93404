"""Degradations: what bridges are trained to undo, to make test data and to measure with.

`get(name)(x, seed=0)` damages float32 images [B, 3, H, W] in [-1, 1]. Beside an operator with the quirks of the
published checkpoints stands `NAME-exact`, which does what the name says; docs/operators.md tells how they differ.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Final

from i2sb_rt.errors import UsageError
from i2sb_rt.operators import blur, inpaint, jpeg, superresolution
from i2sb_rt.operators.base import F32, F64, Operator
from i2sb_rt.operators.masks import center_mask, freeform_mask
from i2sb_rt.operators.mixture import DEFAULT, mixture
from i2sb_rt.operators.noisy import noisy

__all__ = ["NAMES", "Operator", "center_mask", "downsample", "freeform_mask", "get", "of_task"]

NAMES: Final = (
    "jpeg-QF",
    "jpeg-QF-exact",
    *(name + ending for name in (*blur.TAPS, *superresolution.TAPS) for ending in ("", "-exact")),
    "gaussian-SIGMA",
    *inpaint.HOLES,
    "mixture",
    "mixture:NAME,NAME,...",
    "NAME+noise-LEVEL",
)
"""Every name that `get` takes; QF is a quality, 1 to 100, SIGMA a spread, 0.1 to 100 pixels.

`mixture:NAME,NAME,...` names its members. `NAME+noise-LEVEL` adds noise, LEVEL of white to black strong, 0 to 1.
"""

TASKS: Final = {
    "jpeg": tuple(f"jpeg-{quality}-exact" for quality in (10, 5, 20, 40, 60, 80, 95)),
    "sr4x": ("sr4x-bicubic",),
    "deblur": (*(f"gaussian-{sigma}+noise-0.01" for sigma in (2, 1, 3)), "blur-uni-exact", "blur-gauss-exact"),
    "inpaint": ("inpaint-freeform1020", "inpaint-freeform2030"),
}
"""Which operators stand for the task of a model that undoes more than one, the most typical first."""

_NUMBER: Final = r"([0-9]{1,4}(?:\.[0-9]{1,4})?)"


def of_task(task: str) -> tuple[Operator, ...]:
    """Return the operators that stand for a model's task, the most typical first; of no other task, none."""
    names = TASKS.get(task, (task,))
    try:
        return tuple(get(name) for name in names)
    except UsageError:
        return ()


def get(name: str) -> Operator:
    """Return the degradation of a name, one of `NAMES`. Raises UsageError for another name, telling them all."""
    stem = name.removesuffix("-exact")
    exact = stem != name
    if name in inpaint.HOLES:
        return Operator(name, partial(inpaint.filled, name=name), inpaint.HOLES[name])
    if stem in superresolution.TAPS:
        reduce = partial(superresolution.reduced, name=stem)
        coarse = partial(superresolution.coarse, name=stem)
        return replace(_seedless(name, coarse), reduce=reduce, factor=superresolution.FACTOR)
    if stem in blur.TAPS:
        return _seedless(name, partial(blur.exact_blur if exact else blur.ddrm_blur, name=stem))
    if match := re.fullmatch("jpeg-(0|[1-9][0-9]{0,3})", stem):
        quality = int(_within(match[1], 1, 100, f"{name}: the quality of a JPEG is"))
        return _seedless(name, partial(jpeg.libjpeg if exact else jpeg.ddrm_jpeg, quality=quality))
    if match := re.fullmatch(f"gaussian-{_NUMBER}", name):
        sigma = _within(match[1], 0.1, 100, f"{name}: the width of a Gaussian, in pixels, is")
        return _seedless(name, partial(blur.gaussian_blur, sigma=sigma))
    if match := re.fullmatch(rf"(.+)\+noise-{_NUMBER}", name):
        level = _within(match[2], 0, 1, f"{name}: the level of noise, on a scale from black to white, is")
        return noisy(get(match[1]), name, level)
    if name == "mixture" or name.startswith("mixture:"):
        members = DEFAULT if name == "mixture" else name.removeprefix("mixture:").split(",")
        return mixture(name, tuple(_member(member, name) for member in members))
    raise UsageError(f"there is no operator {name!r}; there are {', '.join(NAMES)}")


def _within(text: str, least: float, most: float, what: str) -> float:
    """Read a number. Raises UsageError, which tells what it is, where it is out of range."""
    if not least <= float(text) <= most:
        raise UsageError(f"{what} from {least} to {most}, not {text}")
    return float(text)


def downsample(name: str) -> Callable[[F32], F32]:
    """Return what makes the small images of an sr4x operator: [B, 3, H, W] to [B, 3, ceil(H / 4), ceil(W / 4)].

    Raises what `get` raises; what it returns raises UsageError where the operator keeps the size.
    """
    return get(name).downsample


def _seedless(name: str, degrade: Callable[[F32], F32 | F64]) -> Operator:
    """Return the operator of a degradation in which nothing is random."""
    return Operator(name, partial(_unseeded, degrade))


def _unseeded(degrade: Callable[[F32], F32 | F64], image: F32, seed: int) -> F32 | F64:
    return degrade(image)


def _member(name: str, whole: str) -> Operator:
    if name.startswith("mixture"):
        raise UsageError(f"{whole}: a mixture is no member of a mixture")
    return get(name)
