"""Held-out quality while training: PSNR after one network call against the PSNR of the damaged picture itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from i2sb_rt import noise
from i2sb_rt.evaluation.metrics import psnr
from i2sb_rt.operators.base import Mask
from i2sb_train.data import to_signal
from i2sb_train.degrade import Damage, Pixels
from i2sb_train.i2sb import Bridge

_SEED = 0xE7A1
_HOLE_FILL = 1


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


def centre(picture: Pixels, size: int, multiple: int) -> Pixels:
    """Cut the middle out of a picture, at most `size` a side, each side a multiple of `multiple`."""
    height, width = (min(size, n) // multiple * multiple for n in picture.shape[:2])
    y, x = (picture.shape[0] - height) // 2, (picture.shape[1] - width) // 2
    return np.ascontiguousarray(picture[y : y + height, x : x + width])


@torch.no_grad()
def one_call(
    network: nn.Module, bridge: Bridge, damaged: Pixels, device: torch.device, mask: Mask | None = None, seed: int = 0
) -> Pixels:
    """Restore one picture with one network call from the last bridge step; uint8 [H, W, 3] to the same.

    mask: bool [H, W]; the hole is filled with the seed's noise first, as in `restore`. Known pixels are not pasted.
    """
    x1 = to_signal(torch.from_numpy(damaged.transpose(2, 0, 1).copy()))[None]
    if mask is not None:
        fill = torch.from_numpy(noise(seed, (3, *mask.shape), row=0, purpose=_HOLE_FILL))
        x1 = torch.where(torch.from_numpy(mask), fill, x1)
    x1 = x1.to(device)
    step = torch.tensor([bridge.interval - 1])
    out = network(bridge.seen(x1, x1), bridge.times[step].to(device)).float()
    x0 = bridge.clean(x1, out, step).clamp(-1, 1)
    return ((x0[0] + 1) * 127.5).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()


def validate(
    network: nn.Module,
    bridge: Bridge,
    pictures: Sequence[Pixels],
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
            values.append([psnr(picture[judged], other[judged]) for other in (damaged, restored)])
        before, after = np.mean(values, axis=0)
        scores.append(Score(name, float(before), float(after)))
    return scores


def swap(network: nn.Module, weights: dict[str, Tensor]) -> None:
    """Exchange a network's parameters with the given ones, in place; a second call undoes it."""
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter.data, weights[name] = weights[name], parameter.data
