"""What one call of the network launches and moves on a GPU, counted without one: python benchmarks/counts.py.

The published network (552.8 million parameters, 256x256, one image) runs on PyTorch's meta device, which computes
nothing: in eager fp16 in the manner of the reference, and folded as `i2sb_rt.networks.fused` runs it. Each operator
counts the bytes of what it reads and writes once, which is the least that it can move; views cost nothing.
"""

from __future__ import annotations

from collections import Counter
from typing import Any
from unittest import mock

import torch
from gpu import ADM256, InTheManner
from gpu_run import table
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from i2sb_kernels.group_norm_silu.gpu import SMALL
from i2sb_rt.networks import UNet, fused

KINDS = {
    "convolutions, products, attention": ("convolution", "mm", "addmm", "bmm", "attention"),
    "GroupNorm, SiLU, scale and shift, residuals, casts": (
        "native_group_norm", "silu", "mul", "add", "_to_copy", "group_norm_silu"
    ),
    "skip concatenation": ("cat",),
    "changes of size": ("avg_pool2d", "upsample_nearest2d"),
    "attention between its products": ("_softmax",),
}  # fmt: skip
REST = "the rest: times, padding, layouts"


class Counted(TorchDispatchMode):
    """Counts launches and bytes of each kind of operator while it is entered."""

    def __init__(self) -> None:
        super().__init__()
        self.launches: Counter[str] = Counter()
        self.bytes: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operator, and count it unless it only looks at memory in another way, or only takes it."""
        out = func(*args, **(kwargs or {}))
        given = [value for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor)]
        made = [value for value in tree_leaves(out) if isinstance(value, Tensor)]
        name = func.overloadpacket.__name__
        if not (func.is_view or "empty" in name or name in ("detach", "arange", "_unsafe_view")):
            self.take(name, 1, given + made)
        return out

    def take(self, name: str, launches: int, tensors: list[Tensor]) -> None:
        """Count launches that read or write each of some tensors once."""
        kind = next((kind for kind, names in KINDS.items() if name in names), REST)
        self.launches[kind] += launches
        self.bytes[kind] += sum(_bytes(tensor) for tensor in tensors)


def _bytes(tensor: Tensor) -> int:
    held: int = min(tensor.numel() * tensor.element_size(), tensor.untyped_storage().nbytes())
    return held


def count_reference(side: int) -> Counted:
    """Count a call of the U-Net in fp16 in the manner of the reference."""
    with torch.device("meta"), torch.no_grad():
        network = InTheManner(UNet(**ADM256).eval())
        x, t = torch.zeros((1, 3, side, side)), torch.zeros(1)
        with Counted() as counted:
            network(x, t)
    return counted


def count_fused(side: int) -> Counted:
    """Count a call of the folded network in bf16; the tables of the times are filled before.

    Two things differ from a GPU's on the meta device, and are put right: convolutions of NHWC leave NHWC, and attention
    is one kernel.
    """
    counted = Counted()

    def rows(x: Tensor) -> Tensor:
        return x.new_empty(x.permute(0, 2, 3, 1).shape)

    def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        out = torch.empty_like(v)
        counted.take("attention", 1, [q, k, v, out])
        return out

    def norm(
        x: Tensor, *tables: Tensor, total: Tensor | None = None, second: Tensor | None = None, **given: Any
    ) -> None:
        *_, out = tables
        small = x.shape[1] * x.shape[2] <= SMALL
        source = x if total is None else total
        read = [tensor for tensor in (x, given["residual"], second, source, second) if tensor is not None]
        counted.take("group_norm_silu", 1 if small else 3, [*read, out, *([] if total is None else [total])])

    with torch.device("meta"), torch.no_grad():
        network = fused.FusedUNet(UNet(**ADM256).eval(), torch.bfloat16)
        network.set_times(torch.zeros(1))
        x = torch.zeros((1, side, side, network.in_width), dtype=torch.bfloat16)
        stand_ins = {"group_norm_silu": norm, "_rows": rows, "F": mock.Mock(wraps=fused.F)}
        stand_ins["F"].scaled_dot_product_attention = attention
        with mock.patch.multiple(fused, **stand_ins), counted:
            network(x)
    return counted


def main() -> None:
    """Count both and print the table."""
    reference, ours = count_reference(256), count_fused(256)
    lines = [
        {"one call, one image": kind, **_told("reference", reference, [kind]), **_told("ours", ours, [kind])}
        for kind in (*KINDS, REST)
    ]
    total = {**_told("reference", reference, [*KINDS, REST]), **_told("ours", ours, [*KINDS, REST])}
    print(table([*lines, {"one call, one image": "all", **total}]))


def _told(name: str, counted: Counted, kinds: list[str]) -> dict[str, Any]:
    moved = sum(counted.bytes[kind] for kind in kinds) / 1e9
    return {f"launches, {name}": sum(counted.launches[kind] for kind in kinds), f"GB, {name}": f"{moved:.2f}"}


if __name__ == "__main__":
    main()
