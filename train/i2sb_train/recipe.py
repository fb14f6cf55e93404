"""Recipes: one TOML file holds everything that decides what a training run computes.

Each table of the file is one frozen dataclass below; a field without a default must be given.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from i2sb_rt.errors import UsageError
from i2sb_rt.operators import superresolution

PRECISIONS = ("auto", "fp32", "bf16", "fp16", "fp64")
KINDS = ("jpeg", "operators", "inpaint", "paired", "nvlabs")
GAUSSIAN = "gaussian-blur"
"""The one name in `Degradation.operators` that is known to training alone."""

Rule = tuple[str, bool, str]
"""A key, whether its value is right, and what would be."""


class RecipeError(UsageError):
    """A recipe that cannot be used; the message names the key."""


@dataclass(frozen=True)
class Model:
    """What the finished model file says of itself, and the defaults with which it restores."""

    name: str
    task: str
    license: str
    trained_on: str
    sampler: str = "sde"
    nfe: int = 1
    clip: bool = True
    tile: int = 256
    overlap: int = 32
    batch: int = 4


@dataclass(frozen=True)
class Bridge:
    """The bridge: the schedule of `i2sb_rt.Schedule`, and what the network sees and says.

    `prediction` is "noise", (x_k - x0) / std_fwd_k as published, or "mean", x0 itself: for holes full of noise, which
    a network would otherwise have to repeat pixel by pixel for it to be taken away.
    `ot_ode` trains without noise in the bridge; `cond_x1` shows the network the damaged picture beside the state;
    `add_x1_noise` starts the bridge at x1 + N(0, 1), while cond_x1 still shows x1. `ot_ode` and `cond_x1` together need
    it: from x_k = mu_x0 x0 + mu_x1 x1 and x1 a network could compute x0, and would learn nothing else. `cond_mask`
    shows it the known pixels, with zeros in the hole, and the mask. `fill` is what x1 holds in a hole: "noise", N(0, 1)
    as published, or "smooth", a membrane between the known pixels.
    """

    interval: int = 1000
    beta_max: float = 0.3
    t0: float = 1e-4
    T: float = 1.0
    ot_ode: bool = False
    cond_x1: bool = False
    add_x1_noise: bool = False
    cond_mask: bool = False
    fill: str = "noise"
    prediction: str = "noise"


@dataclass(frozen=True)
class Data:
    """Where pictures come from. Folders are relative to the recipe; sizes are pixels, the rest are fractions.

    Folders hold pictures, or WebDataset shards of them. `damaged` are the folders of the damaged twins, one for each of
    `folders`, for kind "paired". A crop is read from a region up to `max_shrink` times its size and shrunk to it; with
    `fit`, from as much as the picture allows. `turns` turns crops by right angles; all are mirrored. `procedural` of
    all crops are dead leaves. Names in `holdout`, and their `NAME_*` variants, are never trained on: they are the
    validation pictures. `memory` is how many MiB of decoded pictures are kept; others are decoded for each crop.
    """

    crop: int
    folders: list[str] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)
    holdout: list[str] = field(default_factory=list)
    procedural: float = 0.0
    max_shrink: float = 1.0
    colour: float = 0.0
    grey: float = 0.0
    fit: bool = False
    turns: bool = True
    memory: int = 4096
    workers: int = 1


@dataclass(frozen=True)
class Degradation:
    """What is done to a clean crop; each kind reads its own keys.

    kind "jpeg": libjpeg with log-uniform quality and mixed chroma subsampling. `subsampling` weighs 4:4:4, 4:2:2 and
    4:2:0; `shifted` is the fraction of crops whose 8x8 grid does not start at the crop's corner, as in photos that were
    cropped after their compression.

    kind "operators": one of `operators`, equally likely, by the names that `i2sb_rt.operators.get` takes, or
    "gaussian-blur" with a spread of `sigma` [lowest, highest] pixels. Then Gaussian noise is added, its standard
    deviation in `noise` [lowest, highest] levels of 255.

    kind "inpaint": holes of brush strokes that cover a share in `strokes` [lowest, highest], drawn on a square up to
    `zoom` times as wide as the crop and cut; or, for the fraction `boxes`, a rectangle whose sides are shares of the
    crop's in `box` [lowest, highest].

    kind "paired": what the damaged twins of the pictures hold, whose sides are `factor` times smaller.

    kind "nvlabs": one of `operators`, equally likely, by any name that `i2sb_rt.operators.get` takes, applied to the
    crop alone and left in float32, neither clamped nor rounded: as the published checkpoints were trained.
    """

    kind: str
    quality: list[int] = field(default_factory=lambda: [5, 60])
    subsampling: list[float] = field(default_factory=lambda: [0.15, 0.15, 0.7])
    shifted: float = 0.25
    operators: list[str] = field(default_factory=list)
    sigma: list[float] = field(default_factory=lambda: [0.5, 3.0])
    noise: list[float] = field(default_factory=lambda: [0.0, 0.0])
    strokes: list[float] = field(default_factory=lambda: [0.1, 0.3])
    zoom: float = 1.0
    boxes: float = 0.3
    box: list[float] = field(default_factory=lambda: [0.15, 0.5])
    factor: int = 1

    @property
    def upscale(self) -> int:
        """How much larger the restored picture is than what a user has: 4 where every operator is an sr4x."""
        if self.kind == "paired":
            return self.factor
        sr4x = [name.removesuffix("-exact") in superresolution.TAPS for name in self.operators]
        return superresolution.FACTOR if sr4x and all(sr4x) else 1


@dataclass(frozen=True)
class Train:
    """The optimisation. Rates are per step; `decay` steps of falling rate end the run; `ema` is the decay of the mean.

    `batch` is that of all processes together; `micro` splits each process's share of it to bound memory (0 = whole).
    `last_step` of the crops are trained at the last bridge step, the only one that a restoration in one network call
    uses; the others are drawn uniformly. The rate falls by `lr_gamma` every `lr_step` steps (0 = never).
    """

    steps: int
    batch: int
    lr: float
    seed: int = 0
    warmup: int = 0
    decay: int = 0
    lr_end: float = 0.01
    lr_gamma: float = 1.0
    lr_step: int = 0
    weight_decay: float = 0.0
    ema: float = 0.999
    clip: float = 1.0
    last_step: float = 0.0
    micro: int = 0
    precision: str = "auto"
    compile: bool = False
    log_every: int = 50
    save_minutes: float = 10.0
    keep: int = 3


@dataclass(frozen=True)
class Validation:
    """Held-out PSNR while training: every `every` steps (0 = never), on the middle `crop` pixels.

    `qualities` are those of kind "jpeg"; the other kinds are scored for each operator, or each shape of holes.
    """

    every: int = 0
    crop: int = 192
    qualities: list[int] = field(default_factory=lambda: [10])


@dataclass(frozen=True)
class Recipe:
    """A whole recipe; `network` holds UNet's keyword arguments."""

    model: Model
    network: dict[str, Any]
    bridge: Bridge
    data: Data
    degradation: Degradation
    train: Train
    validation: Validation = field(default_factory=Validation)


def value_of(recipe: Any, key: str) -> Any:
    """Return the value of a key such as `train.lr`, or a whole table such as `network`."""
    table, _, name = key.partition(".")
    return getattr(getattr(recipe, table), name) if name else getattr(recipe, table)


def network_multiple(network: dict[str, Any]) -> int:
    """Tell what the sides of a picture must be multiples of for a network with these keyword arguments."""
    patch, levels = network.get("patch", 1), network.get("channel_mult", [1, 2, 4, 8])
    if type(patch) is not int or not isinstance(levels, list) or not levels:
        raise RecipeError("network.patch must be an integer and network.channel_mult a list of integers.")
    return int(patch * 2 ** (len(levels) - 1))
