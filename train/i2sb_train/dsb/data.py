"""What the ends of a bridge are distributed as: sets of points, Gaussians, mixtures, digits, pictures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from i2sb_rt.errors import UsageError
from i2sb_rt.image import U8, files_of, read
from i2sb_train.dsb.known_plan import KnownPlan, Mixture
from i2sb_train.dsb.recipe import PLANAR, DsbRecipe, End, shape_of

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
Random = np.random.Generator


class Ends:
    """Both ends of a recipe's bridge: `draw` gives states of one, the same for the same seed.

    folders: in place of the recipe's folders, in the order start, end. Raises UsageError for folders without pictures,
    and where a package is missing.
    """

    def __init__(self, recipe: DsbRecipe, folders: list[Path] | None = None) -> None:
        self.shape = recipe.shape
        self.plan = known_plan(recipe)
        given = list(folders or [])
        self._draws: dict[str, Callable[[int, Random, bool], NDArray[Any]]] = {}
        for name, end in (("start", recipe.start), ("end", recipe.end)):
            folder = given.pop(0) if given and end.kind == "images" else Path(end.folder)
            self._draws[name] = self._drawing(end, recipe, folder)
        if given:
            raise UsageError(f"--data {given[0]}: the recipe has no end of images left for it.")

    def draw(self, name: str, count: int, seed: list[int], held_out: bool = False) -> F32:
        """Draw states of the "start" or the "end", float32 [count, C, H, W]; of finite sets those held out, or others.

        Sets that can be drawn from without end hold nothing out: another seed gives other points.
        """
        values = self._draws[name](count, np.random.default_rng(seed), held_out)
        return np.ascontiguousarray(values.reshape(count, *self.shape), np.float32)

    def _drawing(self, end: End, recipe: DsbRecipe, folder: Path) -> Callable[[int, Random, bool], NDArray[Any]]:
        if end.kind == "normal":
            size = int(np.prod(self.shape))
            return lambda count, draw, _: end.mean + end.std * draw.standard_normal((count, size))
        if end.kind in PLANAR:
            return lambda count, draw, _: planar(end.kind, count, draw)
        if end.kind == "mixture":
            mixture = Mixture.drawn(end.dim, end.components, end.spread, end.std, end.seed)
            return lambda count, draw, _: mixture.sample(count, draw)
        if end.kind == "coupled":
            plan, start = self.plan, self._draws["start"]
            assert plan is not None
            return lambda count, draw, held: plan.sample(start(count, draw, held), draw)
        values = digits() if end.kind == "digits" else pictures(folder, shape_of(end, recipe.network))
        kept, held = split(values, end.holdout)
        return lambda count, draw, held_out: _chosen(held if held_out else kept, count, draw)


def known_plan(recipe: DsbRecipe) -> KnownPlan | None:
    """Return the plan that a recipe's bridge has to find, where its end is made by one."""
    end = recipe.end
    if end.kind != "coupled":
        return None
    potential = Mixture.drawn(end.dim, end.components, end.spread, end.std, end.seed)
    return KnownPlan(potential, 2 * recipe.bridge.horizon)


def planar(kind: str, count: int, draw: Random) -> F64:
    """Draw points of a set in the plane, [count, 2], with a spread of about 1 to 2 around the origin."""
    if kind in ("moons", "circles", "s-curve"):
        return _of_sklearn(kind, count, int(draw.integers(2**31)))
    if kind == "checkerboard":  # squares of side 1 within [-2, 2], those of one colour
        x = draw.uniform(-2, 2, count)
        row = draw.integers(2, size=count) * 2 - 2 + np.floor(x) % 2
        return np.stack([x, row + draw.random(count)], 1)
    noise = draw.standard_normal((count, 2))
    if kind == "8gaussians":
        angle, radius, width = draw.integers(8, size=count) * (np.pi / 4), np.full(count, 2.0), 0.2
    else:
        angle = 3 * np.pi * np.sqrt(draw.random(count))
        radius, width = angle / (1.5 * np.pi), 0.08
    points: F64 = radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1) + width * noise
    return points


_NEEDS: Final = "needs scikit-learn: pip install 'i2sb-rt[train]'."


def _of_sklearn(kind: str, count: int, seed: int) -> F64:
    try:
        from sklearn import datasets
    except ImportError as error:
        raise UsageError(f'kind "{kind}" {_NEEDS}') from error
    many = 8 * count  # moons and circles come evenly spaced along their arcs: independent points are some of many
    if kind == "moons":
        points = (datasets.make_moons(many, noise=0.08, random_state=seed)[0][:count] - (0.5, 0.25)) * 1.5
    elif kind == "circles":
        points = 1.8 * datasets.make_circles(many, noise=0.04, factor=0.5, random_state=seed)[0][:count]
    else:
        points = datasets.make_s_curve(count, noise=0.08, random_state=seed)[0][:, [0, 2]]
    found: F64 = np.asarray(points, np.float64)
    return found


def digits() -> F32:
    """Return scikit-learn's digits as values in [-1, 1], [1797, 64]."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise UsageError(f'kind "digits" {_NEEDS}') from error
    found: F32 = (load_digits().data / 8 - 1).astype(np.float32)
    return found


def pictures(folder: Path, shape: tuple[int, int, int]) -> U8:
    """Return the middle squares of a folder's pictures, uint8 [n, C, H, W]."""
    from PIL import Image

    channels, side = shape[0], shape[1]
    found = []
    for path in files_of(folder):
        whole = Image.fromarray(read(path).colour).convert("L" if channels == 1 else "RGB")
        least = min(whole.size)
        left, top = (whole.width - least) // 2, (whole.height - least) // 2
        square = whole.resize((side, side), Image.Resampling.BOX, (left, top, left + least, top + least))
        found.append(np.asarray(square).reshape(side, side, channels).transpose(2, 0, 1))
    if len(found) < 2:
        raise UsageError(f"{folder}: holds {len(found)} pictures; a bridge needs at least 2 of them.")
    return np.stack(found)


def split(values: NDArray[Any], holdout: float) -> tuple[NDArray[Any], NDArray[Any]]:
    """Split a finite set into those to train on and those held out, at least one each, always the same ones."""
    order = np.random.default_rng(0).permutation(len(values))
    held = min(max(1, round(holdout * len(values))), len(values) - 1)
    return values[np.sort(order[held:])], values[np.sort(order[:held])]


def _chosen(values: NDArray[Any], count: int, draw: Random) -> NDArray[Any]:
    """Choose states, none twice before all have been chosen; bytes are scaled to [-1, 1]."""
    rounds = [draw.permutation(len(values)) for _ in range(-(-count // len(values)))]
    found = values[np.concatenate(rounds)[:count]]
    return found / np.float32(127.5) - 1 if found.dtype == np.uint8 else found
