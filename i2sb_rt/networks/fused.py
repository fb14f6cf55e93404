"""The ADM U-Net folded for inference: the same function, with nothing between its convolutions but one fused kernel.

The image is laid out NHWC from end to end. Biases and residuals are added where the next norm reads them
(`i2sb_kernels.group_norm_silu`); the skip concatenation is never made; the time enters as tables with a line a plan
row, so that its MLPs are no part of the loop; attention's weights are put in the order that
`scaled_dot_product_attention` takes. All of it is plain tensor algebra and runs on a CPU too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from i2sb_kernels.group_norm_silu import Resize, group_norm_silu
from i2sb_rt.networks.unet import AttentionBlock, Downsample, ResBlock, Stage, UNet, Upsample, time_features

_CHANNELS: Final = 8  # what the input's channels are padded to a multiple of, in half precision
_RESIZES: Final[dict[str | None, Resize]] = {None: "none", "down": "down", "up": "up"}

Kind = TypeVar("Kind")


@dataclass
class Signal:
    """An activation [N, H, W, C]: `plain`, or not yet added up: x + bias + residual, resized."""

    plain: Tensor | None = None
    x: Tensor | None = None
    bias: Tensor | None = None
    residual: Tensor | None = None
    resize: Resize = "none"

    def settled(self) -> Tensor:
        """Return the plain activation; where no norm adds it up on its way, it is done here."""
        if self.plain is None:
            assert self.x is not None
            assert self.bias is not None
            assert self.residual is not None
            residual = _planes(self.residual).float()
            if self.resize == "down":
                residual = F.avg_pool2d(residual, 2)
            elif self.resize == "up":
                residual = F.interpolate(residual, scale_factor=2.0, mode="nearest")
            self.plain = (self.x.float() + self.bias + _rows(residual)).to(self.x.dtype)
        return self.plain


def _planes(x: Tensor) -> Tensor:
    """View [N, H, W, C] as [N, C, H, W], in channels_last."""
    return x.permute(0, 3, 1, 2)


def _rows(x: Tensor) -> Tensor:
    """View [N, C, H, W] in channels_last as [N, H, W, C]."""
    return x.permute(0, 2, 3, 1).contiguous()


class Conv:
    """A convolution on [N, H, W, C]; its bias is added only where it is called with `biased`."""

    def __init__(self, layer: nn.Conv2d, dtype: torch.dtype, padded: int = 0) -> None:
        weight = F.pad(layer.weight.detach(), (0, 0, 0, 0, 0, padded))
        self.weight = weight.to(dtype, memory_format=torch.channels_last)
        self.bias = _of(layer.bias)
        self.own = self.bias.to(dtype)
        self.stride = layer.stride
        self.padding = _as(tuple, layer.padding)

    def __call__(self, x: Tensor, biased: bool = False) -> Tensor:
        """Map [N, H, W, Cin] to [N, H', W', Cout]."""
        bias = self.own if biased else None
        return _rows(F.conv2d(_planes(x), self.weight, bias, self.stride, self.padding))


class Norm:
    """A norm with the SiLU and the resizing behind it. Its tables have one line, or one a plan row."""

    def __init__(self, layer: nn.GroupNorm, silu: bool, resize: Resize = "none") -> None:
        self.groups, self.eps, self.silu, self.resize = layer.num_groups, layer.eps, silu, resize
        self.gamma, self.beta = _of(layer.weight)[None].clone(), _of(layer.bias)[None].clone()
        self.row = torch.zeros(1, dtype=torch.int32, device=self.gamma.device)

    def __call__(self, signal: Signal, second: Tensor | None = None) -> Tensor:
        """Normalise concat(signal, second); the signal is plain from then on."""
        x = signal.plain if signal.plain is not None else signal.x
        assert x is not None
        pending = signal.plain is None and signal.residual is not None
        total = torch.empty_like(x) if pending else None
        n, h, w, c = x.shape
        c += 0 if second is None else second.shape[3]
        sides = {"none": (h, w), "down": (h // 2, w // 2), "up": (2 * h, 2 * w)}[self.resize]
        out = x.new_empty((n, *sides, c))
        group_norm_silu(
            x, self.gamma, self.beta, self.row, out, groups=self.groups, eps=self.eps, silu=self.silu,
            resize=self.resize, bias=None if signal.plain is not None else signal.bias,
            residual=signal.residual if pending else None, residual_resize=signal.resize if pending else "none",
            total=total, second=second,
        )  # fmt: skip
        if total is not None:
            signal.plain = total
        return out


class TimedNorm(Norm):
    """The second norm of a residual block, whose tables the time makes: gamma (1 + scale), beta (1 + scale) + shift.

    Without scale and shift the time gives a bias before the norm. Source: arXiv 2105.05233, section 3 (AdaGN).
    """

    def __init__(self, block: ResBlock, step: Tensor) -> None:
        super().__init__(_as(nn.GroupNorm, block.out_layers[0]), silu=True)
        self.row = step
        self.emb_layers, self.scale_shift = block.emb_layers, block.scale_shift
        self.first_bias = _of(_as(nn.Conv2d, block.in_layers[2]).bias)[None]
        self.own = self.gamma, self.beta
        self.bias = self.first_bias

    def reserve(self, rows: int) -> None:
        """Make room for the tables of so many plan rows."""
        channels = self.own[0].shape[1]
        self.gamma, self.beta, self.bias = (self.own[0].new_empty((rows, channels)) for _ in range(3))

    def fill(self, emb: Tensor) -> None:
        """Write the tables of the times embedded in emb [rows, 4 model_channels], in place."""
        e = self.emb_layers(emb)
        scale, shift = e.chunk(2, dim=1) if self.scale_shift else (torch.zeros_like(e), e)
        gamma, beta = self.own
        rows = slice(len(emb))
        self.gamma[rows] = gamma * (1 + scale)
        self.beta[rows] = beta * (1 + scale) + shift if self.scale_shift else beta.expand_as(e)
        self.bias[rows] = self.first_bias if self.scale_shift else self.first_bias + e


class FusedResBlock:
    """A residual block: two norms, two convolutions, and a skip connection that the next norm adds."""

    def __init__(self, block: ResBlock, width: int, dtype: torch.dtype, step: Tensor) -> None:
        norm_in, _, conv_in = block.in_layers
        self.norm_in = Norm(_as(nn.GroupNorm, norm_in), silu=True, resize=_RESIZES[block.resize])
        self.conv_in = Conv(_as(nn.Conv2d, conv_in), dtype)
        self.norm_out = TimedNorm(block, step)
        self.conv_out = Conv(_as(nn.Conv2d, block.out_layers[3]), dtype)
        self.bias = self.conv_out.bias[None]
        self.skip: tuple[Tensor, ...] | None = None
        if isinstance(block.skip_connection, nn.Conv2d):
            # On a concatenation a 1x1 convolution is the sum of two; `width` is where the second source begins.
            weight = block.skip_connection.weight.detach()[:, :, 0, 0].to(dtype)
            self.skip = tuple(part.t().contiguous() for part in (weight[:, :width], weight[:, width:]))
            self.bias = self.bias + _of(block.skip_connection.bias)

    def __call__(self, signal: Signal, second: Tensor | None = None) -> Signal:
        """Map [N, H, W, C], and perhaps a second source, to [N, H', W', out]."""
        h = self.conv_in(self.norm_in(signal, second))
        h = self.conv_out(self.norm_out(Signal(x=h, bias=self.norm_out.bias)))
        residual = signal.settled()
        if self.skip is not None:
            n, height, width, _ = residual.shape
            flat = residual.flatten(0, 2) @ self.skip[0]
            if second is not None:
                flat = torch.addmm(flat, second.flatten(0, 2), self.skip[1])
            residual = flat.view(n, height, width, -1)
        return Signal(x=h, bias=self.bias, residual=residual, resize=self.norm_in.resize)


class FusedAttention:
    """Self-attention over all pixels, its residual left to the next norm."""

    def __init__(self, block: AttentionBlock, dtype: torch.dtype) -> None:
        self.heads = block.heads
        self.norm = Norm(block.norm, silu=False)
        # Checkpoints order the rows (head, q|k|v, channel); what is computed here is (q|k|v, head, channel).
        qkv = _as(nn.Conv1d, block.qkv)
        order = torch.arange(qkv.out_channels).view(self.heads, 3, -1).transpose(0, 1).flatten()
        order = order.to(qkv.weight.device)
        self.qkv = qkv.weight.detach()[order, :, 0].to(dtype)
        self.qkv_bias = _of(qkv.bias)[order].to(dtype)
        self.proj = _as(nn.Conv1d, block.proj_out).weight.detach()[:, :, 0].to(dtype)
        self.bias = _of(_as(nn.Conv1d, block.proj_out).bias)[None]

    def __call__(self, signal: Signal) -> Signal:
        """Map [N, H, W, C] to the same."""
        flat = self.norm(signal).flatten(1, 2)
        qkv = F.linear(flat, self.qkv, self.qkv_bias)
        qkv = qkv.view(*flat.shape[:2], 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind()
        h = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        residual = signal.settled()
        return Signal(x=F.linear(h, self.proj).view(residual.shape), bias=self.bias, residual=residual)


class Resampled:
    """A change of size by a convolution: strided, or behind a repetition of pixels."""

    def __init__(self, layer: Downsample | Upsample, dtype: torch.dtype) -> None:
        self.up = isinstance(layer, Upsample)
        self.conv = Conv(layer.conv if isinstance(layer, Upsample) else layer.op, dtype)

    def __call__(self, signal: Signal) -> Signal:
        """Map [N, H, W, C] to [N, H/2, W/2, C] or [N, 2H, 2W, C]."""
        x = signal.settled()
        if self.up:
            x = _rows(F.interpolate(_planes(x), scale_factor=2.0, mode="nearest"))
        return Signal(plain=self.conv(x, biased=True))


Layer = FusedResBlock | FusedAttention | Resampled


class FusedUNet:
    """A U-Net folded for inference in `dtype`, on the device that its parameters are on.

    `set_times` fills the tables for a plan; a call runs the row that the int32 tensor `step` holds. The input is
    [N, H/p, W/p, in_width] in `dtype`, p = patch: the channels of pixel_unshuffle(x, p), then zeros; the output is
    [N, H/p, W/p, out_channels p^2], the channels that pixel_shuffle(p) takes.
    """

    def __init__(self, network: UNet, dtype: torch.dtype = torch.float32) -> None:
        self.dtype, self.patch, self.multiple = dtype, network.patch, network.multiple
        self.model_channels, self.time_embed = network.model_channels, _as(nn.Sequential, network.time_embed)
        stem = _as(nn.Conv2d, _as(Stage, network.input_blocks[0])[0])
        device = stem.weight.device
        self.step = torch.zeros(1, dtype=torch.int32, device=device)
        seen = network.in_channels * self.patch**2
        padded = 0 if dtype == torch.float32 else -seen % _CHANNELS
        self.in_width = seen + padded
        self.stem = Conv(stem, dtype, padded)
        self.timed: list[TimedNorm] = []
        widths = [stem.out_channels]
        self.down = []
        for stage in network.input_blocks[1:]:
            self.down.append(self._fold(_as(Stage, stage), widths[-1]))
            widths.append(_width(stage, widths[-1]))
        width = widths[-1]
        self.middle = self._fold(network.middle_block, width)
        self.up = []
        for stage in network.output_blocks:
            self.up.append(self._fold(_as(Stage, stage), width))
            width = _width(stage, width)
        self.norm = Norm(_as(nn.GroupNorm, network.out[0]), silu=True)
        self.head = Conv(_as(nn.Conv2d, network.out[2]), dtype)
        self.capacity = 0

    def _fold(self, stage: Stage, width: int) -> list[Layer]:
        layers: list[Layer] = []
        for layer in stage:
            if isinstance(layer, ResBlock):
                block = FusedResBlock(layer, width, self.dtype, self.step)
                layers.append(block)
                self.timed.append(block.norm_out)
            elif isinstance(layer, AttentionBlock):
                layers.append(FusedAttention(layer, self.dtype))
            elif isinstance(layer, Downsample | Upsample):
                layers.append(Resampled(layer, self.dtype))
        return layers

    @torch.no_grad()
    def set_times(self, times: Tensor) -> None:
        """Fill the tables for the times [rows] of a plan; more than `capacity` move them, so that graphs are void."""
        if len(times) > self.capacity:
            capacity = 1 << (len(times) - 1).bit_length()
            for norm in self.timed:
                norm.reserve(capacity)
            self.capacity = capacity
        emb: Tensor = self.time_embed(time_features(times.to(self.step.device), self.model_channels))
        for norm in self.timed:
            norm.fill(emb)

    @torch.no_grad()
    def __call__(self, x: Tensor) -> Tensor:
        """Run the row in `step` on an input as the class says."""
        signal = Signal(plain=self.stem(x, biased=True))
        skips = [signal]
        for stage in self.down:
            signal = _run(stage, signal)
            skips.append(signal)
        signal = _run(self.middle, signal)
        for stage in self.up:
            signal = _run(stage, signal, skips.pop().settled())
        return self.head(self.norm(signal), biased=True)


def _run(stage: list[Layer], signal: Signal, second: Tensor | None = None) -> Signal:
    for layer in stage:
        if isinstance(layer, FusedResBlock):
            signal, second = layer(signal, second), None
        else:
            signal = layer(signal)
    return signal


def _of(parameter: Tensor | nn.Module | None) -> Tensor:
    """Return a parameter as a float32 tensor."""
    assert isinstance(parameter, Tensor)
    return parameter.detach().float()


def _as(kind: type[Kind], value: object) -> Kind:
    """Return a value that must be of a kind."""
    assert isinstance(value, kind)
    return value


def _width(stage: nn.Module, width: int) -> int:
    """Return the channels behind a stage."""
    for layer in stage.children():
        if isinstance(layer, ResBlock):
            width = _as(nn.Conv2d, layer.out_layers[3]).out_channels
    return width
