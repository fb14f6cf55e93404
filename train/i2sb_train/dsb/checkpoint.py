"""Checkpoints of a fitting: one safetensors file with all that it needs to go on as if it had never stopped.

Tensors: DIRECTION/model/NAME, DIRECTION/ema/NAME of both networks, and adam/exp_avg/NAME, adam/exp_avg_sq/NAME of the
one that is trained. Metadata: half, step, total, and the recipe as JSON. Caches are not kept: they are made anew, the
same, from the other network's mean weights.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import save_file
from torch import Tensor

from i2sb_rt.model_file import replacing
from i2sb_train.checkpoint import MOMENTS, UNFINISHED, CheckpointError, read, take
from i2sb_train.dsb.recipe import DsbRecipe

if TYPE_CHECKING:
    from i2sb_train.dsb.trainer import Fit

FORMAT = "i2sb-train-dsb-1"
_FIXED = ("network", "bridge", "start", "end")  # tables that must not change on the way


def save_state(path: Path, fit: Fit, recipe: DsbRecipe) -> None:
    """Write a checkpoint; a reader sees the old file or the whole new one, never a part."""
    tensors: dict[str, Tensor] = {}
    for direction, side in fit.sides.items():
        for kind, network in (("model", side.network), ("ema", side.ema)):
            tensors |= {f"{direction}/{kind}/{name}": p.detach() for name, p in network.named_parameters()}
    for name, parameter in fit.sides[fit.direction].network.named_parameters():
        moments = fit.optimizer.state.get(parameter, {}) if fit.step else {}
        tensors |= {f"adam/{key}/{name}": moments[key] for key in MOMENTS if key in moments}
    numbers = {name: str(getattr(fit, name)) for name in ("half", "step", "total")}
    metadata = {"format": FORMAT, "recipe": json.dumps(dataclasses.asdict(recipe), sort_keys=True), **numbers}
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path, UNFINISHED.partition("*")[0]) as temporary:
        save_file({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, temporary, metadata=metadata)


def load_state(path: Path, fit: Fit, recipe: DsbRecipe) -> None:
    """Fill a state from a checkpoint of the same networks, ends and bridge. Raises CheckpointError."""
    metadata, tensors = read(path, FORMAT)
    before, now = json.loads(metadata["recipe"]), json.loads(json.dumps(dataclasses.asdict(recipe)))
    for table in _FIXED:
        if before[table] != now[table]:
            raise CheckpointError(f"{path}: was trained with another [{table}]: {before[table]}.")
    fit.half, fit.step, fit.total = (int(metadata[name]) for name in ("half", "step", "total"))
    with torch.no_grad():
        for direction, side in fit.sides.items():
            for kind, network in (("model", side.network), ("ema", side.ema)):
                for name, parameter in network.named_parameters():
                    parameter.copy_(take(tensors, f"{direction}/{kind}/{name}", parameter, path))
        fit.optimizer.state.clear()
        fit.optimizer.param_groups[0]["params"] = list(fit.sides[fit.direction].network.parameters())
        for name, parameter in fit.sides[fit.direction].network.named_parameters() if fit.step else ():
            moments = {
                key: take(tensors, f"adam/{key}/{name}", parameter, path).to(parameter.device) for key in MOMENTS
            }
            fit.optimizer.state[parameter] = {"step": torch.tensor(float(fit.step), device=parameter.device), **moments}
