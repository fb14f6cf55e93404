"""The bridge of I2SB as a training problem (arXiv 2302.05872): its points, and what is predicted at them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from i2sb_rt import Schedule
from i2sb_train import recipe


@dataclass(frozen=True)
class Bridge:
    """The schedule's columns that training reads, float64 [N], and the switches of `recipe.Bridge`.

    Steps that are looked up in them lie on their device, the CPU at first.
    """

    mu_x0: Tensor
    mu_x1: Tensor
    std_sb: Tensor
    std_fwd: Tensor
    times: Tensor
    ot_ode: bool
    cond_x1: bool
    add_x1_noise: bool
    cond_mask: bool
    fill: str
    prediction: str

    @classmethod
    def of(cls, config: recipe.Bridge) -> Bridge:
        """Make the bridge a recipe asks for; its values are the runtime's, from `i2sb_rt.Schedule`."""
        s = Schedule(interval=config.interval, beta_max=config.beta_max, t0=config.t0, T=config.T)
        columns = (s.mu_x0, s.mu_x1, s.std_sb, s.std_fwd, s.noise_levels)
        mu_x0, mu_x1, std_sb, std_fwd, times = (torch.tensor(column) for column in columns)
        switches = (
            config.ot_ode,
            config.cond_x1,
            config.add_x1_noise,
            config.cond_mask,
            config.fill,
            config.prediction,
        )
        return cls(mu_x0, mu_x1, std_sb, std_fwd, times, *switches)

    def to(self, device: torch.device) -> Bridge:
        """Move the columns to a device."""
        names = ("mu_x0", "mu_x1", "std_sb", "std_fwd", "times")
        return replace(self, **{name: getattr(self, name).to(device) for name in names})

    @property
    def interval(self) -> int:
        """The number of bridge steps, N."""
        return len(self.times)

    def point(self, x0: Tensor, x1: Tensor, steps: Tensor, z: Tensor | None) -> Tensor:
        """Compute x_k between pairs [B, C, H, W] at steps [B]; z is N(0, 1) of the same shape, unused by OT-ODE.

        x_k = mu_x0 x0 + mu_x1 x1 + std_sb z (arXiv 2302.05872, eq. 11).
        """
        x = _column(self.mu_x0, steps, x0) * x0 + _column(self.mu_x1, steps, x0) * x1
        return x if self.ot_ode or z is None else x + _column(self.std_sb, steps, x0) * z

    def begun(self, x: Tensor, x1: Tensor, steps: Tensor) -> Tensor:
        """Replace x_k [B, C, H, W] by x1 at the last step, where sampling starts: for inpainting.

        At every other step sampling leaves the known pixels at x1 + std_sb z, or at x1 with OT-ODE, as `point` does
        for x0 = x1; only its first call sees them as they are.
        """
        is_last = steps == self.interval - 1
        return torch.where(is_last[:, None, None, None], x1, x)

    def seen(self, x: Tensor, cond: Tensor, mask: Tensor | None = None) -> Tensor:
        """Join what the network sees: x [B, C, H, W], and behind its channels what it is shown beside.

        With cond_x1 that is x1 as it was given; with cond_mask the same with zeros in the hole, and mask, bool
        [B, 1, H, W], as 0 and 1.
        """
        if self.cond_mask:
            assert mask is not None
            return torch.cat([x, cond.masked_fill(mask, 0), mask.to(x.dtype)], dim=1)
        return torch.cat([x, cond], dim=1) if self.cond_x1 else x

    def target(self, x: Tensor, x0: Tensor, steps: Tensor) -> Tensor:
        """Compute what the network is to predict at x = x_k: (x_k - x0) / std_fwd_k (arXiv 2302.05872, eq. 12).

        For the prediction "mean" it is x0.
        """
        return x0 if self.prediction == "mean" else (x - x0) / _column(self.std_fwd, steps, x0)

    def clean(self, x: Tensor, out: Tensor, steps: Tensor) -> Tensor:
        """Compute the clean image that an output stands for, the inverse of `target`."""
        return out if self.prediction == "mean" else x - _column(self.std_fwd, steps, x) * out


def errors(out: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
    """Sum up the squared errors of each output [B, C, H, W], [B]; with a mask, bool [B, 1, H, W], in the hole alone.

    The known pixels are no matter of the network's. Source: arXiv 2302.05872, eq. 12, and for inpainting its loss on
    the masked region.
    """
    error = (out - target).square()
    return (error if mask is None else error * mask).flatten(1).sum(1)


def elements(clean: Tensor, mask: Tensor | None = None) -> Tensor:
    """Count the values that `errors` adds up for each image of a batch [B, C, H, W], int64 [B]."""
    counted = torch.ones_like(clean[:, :1], dtype=torch.bool) if mask is None else mask
    return counted.flatten(1).sum(1) * clean.shape[1]


def _column(values: Tensor, steps: Tensor, like: Tensor) -> Tensor:
    return values[steps].to(like.dtype)[:, None, None, None]
