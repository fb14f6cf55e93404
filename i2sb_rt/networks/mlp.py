"""A perceptron of points and a time, in plain PyTorch: the network of bridges between sets of points."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from i2sb_rt.networks.unet import time_features


class MLP(nn.Module):
    """x [B, dim, 1, 1] and t [B] to [B, dim, 1, 1]: points as images of one pixel.

    `depth` hidden layers of `width` units, each with a scale and a shift that depend on the time (as in AdaGN, arXiv
    2105.05233, section 3), beside a path in which the time scales and shifts each coordinate, which is all that a
    Gaussian with independent coordinates asks for. time_dim: sinusoids of the time; time_width: units of what they are
    embedded in. At first the output is zero.
    Raises ValueError for sizes below 1, and for x of another shape.
    """

    multiple = 1

    def __init__(self, *, dim: int, width: int = 128, depth: int = 3, time_dim: int = 32, time_width: int = 64) -> None:
        super().__init__()
        if min(dim, width, depth, time_dim - 1, time_width) < 1:
            raise ValueError("MLP: dim, width, depth and time_width are at least 1, time_dim at least 2.")
        self.dim = dim
        self.time_dim = time_dim
        first, second = nn.Linear(time_dim, time_width), nn.Linear(time_width, time_width)
        self.time_embed = nn.Sequential(first, nn.SiLU(), second, nn.SiLU())
        self.layers = nn.ModuleList([nn.Linear(width if i else dim, width) for i in range(depth)])
        self.scale_shift = nn.Linear(time_width, 2 * depth * width)
        self.affine = nn.Linear(time_width, 2 * dim)
        self.out = nn.Linear(width, dim)
        for layer in (self.scale_shift, self.affine, self.out):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Map x [B, dim, 1, 1] and t [B] to [B, dim, 1, 1]; ValueError where x has another shape."""
        if not torch.compiler.is_compiling() and x.shape[1:] != (self.dim, 1, 1):
            raise ValueError(f"MLP: x is [B, {self.dim}, 1, 1], not {list(x.shape)}.")
        point = x.squeeze(3).squeeze(2)
        emb = self.time_embed(time_features(t, self.time_dim).to(x.dtype))
        modulation = self.scale_shift(emb).chunk(2 * len(self.layers), dim=1)
        h = point
        for index, layer in enumerate(self.layers):
            h = F.silu(layer(h) * (1 + modulation[2 * index]) + modulation[2 * index + 1])
        gain, offset = self.affine(emb).chunk(2, dim=1)
        out: Tensor = self.out(h) + point * gain + offset
        return out[:, :, None, None]
