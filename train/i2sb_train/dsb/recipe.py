"""Recipes of diffusion Schrodinger bridges: each table of the TOML file is one frozen dataclass below."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final

from i2sb_train.recipe import RecipeError, Rule, network_multiple, value_of

ALGORITHMS: Final = ("ipf", "imf")
GRIDS: Final = ("cosine", "linear")
REFERENCES: Final = ("brownian", "ou")
PREDICTIONS: Final = ("drift", "noise", "mean", "residual")
PLANAR: Final = ("moons", "circles", "8gaussians", "spiral", "checkerboard", "s-curve")
KINDS: Final = (*PLANAR, "normal", "mixture", "coupled", "digits", "images")


@dataclass(frozen=True)
class Model:
    """What the two model files say of themselves: NAME-forward and NAME-backward.

    `nfe` is the default number of network calls, 0 for all steps; `batch` is how many states the native engine hands to
    the network at once.
    """

    name: str
    license: str
    trained_on: str
    nfe: int = 0
    batch: int = 64


@dataclass(frozen=True)
class End:
    """What one end of the bridge is distributed as.

    kind "moons", "circles", "8gaussians", "spiral", "checkerboard" and "s-curve" are sets in the plane. "normal" is
    N(mean, std^2 I) in `dim` dimensions; as the end of a bridge with mean 0 it is a prior, which samples are made from.
    "mixture" is one of `components` Gaussians, drawn once from `seed`: their means on a sphere of radius `spread`,
    their standard deviations between 0.6 and 1.4 `std`. "coupled", for the end alone, is where the entropic plan of a
    known potential takes the start (`known_plan`): `components`, `spread`, `std` and `seed` are the potential's.
    "digits" are scikit-learn's digits, 8x8. "images" are the pictures of `folder`, their middle squares shrunk to
    `size`. Of the last two, the share `holdout` is never trained on.
    """

    kind: str
    dim: int = 2
    mean: float = 0.0
    std: float = 1.0
    components: int = 5
    spread: float = 3.0
    seed: int = 0
    folder: str = ""
    size: int = 32
    holdout: float = 0.2


@dataclass(frozen=True)
class Bridge:
    """The process that the bridge is close to, and its steps.

    `steps` of sizes gamma that sum up to `horizon`: a step adds noise of variance 2 gamma. grid "cosine": the times are
    horizon (1 - cos(pi k / steps)) / 2, fine at both ends; "linear": gammas rise linearly to the middle and fall, the
    smallest `ratio` times the largest (arXiv 2106.01357, section 5). reference "brownian", or "ou": towards
    N(0, end.std^2), which must then be the end. `prediction` is what the networks say: the "drift" f; the "noise"
    f sqrt(gamma / 2), of one size in all steps; the next state's "mean", or the "residual" between it and the state.
    """

    steps: int = 20
    horizon: float = 0.5
    grid: str = "cosine"
    ratio: float = 0.1
    reference: str = "brownian"
    prediction: str = "drift"

    def gammas(self) -> list[float]:
        """Return the sizes of the steps, from the data on."""
        n = self.steps
        if self.grid == "cosine":
            times = [(1 - math.cos(math.pi * k / n)) / 2 for k in range(n + 1)]
            shares = [b - a for a, b in pairwise(times)]
        else:
            middle = max(1, (n - 1) // 2)  # where the largest stand
            shares = [self.ratio + (1 - self.ratio) * min(k, n - 1 - k) / middle for k in range(n)]
        return [self.horizon * share / sum(shares) for share in shares]


@dataclass(frozen=True)
class Train:
    """The fitting: `iterations` of two halves, each of which trains one network for `steps` steps.

    algorithm "ipf": iterative proportional fitting (arXiv 2106.01357), "imf": iterative Markovian fitting (arXiv
    2303.16852). The last iteration takes `last_steps` (0 = as many). `cache` trajectories, or pairs, are made with the
    other network's EMA weights and made anew every `refresh` steps. With `warm_start` a network goes on from its
    weights in the iteration before. In each half the rate falls by half a cosine from `lr` to lr * `lr_end`; `ema` is
    the decay of the mean of the weights.
    """

    iterations: int
    steps: int
    batch: int
    lr: float
    algorithm: str = "ipf"
    last_steps: int = 0
    seed: int = 0
    cache: int = 20000
    refresh: int = 1000
    warm_start: bool = True
    lr_end: float = 0.01
    ema: float = 0.995
    clip: float = 1.0
    log_every: int = 500
    save_minutes: float = 5.0
    keep: int = 3


@dataclass(frozen=True)
class Validation:
    """What is measured after each half: `samples` generated and held out, by `projections` of sliced Wasserstein."""

    samples: int = 2000
    projections: int = 500


@dataclass(frozen=True)
class DsbRecipe:
    """A whole recipe; `network` holds UNet's keyword arguments, or one table `mlp` with MLP's but dim."""

    model: Model
    network: dict[str, Any]
    start: End
    end: End
    train: Train
    bridge: Bridge = field(default_factory=Bridge)
    validation: Validation = field(default_factory=Validation)

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape of a state, [C, H, W]; points are [dim, 1, 1]."""
        return shape_of(self.start, self.network)

    @property
    def whole_network(self) -> dict[str, Any]:
        """The network as model files tell it: an MLP with the dim that the states have."""
        if "mlp" not in self.network:
            return self.network
        return {"mlp": {**self.network["mlp"], "dim": self.shape[0]}}

    @property
    def shown(self) -> tuple[int, int, int]:
        """The shape in which a state is drawn: digits are images also where a network takes them for points."""
        return (1, 8, 8) if self.start.kind == "digits" else self.shape

    @property
    def prior(self) -> float:
        """The standard deviation of the prior that samples are made from, 0 where the end is data."""
        return self.end.std if self.end.kind == "normal" and self.end.mean == 0 else 0.0

    def steps_of(self, half: int) -> int:
        """Tell how many steps a half-iteration has, counted from 0."""
        last = half // 2 == self.train.iterations - 1
        return self.train.last_steps if last and self.train.last_steps else self.train.steps


def shape_of(end: End, network: dict[str, Any]) -> tuple[int, int, int]:
    """Tell the shape [C, H, W] of what an end draws, for a network."""
    if end.kind == "digits":
        return (64, 1, 1) if "mlp" in network else (1, 8, 8)
    if end.kind == "images":
        return (1 if network.get("in_channels") == 1 else 3, end.size, end.size)
    return (end.dim, 1, 1)


def dsb_rules(recipe: DsbRecipe) -> Iterator[Rule]:
    """Yield every demand on the values: key, whether it holds, what would be right."""
    bridge, train, network = recipe.bridge, recipe.train, recipe.network
    yield "train.algorithm", train.algorithm in ALGORITHMS, f"one of {', '.join(ALGORITHMS)}"
    yield "bridge.grid", bridge.grid in GRIDS, f"one of {', '.join(GRIDS)}"
    yield "bridge.reference", bridge.reference in REFERENCES, f"one of {', '.join(REFERENCES)}"
    yield "bridge.prediction", bridge.prediction in PREDICTIONS, f"one of {', '.join(PREDICTIONS)}"
    yield "bridge.steps", 2 <= bridge.steps <= 1000, "between 2 and 1000"
    yield "bridge.ratio", 0 < bridge.ratio <= 1, "above 0, at most 1"
    for key in ("bridge.horizon", "train.lr", "train.clip", "start.std", "end.std"):
        yield key, 0 < value_of(recipe, key) < 1e6, "above 0, below 1e6"
    for key in ("start.mean", "end.mean", "start.spread", "end.spread"):
        yield key, abs(value_of(recipe, key)) < 1e6, "a number below 1e6"
    for key in ("train.iterations", "train.steps", "train.batch", "train.cache", "train.refresh", "train.keep"):
        yield key, value_of(recipe, key) >= 1, "at least 1"
    for key in ("train.log_every", "model.batch", "validation.samples", "validation.projections"):
        yield key, value_of(recipe, key) >= 1, "at least 1"
    for key in ("train.seed", "train.last_steps", "start.seed", "end.seed", "model.nfe"):
        yield key, value_of(recipe, key) >= 0, "0 or more"
    yield "train.ema", 0 <= train.ema < 1, "at least 0 and below 1"
    yield "train.lr_end", 0 <= train.lr_end <= 1, "between 0 and 1"
    yield "model.nfe", recipe.model.nfe <= bridge.steps, f"at most bridge.steps, {bridge.steps}"
    for name in ("start", "end"):
        yield from _end_rules(recipe, name)
    agrees = bridge.reference == "brownian" or recipe.prior > 0
    yield "bridge.reference", agrees, 'brownian where the end is not of kind "normal" with mean 0'
    if bridge.reference == "ou" and agrees:
        stable = max(bridge.gammas()) < recipe.prior**2
        yield "bridge.horizon", stable, "less, or bridge.steps more: each gamma is below end.std^2"
    shapes = shape_of(recipe.start, network), shape_of(recipe.end, network)
    if recipe.end.kind == "normal" and len({*shapes}) > 1 and "mlp" not in network:
        shapes = shapes[0], shapes[0]  # a prior takes the shape of the data
    yield "end.dim", shapes[0] == shapes[1], f"such that both ends have one shape, not {shapes[0]} and {shapes[1]}"
    yield from _network_rules(recipe)


def _end_rules(recipe: DsbRecipe, name: str) -> Iterator[Rule]:
    end: End = getattr(recipe, name)
    yield f"{name}.kind", end.kind in KINDS, f"one of {', '.join(KINDS)}"
    yield f"{name}.kind", name == "end" or end.kind != "coupled", 'anything but "coupled", which is for the end'
    fits = end.dim >= 1 and (end.kind not in PLANAR or end.dim == 2)
    yield f"{name}.dim", fits, "at least 1; 2 for sets in the plane"
    yield f"{name}.components", end.components >= 1, "at least 1"
    yield f"{name}.size", 1 <= end.size <= 4096, "between 1 and 4096"
    yield f"{name}.holdout", 0 < end.holdout < 1, "above 0 and below 1"
    yield f"{name}.folder", bool(end.folder) == (end.kind == "images"), 'a folder for kind "images", else left out'


def _network_rules(recipe: DsbRecipe) -> Iterator[Rule]:
    network, (channels, height, width) = recipe.network, recipe.shape
    if "mlp" in network:
        sound = set(network) == {"mlp"} and isinstance(network["mlp"], dict) and "dim" not in network["mlp"]
        yield "network", sound, "one table, [network.mlp], without dim"
        yield "network", (height, width) == (1, 1), "a U-Net, as the states are images"
        return
    try:
        multiple = network_multiple(network)
    except RecipeError:
        multiple = 0
    yield "network", multiple > 0 and height % multiple == 0, f"a U-Net that takes images of {height}x{width}"
    size = network.get("image_size")
    yield "network", size == height, f"a network with image_size = {height}, the side of the states"
    agrees = network.get("in_channels") == network.get("out_channels") == channels
    yield "network", agrees, f"a network with in_channels = out_channels = {channels}"
