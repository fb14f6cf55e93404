"""How some PyTorch operators are written in ONNX, where the exporter's own way is slow or long-winded.

Parameters are called as in the operators' schemas: PyTorch 2.10 takes no translation whose parameters have other names.
"""

from collections.abc import Callable
from typing import Any

import torch
from onnxscript import opset18 as op

# The oldest opset with all that is needed here: TensorRT, OpenVINO and ONNX Runtime all read it.
OPSET = 18

Value = Any  # onnxscript's symbolic values have no public type


def group_norm(
    input: Value,  # noqa: A002
    num_groups: int,
    weight: Value,
    bias: Value,
    eps: float = 1e-5,
    cudnn_enabled: bool = True,
) -> Value:
    """Write a GroupNorm of input [B, C, ...] as input * scale + shift, from means over the pixels of each channel.

    The large tensors keep their rank, so a CPU that convolves in channels-last layout need not reorder them, as it must
    for GroupNormalization (18 % of the time of a small U-Net in OpenVINO). Each mean is taken along one axis at a time,
    which makes the sums short; the variance is that of centred values, so a large mean does no harm.
    """
    rank, groups = len(input.shape), num_groups
    mean = _pixel_mean(input, rank)
    centred = op.Sub(input, mean)
    spread = _pixel_mean(op.Mul(centred, centred), rank)

    grouped = _ints(0, groups, -1)  # [B, groups, channels of a group]
    means = op.Reshape(mean, grouped)
    group_mean = op.ReduceMean(means, _ints(2))
    offset = op.Sub(means, group_mean)
    variance = op.ReduceMean(op.Add(op.Reshape(spread, grouped), op.Mul(offset, offset)), _ints(2))
    deviation = op.Sqrt(op.Add(variance, op.Constant(value_float=eps)))
    scale = op.Div(op.Reshape(weight, _ints(groups, -1)), deviation)
    shift = op.Sub(op.Reshape(bias, _ints(groups, -1)), op.Mul(group_mean, scale))

    channels = _ints(0, -1, *[1] * (rank - 2))
    return op.Add(op.Mul(input, op.Reshape(scale, channels)), op.Reshape(shift, channels))


def attention(
    query: Value,
    key: Value,
    value: Value,
    attn_mask: Value = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Value:
    """Write softmax(query key^T scale) value, each [B, heads, length, channels]; masks and dropout are refused."""
    if attn_mask is not None or dropout_p or is_causal or enable_gqa:
        raise NotImplementedError("attention with a mask, dropout or grouped queries has no place in these networks")
    factor = op.Constant(value_float=scale or query.shape[-1] ** -0.5)
    scores = op.MatMul(op.Mul(query, factor), op.Transpose(key, perm=[0, 1, 3, 2]))
    return op.MatMul(op.Softmax(scores, axis=-1), value)


def pixel_unshuffle(self: Value, downscale_factor: int) -> Value:
    """Write space-to-depth in PyTorch's channel order: (channel, row, column).

    ONNX's order is (row, column, channel), the same for a single channel, so each channel is taken apart. Permuting the
    channels afterwards is no way out: OpenVINO 2026.4 folds such a Gather into the next convolution the wrong way.
    """
    planes = op.Reshape(self, op.Concat(_ints(-1, 1), op.Shape(self, start=2), axis=0))
    blocks = op.SpaceToDepth(planes, blocksize=downscale_factor)
    return op.Reshape(
        blocks, op.Concat(_ints(-1, self.shape[1] * downscale_factor**2), op.Shape(blocks, start=2), axis=0)
    )


def pixel_shuffle(self: Value, upscale_factor: int) -> Value:
    """Write depth-to-space, whose CRD mode is PyTorch's channel order."""
    return op.DepthToSpace(self, blocksize=upscale_factor, mode="CRD")


def _pixel_mean(x: Value, rank: int) -> Value:
    """Average over each axis after the channels, the last one first."""
    for axis in reversed(range(2, rank)):
        x = op.ReduceMean(x, _ints(axis))
    return x


def _ints(*values: int) -> Value:
    return op.Constant(value_ints=list(values))


TRANSLATIONS: dict[Callable[..., Any], Callable[..., Any]] = {
    torch.ops.aten.group_norm.default: group_norm,
    torch.ops.aten.scaled_dot_product_attention.default: attention,
    torch.ops.aten.pixel_unshuffle.default: pixel_unshuffle,
    torch.ops.aten.pixel_shuffle.default: pixel_shuffle,
}
