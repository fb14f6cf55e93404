"""What must hold for the values of a recipe."""

from __future__ import annotations

import math
from collections.abc import Iterator

from i2sb_rt import operators
from i2sb_rt.errors import UsageError
from i2sb_rt.operators import blur, superresolution
from i2sb_train.recipe import GAUSSIAN, KINDS, PRECISIONS, Degradation, Recipe, Rule, network_multiple, value_of


def rules(recipe: Recipe) -> Iterator[Rule]:
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
        "train.lr_gamma",
    )
    for key in fractions:
        yield key, 0 <= value_of(recipe, key) <= 1, "between 0 and 1"
    yield "train.ema", 0 <= train.ema < 1, "at least 0 and below 1"
    for key in ("data.crop", "train.steps", "train.batch", "train.keep", "train.log_every", "validation.crop"):
        yield key, value_of(recipe, key) >= 1, "at least 1"
    for key in ("train.lr", "train.clip", "bridge.beta_max"):
        yield key, 0 < value_of(recipe, key) < math.inf, "above 0"
    for key in (
        "train.seed",
        "train.warmup",
        "train.micro",
        "train.weight_decay",
        "train.lr_step",
        "validation.every",
        "data.workers",
        "data.memory",
    ):
        yield key, value_of(recipe, key) >= 0, "0 or more"
    bridge = recipe.bridge
    told = bridge.cond_x1 and bridge.ot_ode and not bridge.add_x1_noise
    yield "bridge.cond_mask", not (bridge.cond_mask and bridge.cond_x1), "false with bridge.cond_x1"
    yield "bridge.prediction", bridge.prediction in ("noise", "mean"), "noise or mean"
    yield "bridge.cond_x1", not told, "false with bridge.ot_ode, unless with bridge.add_x1_noise"
    yield "train.decay", 0 <= train.decay <= train.steps, "between 0 and train.steps"
    yield "train.precision", train.precision in PRECISIONS, f"one of {', '.join(PRECISIONS)}"
    yield "data.max_shrink", data.max_shrink >= 1, "at least 1"
    yield "data.folders", bool(data.folders) or data.procedural == 1, "a list of folders (or data.procedural 1)"
    sound = all(1 <= quality <= 95 for quality in recipe.validation.qualities)
    yield "validation.qualities", sound, "qualities within 1 to 95"
    multiple = network_multiple(recipe.network)
    for key in ("data.crop", "validation.crop"):
        yield key, value_of(recipe, key) % multiple == 0, f"a multiple of {multiple} for this network"
    yield "degradation.kind", degradation.kind in KINDS, f"one of {', '.join(KINDS)}"
    yield from _jpeg_rules(degradation)
    yield from _operator_rules(recipe)
    yield from _inpaint_rules(recipe)
    yield from _paired_rules(recipe)


def _jpeg_rules(degradation: Degradation) -> Iterator[Rule]:
    sound = len(degradation.quality) == 2 and 1 <= degradation.quality[0] <= degradation.quality[1] <= 95
    yield "degradation.quality", sound, "[lowest, highest] within 1 to 95"
    weights = degradation.subsampling
    sound = len(weights) == 3 and min(weights) >= 0 and sum(weights) > 0
    yield "degradation.subsampling", sound, "three weights, for 4:4:4, 4:2:2 and 4:2:0"


def _operator_rules(recipe: Recipe) -> Iterator[Rule]:
    degradation, key = recipe.degradation, "degradation.operators"
    wanted = degradation.kind in ("operators", "nvlabs")
    right = 'a list of names for kinds "operators" and "nvlabs", left out for the others'
    yield key, bool(degradation.operators) == wanted, right
    if degradation.kind == "nvlabs":
        holes = [_makes_holes(name) for name in degradation.operators]
        yield key, None not in holes, f"names among {', '.join(operators.NAMES)}"
        yield key, len(set(holes)) == 1, "either all with holes or all without"
    else:
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


def _makes_holes(name: str) -> bool | None:
    """Whether an operator makes holes; None if there is none of this name."""
    try:
        return operators.get(name).hole is not None
    except UsageError:
        return None


def _acts_locally(name: str) -> bool:
    """Whether a crop can be damaged by this operator as the whole picture would be, and without a mask.

    The blurs of DDRM mix up frequencies of the whole picture, so what they do depends on its size. Gaussians and noise
    have keys of their own.
    """
    unknown = name.startswith(("mixture", "gaussian")) or "+" in name or name in blur.TAPS
    return not unknown and _makes_holes(name) is False


def _inpaint_rules(recipe: Recipe) -> Iterator[Rule]:
    degradation = recipe.degradation
    fills = degradation.kind == "inpaint" or (degradation.kind == "nvlabs" and _makes_holes(degradation.operators[0]))
    yield "bridge.cond_mask", fills or not recipe.bridge.cond_mask, "false where nothing makes holes"
    yield "bridge.fill", recipe.bridge.fill in ("noise", "smooth"), "noise or smooth"
    smooth = recipe.bridge.fill == "noise" or degradation.kind == "inpaint"
    yield "bridge.fill", smooth, 'noise but for kind "inpaint"'
    agrees = recipe.model.task.startswith("inpaint") == fills
    yield "model.task", agrees, 'a word that begins with "inpaint" where the degradation makes holes, and nowhere else'
    low, high = degradation.strokes if len(degradation.strokes) == 2 else (1, 0)
    sound = low > 0 and low + 0.01 <= high <= 1
    yield "degradation.strokes", sound, "[lowest, highest] share, above 0, at most 1, at least 0.01 apart"
    sound = _is_band(degradation.box, 0, 1) and degradation.box[0] > 0
    yield "degradation.box", sound, "[lowest, highest] share of a side, above 0, at most 1"
    yield "degradation.zoom", 1 <= degradation.zoom <= 16, "between 1 and 16"
    for key in ("data.crop", "validation.crop") if fills else ():
        yield key, value_of(recipe, key) >= 16, "at least 16 for holes"


def _paired_rules(recipe: Recipe) -> Iterator[Rule]:
    data, factor = recipe.data, recipe.degradation.factor
    if recipe.degradation.kind == "paired":
        yield "data.procedural", data.procedural == 0, 'left out for kind "paired", for dead leaves have no twin'
        sound = len(data.damaged) in (0, len(data.folders))
        yield "data.damaged", sound, "a folder for each of data.folders, or left out where those hold shards"
    else:
        yield "data.damaged", not data.damaged, 'left out, but for kind "paired"'
        yield "degradation.factor", factor == 1, 'left out, but for kind "paired"'
    yield "degradation.factor", 1 <= factor <= 16, "between 1 and 16"
    if factor > 1:
        yield "data.crop", data.crop % factor == 0, f"a multiple of degradation.factor {factor}"
        yield "data.max_shrink", data.max_shrink == 1, "left out with degradation.factor"
        yield "data.fit", not data.fit, "left out with degradation.factor"


def _is_band(band: list[float], low: float, high: float) -> bool:
    return len(band) == 2 and low <= band[0] <= band[1] <= high
