"""Held-out quality while training: PSNR after one network call against the PSNR of the damaged picture itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from i2sb_rt import Plan, Schedule, noise, sample
from i2sb_rt.evaluation.metrics import psnr
from i2sb_rt.operators.base import F32, Mask, to_bytes
from i2sb_train.data import X1_NOISE, filled, to_signal
from i2sb_train.degrade import Damage
from i2sb_train.i2sb import Bridge
from i2sb_train.recipe import Recipe
from i2sb_train.sources import Picture, Pixels

_SEED = 0xE7A1
_CALLS = 5


@dataclass(frozen=True)
class Score:
    """Mean RGB PSNR in dB over the validation pictures with one kind of damage, damaged and restored.

    Where the damage is a hole, PSNR is that of the pixels in it; before, they are grey.
    """

    damage: str
    before: float
    after: float

    def __str__(self) -> str:
        return f"{self.damage}: {self.before:.2f} -> {self.after:.2f} dB ({self.after - self.before:+.2f})"


def centre(picture: Picture, size: int, multiple: int, factor: int = 1) -> Picture:
    """Cut the middle out of a picture or pair, at most `size` a side, each side a multiple of `multiple`.

    The cut begins at multiples of `factor`, where the pixels of a damaged twin do that was so much smaller.
    """
    sides = picture[0].shape[:2]
    height, width = (min(size, side) // multiple * multiple for side in sides)
    y, x = ((side - kept) // 2 // factor * factor for side, kept in zip(sides, (height, width), strict=True))
    return tuple(np.ascontiguousarray(pixels[y : y + height, x : x + width]) for pixels in picture)


def start(bridge: Bridge, damaged: Pixels | F32, mask: Mask | None, seed: int) -> tuple[Tensor, Tensor]:
    """Make x1 and what the network is shown of it with cond_x1, both float32 [1, 3, H, W] on the CPU.

    damaged: [H, W, 3], uint8, or float32 in [-1, 1]. mask: bool [H, W]; a hole in bytes is filled with the seed's
    noise, as in `restore`.
    """
    cond = to_signal(torch.from_numpy(damaged.transpose(2, 0, 1).copy()))
    shape = (3, *damaged.shape[:2])
    if mask is not None and damaged.dtype == np.uint8:
        cond = filled(cond, mask, bridge.fill, seed)
    x1 = cond
    if bridge.add_x1_noise:
        x1 = x1 + torch.from_numpy(noise(seed, shape, row=0, purpose=X1_NOISE))
    return x1[None], cond[None]


@torch.no_grad()
def one_call(
    network: nn.Module,
    bridge: Bridge,
    damaged: Pixels | F32,
    device: torch.device,
    mask: Mask | None = None,
    seed: int = 0,
) -> Pixels:
    """Restore one picture with one network call from the last bridge step; [H, W, 3] to uint8 of the same shape.

    The arguments are those of `start`. Known pixels are not pasted.
    """
    dtype = next((p.dtype for p in network.parameters()), torch.float32)
    x1, cond = (x.to(device, dtype) for x in start(bridge, damaged, mask, seed))
    step = torch.tensor([bridge.interval - 1], device=bridge.times.device)
    hole = None if mask is None else torch.from_numpy(mask)[None, None].to(device)
    out = network(bridge.seen(x1, cond, hole), bridge.times[step].to(x1))
    return to_bytes(bridge.clean(x1, out.to(dtype), step)[0].float().cpu().numpy())


@torch.no_grad()
def trajectory(
    network: nn.Module, recipe: Recipe, bridge: Bridge, picture: Picture, damage: Damage, device: torch.device
) -> Pixels:
    """Show a restoration in five calls: x1, the state after each call, and the clean picture, uint8 [H, 7 W, 3]."""
    config = recipe.bridge
    damaged, mask = damage(picture, np.random.default_rng([_SEED, 0]))
    x1, cond = start(bridge, damaged, mask, seed=0)
    hole = None if mask is None else torch.from_numpy(mask)[None, None]
    dtype = next(network.parameters()).dtype
    schedule = Schedule(interval=config.interval, beta_max=config.beta_max, t0=config.t0, T=config.T)
    points: Tensor = sample(
        lambda x, t: network(x.to(device, dtype), t.to(device, dtype)).float().cpu(),
        x1,
        Plan.posterior(schedule, min(_CALLS, config.interval - 1), config.ot_ode, recipe.model.clip, config.prediction),
        mask=None if mask is None else mask[None, None],
        cond=bridge.seen(x1, cond, hole)[:, x1.shape[1] :] if config.cond_x1 or config.cond_mask else None,
        trajectory=True,
    )
    shown = [x1[0], *points[0].flip(0)]
    return np.concatenate([*(to_bytes(state.numpy()) for state in shown), picture[0]], axis=1)


def validate(
    network: nn.Module,
    bridge: Bridge,
    pictures: Sequence[Picture],
    damages: Mapping[str, Damage],
    device: torch.device,
) -> list[Score]:
    """Score a network on each kind of damage; what is random in it depends on the number of the picture alone."""
    scores = []
    for name, damage in damages.items():
        values = []
        for number, picture in enumerate(pictures):
            damaged, mask = damage(picture, np.random.default_rng([_SEED, number]))
            restored = one_call(network, bridge, damaged, device, mask, number)
            judged = slice(None) if mask is None else mask
            given = as_bytes(damaged)
            values.append([psnr(picture[0][judged], other[judged]) for other in (given, restored)])
        before, after = np.mean(values, axis=0)
        scores.append(Score(name, float(before), float(after)))
    return scores


def as_bytes(picture: Pixels | F32) -> Pixels:
    """Return a picture [H, W, 3] as uint8, from float32 in [-1, 1] clamped and rounded."""
    signal = to_signal(torch.from_numpy(picture.transpose(2, 0, 1).copy()))
    return to_bytes(signal.numpy())


def swap(network: nn.Module, weights: dict[str, Tensor]) -> None:
    """Exchange a network's parameters with the given ones, in place; a second call undoes it."""
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter.data, weights[name] = weights[name], parameter.data
