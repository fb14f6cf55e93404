"""The ADM U-Net (arXiv 2105.05233, section 3 and appendix A), in plain PyTorch.

Parameter names are those of guided-diffusion checkpoints, so that published state dicts load strictly. Two additions:
`patch` runs the network on space-to-depth blocks, and `attention=False` leaves every attention out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_GROUPS = 32


def _norm(channels: int) -> nn.GroupNorm:
    """GroupNorm of 32 groups, or of the largest power of two below that divides the channels."""
    return nn.GroupNorm(math.gcd(_GROUPS, channels), channels)


def _zeroed(layer: nn.Conv1d | nn.Conv2d) -> nn.Module:
    """Start a layer at zero, so that the branch it ends adds nothing at first."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


def time_features(t: Tensor, dim: int) -> Tensor:
    """Compute the sinusoidal features of a time.

    t: [B], any float type. Returns float32 [B, dim]: cosines, then sines, of dim // 2 frequencies falling
    geometrically from 1 towards 1/10000, and a zero where dim is odd. Source: arXiv 1706.03762, section 3.5.
    """
    half = dim // 2
    rates = torch.exp(torch.arange(half, dtype=torch.float32, device=t.device) * (-math.log(10000.0) / half))
    angles = t.to(torch.float32).unsqueeze(1) * rates
    return F.pad(torch.cat([angles.cos(), angles.sin()], dim=1), (0, dim - 2 * half))


class Downsample(nn.Module):
    """Halve both sides with a strided convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.op = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map x [B, C, H, W] to [B, C, H/2, W/2]."""
        out: Tensor = self.op(x)
        return out


class Upsample(nn.Module):
    """Double both sides by repetition, then convolve."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map x [B, C, H, W] to [B, C, 2H, 2W]."""
        out: Tensor = self.conv(_resize(x, "up"))
        return out


def _resize(x: Tensor, direction: str | None) -> Tensor:
    if direction == "up":
        return F.interpolate(x, scale_factor=2.0, mode="nearest")
    if direction == "down":
        return F.avg_pool2d(x, 2)
    return x


class ResBlock(nn.Module):
    """Two convolutions with the time in between, beside a skip connection.

    `resize` ("up", "down" or None) changes the size of both branches. With `scale_shift` the time gives a scale and a
    shift after the second norm, otherwise a bias before it. Source: arXiv 2105.05233, section 3 (AdaGN).
    """

    def __init__(
        self, channels: int, out: int, emb_channels: int, scale_shift: bool = False, resize: str | None = None
    ) -> None:
        super().__init__()
        self.scale_shift = scale_shift
        self.resize = resize
        self.in_layers = nn.ModuleList([_norm(channels), nn.SiLU(), nn.Conv2d(channels, out, 3, padding=1)])
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(emb_channels, 2 * out if scale_shift else out))
        # Index 2 is where checkpoints count a dropout.
        self.out_layers = nn.ModuleList(
            [_norm(out), nn.SiLU(), nn.Identity(), _zeroed(nn.Conv2d(out, out, 3, padding=1))]
        )
        self.skip_connection = nn.Identity() if out == channels else nn.Conv2d(channels, out, 1)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        """Map x [B, channels, H, W] and emb [B, emb_channels] to [B, out, H', W']."""
        norm_in, act_in, conv_in = self.in_layers
        norm_out, act_out, _, conv_out = self.out_layers
        h = conv_in(_resize(act_in(norm_in(x)), self.resize))
        e = self.emb_layers(emb)[:, :, None, None]
        if self.scale_shift:
            scale, shift = e.chunk(2, dim=1)
            h = norm_out(h) * (1 + scale) + shift
        else:
            h = norm_out(h + e)
        out: Tensor = self.skip_connection(_resize(x, self.resize)) + conv_out(act_out(h))
        return out


class AttentionBlock(nn.Module):
    """Self-attention over all pixels. The output of `qkv` is head-major: (head, q|k|v, channel)."""

    def __init__(self, channels: int, head_channels: int) -> None:
        super().__init__()
        if channels % head_channels:
            raise ValueError(f"num_head_channels = {head_channels} does not divide the {channels} channels of a level.")
        self.heads = channels // head_channels
        self.norm = _norm(channels)
        self.qkv = nn.Conv1d(channels, 3 * channels, 1)
        self.proj_out = _zeroed(nn.Conv1d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Map x [B, C, H, W] to the same."""
        flat = x.flatten(2)
        qkv = self.qkv(self.norm(flat)).unflatten(1, (self.heads, 3, -1)).transpose(-1, -2)
        q, k, v = qkv.unbind(2)
        if x.is_cuda:  # the fused kernels want a pixel's channels side by side
            q, k, v = q.contiguous(), k.contiguous(), v.contiguous()
        h = F.scaled_dot_product_attention(q, k, v).transpose(-1, -2).flatten(1, 2)
        out: Tensor = flat + self.proj_out(h)
        return out.reshape(x.shape)


class Stage(nn.Sequential):
    """Layers run in order; the blocks that want the time get it."""

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:  # type: ignore[override]
        """Map x [B, C, H, W], at the time embedded in emb, to what the last layer gives."""
        h: Tensor = x
        for layer in self:
            h = layer(h, emb) if isinstance(layer, ResBlock) else layer(h)
        return h


class UNet(nn.Module):
    """The ADM U-Net: x [B, in_channels, H, W] and t [B] to [B, out_channels, H, W].

    image_size is what the network was trained on (any size runs). attention_resolutions are downsample factors, counted
    after patching. in_channels and out_channels are counted before patching; with `patch` = p the network sees
    pixel_unshuffle(x, p) and its output passes pixel_shuffle(p). H and W are multiples of `multiple`.
    Raises ValueError for a configuration that cannot be built, and for a size or channel count that does not fit.
    Source: arXiv 2105.05233, section 3 and appendix A.
    """

    def __init__(
        self,
        *,
        image_size: int,
        in_channels: int,
        model_channels: int,
        out_channels: int,
        num_res_blocks: int,
        attention_resolutions: Sequence[int] = (),
        channel_mult: Sequence[int] = (1, 2, 4, 8),
        num_head_channels: int = 64,
        use_scale_shift_norm: bool = True,
        resblock_updown: bool = True,
        patch: int = 1,
        attention: bool = True,
    ) -> None:
        super().__init__()
        sizes = (image_size, in_channels, model_channels, out_channels, num_res_blocks, num_head_channels, patch)
        if min(*sizes, *channel_mult, len(channel_mult)) < 1:
            raise ValueError("UNet: every size and channel count is at least 1, and channel_mult names at least one.")
        self.image_size = image_size
        self.in_channels = in_channels
        self.model_channels = model_channels
        self.patch = patch
        self.multiple = patch * 2 ** (len(channel_mult) - 1)
        emb = 4 * model_channels
        scale_shift = use_scale_shift_norm

        def attend(channels: int, factor: int | None = None) -> list[nn.Module]:
            wanted = attention and (factor is None or factor in attention_resolutions)
            return [AttentionBlock(channels, num_head_channels)] if wanted else []

        def resample(channels: int, direction: str) -> nn.Module:
            if resblock_updown:
                return ResBlock(channels, channels, emb, scale_shift, direction)
            return Downsample(channels) if direction == "down" else Upsample(channels)

        self.time_embed = nn.Sequential(nn.Linear(model_channels, emb), nn.SiLU(), nn.Linear(emb, emb))

        width = channel_mult[0] * model_channels
        self.input_blocks = nn.ModuleList([Stage(nn.Conv2d(in_channels * patch**2, width, 3, padding=1))])
        skips = [width]
        for level, mult in enumerate(channel_mult):
            for _ in range(num_res_blocks):
                block = ResBlock(width, mult * model_channels, emb, scale_shift)
                width = mult * model_channels
                self.input_blocks.append(Stage(block, *attend(width, 2**level)))
                skips.append(width)
            if level + 1 < len(channel_mult):
                self.input_blocks.append(Stage(resample(width, "down")))
                skips.append(width)

        before, after = (ResBlock(width, width, emb, scale_shift) for _ in range(2))
        # Without attention an Identity keeps the second block at index 2.
        self.middle_block = Stage(before, *(attend(width) or [nn.Identity()]), after)

        self.output_blocks = nn.ModuleList()
        for level, mult in reversed(list(enumerate(channel_mult))):
            for i in range(num_res_blocks + 1):
                block = ResBlock(width + skips.pop(), mult * model_channels, emb, scale_shift)
                width = mult * model_channels
                last = level > 0 and i == num_res_blocks
                tail = [resample(width, "up")] if last else []
                self.output_blocks.append(Stage(block, *attend(width, 2**level), *tail))

        self.out = nn.Sequential(
            _norm(width), nn.SiLU(), _zeroed(nn.Conv2d(width, out_channels * patch**2, 3, padding=1))
        )

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Map x [B, in_channels, H, W] and t [B] to [B, out_channels, H, W]; ValueError where shapes do not fit."""
        if not torch.compiler.is_compiling():
            self._check(x)
        emb = self.time_embed(time_features(t, self.model_channels).to(x.dtype))
        h = F.pixel_unshuffle(x, self.patch) if self.patch > 1 else x
        skips = []
        for stage in self.input_blocks:
            h = stage(h, emb)
            skips.append(h)
        h = self.middle_block(h, emb)
        for stage in self.output_blocks:
            h = stage(torch.cat([h, skips.pop()], dim=1), emb)
        h = self.out(h)
        return F.pixel_shuffle(h, self.patch) if self.patch > 1 else h

    def _check(self, x: Tensor) -> None:
        if x.dim() != 4 or x.shape[1] != self.in_channels:
            raise ValueError(f"UNet: x is [B, {self.in_channels}, H, W], not {list(x.shape)}.")
        height, width = x.shape[2:]
        if height % self.multiple or width % self.multiple or not height or not width:
            raise ValueError(f"UNet: height and width are multiples of {self.multiple}, not {height} x {width}.")
