"""Recipes: one TOML file holds everything that decides what a training run computes.

Each table of the file is one frozen dataclass below; a field without a default must be given. An unknown or missing
key, or a value of the wrong type, is refused by its full name.
"""

from __future__ import annotations

import dataclasses
import math
import tomllib
import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from i2sb_rt import operators
from i2sb_rt.errors import UsageError
from i2sb_rt.operators import blur, superresolution

PRECISIONS = ("auto", "fp32", "bf16")
KINDS = ("jpeg", "operators", "inpaint")
GAUSSIAN = "gaussian-blur"
"""The one name in `Degradation.operators` that is known to training alone."""


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
    """The bridge: the schedule of `i2sb_rt.Schedule`, and what the network sees.

    `ot_ode` trains without noise in the bridge; `cond_x1` shows the network the damaged picture beside the state. Not
    both: from x_k = mu_x0 x0 + mu_x1 x1 and x1 a network could compute x0, and would learn nothing else.
    """

    interval: int = 1000
    beta_max: float = 0.3
    t0: float = 1e-4
    T: float = 1.0
    ot_ode: bool = False
    cond_x1: bool = False


@dataclass(frozen=True)
class Data:
    """Where clean pictures come from. Folders are relative to the recipe; sizes are pixels, the rest are fractions.

    A crop is read from a region up to `max_shrink` times its size and shrunk to it. `procedural` of all crops are dead
    leaves. Names in `holdout`, and their `NAME_*` variants, are never trained on: they are the validation pictures.
    """

    crop: int
    folders: list[str] = field(default_factory=list)
    holdout: list[str] = field(default_factory=list)
    procedural: float = 0.0
    max_shrink: float = 1.0
    colour: float = 0.0
    grey: float = 0.0
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

    @property
    def upscale(self) -> int:
        """How much larger the restored picture is than what a user has: 4 where every operator is an sr4x."""
        sr4x = [name.removesuffix("-exact") in superresolution.TAPS for name in self.operators]
        return superresolution.FACTOR if sr4x and all(sr4x) else 1


@dataclass(frozen=True)
class Train:
    """The optimisation. Rates are per step; `decay` steps of falling rate end the run; `ema` is the decay of the mean.

    `last_step` of the crops are trained at the last bridge step, the only one that a restoration in one network call
    uses; the others are drawn uniformly. `micro` splits a batch to bound memory (0 = whole).
    """

    steps: int
    batch: int
    lr: float
    seed: int = 0
    warmup: int = 0
    decay: int = 0
    lr_end: float = 0.01
    weight_decay: float = 0.0
    ema: float = 0.999
    clip: float = 1.0
    last_step: float = 0.0
    micro: int = 0
    precision: str = "auto"
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


def load_recipe(path: Path) -> Recipe:
    """Read and check a recipe; RecipeError names the file and the key at fault."""
    try:
        with path.open("rb") as file:
            table = tomllib.load(file)
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read ({error.strerror}).") from error
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"{path}: not a TOML file ({error}).") from error
    try:
        return recipe_from(table)
    except RecipeError as error:
        raise RecipeError(f"{path}: {error}") from error


def recipe_from(table: dict[str, Any]) -> Recipe:
    """Build a recipe from parsed tables; RecipeError for unknown or missing keys, wrong types and impossible values."""
    recipe: Recipe = _build(Recipe, table, "")
    _check(recipe)
    return recipe


def _build(cls: type[Any], table: Any, where: str) -> Any:
    if not isinstance(table, dict):
        raise RecipeError(f"[{where.rstrip('.')}] must be a table.")
    hints = typing.get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls)}
    for key in table:
        if key not in fields:
            raise RecipeError(f"unknown key {where}{key}; known here: {', '.join(fields)}.")
    values = {}
    for name, f in fields.items():
        if name in table:
            values[name] = _convert(hints[name], table[name], f"{where}{name}")
        elif f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING:
            raise RecipeError(f"missing key {where}{name}.")
    return cls(**values)


def _convert(hint: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return _build(hint, value, where + ".")
    if isinstance(hint, types.GenericAlias) and hint.__origin__ is list:
        if not isinstance(value, list):
            raise RecipeError(f"{where} must be a list, not {value!r}.")
        return [_convert(hint.__args__[0], item, where) for item in value]
    plain = dict if isinstance(hint, types.GenericAlias) else hint
    if plain is float and type(value) is int:
        return float(value)
    if type(value) is not plain:
        raise RecipeError(f"{where} must be of type {plain.__name__}, not {value!r}.")
    return value


def _check(recipe: Recipe) -> None:
    for key, holds, right in _rules(recipe):
        if not holds:
            raise RecipeError(f"{key} must be {right}, not {_value(recipe, key)!r}.")


def _rules(recipe: Recipe) -> Iterator[tuple[str, bool, str]]:
    """Yield every demand on the values: key, whether it holds, what would be right."""
    data, degradation, train = recipe.data, recipe.degradation, recipe.train
    fractions = (
        "data.procedural",
        "data.colour",
        "data.grey",
        "degradation.shifted",
        "degradation.boxes",
        "train.last_step",
        "train.lr_end",
    )
    for key in fractions:
        yield key, 0 <= _value(recipe, key) <= 1, "between 0 and 1"
    yield "train.ema", 0 <= train.ema < 1, "at least 0 and below 1"
    for key in ("data.crop", "train.steps", "train.batch", "train.keep", "train.log_every", "validation.crop"):
        yield key, _value(recipe, key) >= 1, "at least 1"
    for key in ("train.lr", "train.clip", "bridge.beta_max"):
        yield key, 0 < _value(recipe, key) < math.inf, "above 0"
    for key in ("train.seed", "train.warmup", "train.micro", "train.weight_decay", "validation.every", "data.workers"):
        yield key, _value(recipe, key) >= 0, "0 or more"
    yield "bridge.cond_x1", not (recipe.bridge.cond_x1 and recipe.bridge.ot_ode), "false with bridge.ot_ode"
    yield "train.decay", 0 <= train.decay <= train.steps, "between 0 and train.steps"
    yield "train.precision", train.precision in PRECISIONS, f"one of {', '.join(PRECISIONS)}"
    yield "data.max_shrink", data.max_shrink >= 1, "at least 1"
    yield "data.folders", bool(data.folders) or data.procedural == 1, "a list of folders (or data.procedural 1)"
    sound = all(1 <= quality <= 95 for quality in recipe.validation.qualities)
    yield "validation.qualities", sound, "qualities within 1 to 95"
    multiple = network_multiple(recipe.network)
    for key in ("data.crop", "validation.crop"):
        yield key, _value(recipe, key) % multiple == 0, f"a multiple of {multiple} for this network"
    yield "degradation.kind", degradation.kind in KINDS, f"one of {', '.join(KINDS)}"
    yield from _jpeg_rules(degradation)
    yield from _operator_rules(recipe)
    yield from _inpaint_rules(recipe)


def _jpeg_rules(degradation: Degradation) -> Iterator[tuple[str, bool, str]]:
    sound = len(degradation.quality) == 2 and 1 <= degradation.quality[0] <= degradation.quality[1] <= 95
    yield "degradation.quality", sound, "[lowest, highest] within 1 to 95"
    weights = degradation.subsampling
    sound = len(weights) == 3 and min(weights) >= 0 and sum(weights) > 0
    yield "degradation.subsampling", sound, "three weights, for 4:4:4, 4:2:2 and 4:2:0"


def _operator_rules(recipe: Recipe) -> Iterator[tuple[str, bool, str]]:
    degradation, key = recipe.degradation, "degradation.operators"
    wanted = degradation.kind == "operators"
    yield key, bool(degradation.operators) == wanted, 'a list of names for kind "operators", left out for the others'
    known = [name for name in operators.NAMES if _acts_locally(name.replace("QF", "10"))]
    right = f"names among {', '.join([*known, GAUSSIAN])}"
    yield key, all(name == GAUSSIAN or _acts_locally(name) for name in degradation.operators), right
    # Beyond 4 sigma a Gaussian has 6e-5 of its weight; 4 sigma are degrade.MARGIN.
    yield "degradation.sigma", _is_band(degradation.sigma, 0.1, 4), "[lowest, highest] within 0.1 to 4"
    yield "degradation.noise", _is_band(degradation.noise, 0, 255), "[lowest, highest] within 0 to 255"
    reduced = any(name.removesuffix("-exact") in superresolution.TAPS for name in degradation.operators)
    aligned = not reduced or recipe.data.crop % superresolution.FACTOR == 0
    yield "data.crop", aligned, f"a multiple of {superresolution.FACTOR} for sr4x operators"
    agrees = not recipe.model.task.startswith("sr4x") or degradation.upscale > 1
    yield "model.task", agrees, "another word, for the degradation is not that of sr4x operators alone"


def _acts_locally(name: str) -> bool:
    """Whether a crop can be damaged by this operator as the whole picture would be, and without a mask.

    The blurs of DDRM mix up frequencies of the whole picture, so what they do depends on its size.
    """
    if name.startswith("mixture") or name in blur.TAPS:
        return False
    try:
        return operators.get(name).hole is None
    except UsageError:
        return False


def _inpaint_rules(recipe: Recipe) -> Iterator[tuple[str, bool, str]]:
    degradation = recipe.degradation
    fills = degradation.kind == "inpaint"
    agrees = recipe.model.task.startswith("inpaint") == fills
    yield "model.task", agrees, 'a word that begins with "inpaint" for degradation.kind "inpaint", and for no other'
    low, high = degradation.strokes if len(degradation.strokes) == 2 else (1, 0)
    sound = low > 0 and low + 0.01 <= high <= 1
    yield "degradation.strokes", sound, "[lowest, highest] share, above 0, at most 1, at least 0.01 apart"
    sound = _is_band(degradation.box, 0, 1) and degradation.box[0] > 0
    yield "degradation.box", sound, "[lowest, highest] share of a side, above 0, at most 1"
    yield "degradation.zoom", 1 <= degradation.zoom <= 16, "between 1 and 16"
    for key in ("data.crop", "validation.crop") if fills else ():
        yield key, _value(recipe, key) >= 16, "at least 16 for holes"


def _is_band(band: list[float], low: float, high: float) -> bool:
    return len(band) == 2 and low <= band[0] <= band[1] <= high


def _value(recipe: Recipe, key: str) -> Any:
    table, name = key.split(".")
    return getattr(getattr(recipe, table), name)


def network_multiple(network: dict[str, Any]) -> int:
    """Tell what the sides of a picture must be multiples of for a network with these keyword arguments."""
    patch, levels = network.get("patch", 1), network.get("channel_mult", [1, 2, 4, 8])
    if type(patch) is not int or not isinstance(levels, list) or not levels:
        raise RecipeError("network.patch must be an integer and network.channel_mult a list of integers.")
    return int(patch * 2 ** (len(levels) - 1))
