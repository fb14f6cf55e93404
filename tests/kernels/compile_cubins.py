"""Compiles the Triton kernels for real chips, with no GPU, and prints what each uses as JSON: {target: {kernel: uses}}.

A program of its own, since Triton decides once a process whether it compiles or interprets. Arguments: targets, as 90.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from i2sb_kernels.bridge_step.gpu import bridge_step_kernel
from i2sb_kernels.group_norm_silu.gpu import CHUNK, TILE, apply_kernel, merge_kernel, small_kernel, stats_kernel
from i2sb_kernels.noise.gpu import GROUPS, noise_kernel

POINTERS = ("x", "o", "rows", "step", "x1", "mask", "h1", "h2", "x0", "z", "z_known", "seeds", "seen")
TYPES = {"step": "*i32", "seeds": "*i64", "gamma": "*fp32", "beta": "*fp32", "bias": "*fp32", "partial": "*fp32"}
TYPES |= {"moved": "*fp32"}
CUOBJDUMP = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"


def source(
    kernel: Any,
    element: str,
    numbers: dict[str, str],
    absent: tuple[str, ...] = (),
    network: str = "",
    **constants: Any,
) -> Any:
    """A kernel with pointers of an element type, numbers of the given types, some pointers absent, and constants.

    network: the type of o and seen, where it is another.
    """
    constants |= {f"{name}_ptr": None for name in absent}

    def kind(name: str) -> str:
        if name in constants:
            return "constexpr"
        if network and name in ("o_ptr", "seen_ptr"):
            return f"*{network}"
        return numbers.get(name) or TYPES.get(name.removesuffix("_ptr"), f"*{element}")

    signature = {name: kind(name) for name in kernel.arg_names}
    aligned = {(i,): [["tt.divisibility", 16]] for i, kind in enumerate(signature.values()) if kind.startswith("*")}
    for name in ("size", "W"):
        if name in signature:
            aligned[(list(signature).index(name),)] = [["tt.divisibility", 16]]
    return ASTSource(kernel, signature, constants, aligned)


def step_source(present: tuple[str, ...], clip: bool = False, known_x0: bool = False, wide: bool = False) -> Any:
    numbers = {"size": "i64" if wide else "i32", "pixels": "i32", "blocks": "i32", "width": "i32"}
    absent = tuple(name for name in POINTERS if name not in present)
    laid_out = "seen" in present
    return source(
        bridge_step_kernel, "fp32", numbers, absent, "bf16" if laid_out else "",
        CLIP=clip, KNOWN_X0=known_x0, WIDE=wide, GROUPS=GROUPS,
        PATCH=2 * laid_out, SAID=12 * laid_out, SEEN=24 * laid_out,
    )  # fmt: skip


def noise_source() -> Any:
    numbers = {"seed": "i64", "first_group": "i64", "skip": "i32", "count": "i64", "row": "i64", "purpose": "i32"}
    return source(noise_kernel, "fp32", numbers, GROUPS=GROUPS)


def norm_sources() -> dict[str, Any]:
    """The widest use of each kernel: bfloat16, both sources, bias, residual, and the resizing that loads most."""
    numbers = {"H": "i32", "W": "i32", "HW": "i32", "chunks": "i32", "eps": "fp32"}
    both = {"C1": 256, "C2": 256}
    tile = {"ROWS": TILE // 64, "COLUMNS": 64}
    return {
        "norm_stats": source(stats_kernel, "bf16", numbers, RESIDUAL=0, CHUNK=CHUNK, **both, **tile),
        "norm_stats_residual_down": source(
            stats_kernel, "bf16", numbers, RESIDUAL=1, CHUNK=CHUNK, ROWS=TILE // 128, COLUMNS=64, **both
        ),
        "norm_merge": source(
            merge_kernel, "fp32", numbers, C=512, WIDTH=16, CHUNK=CHUNK, ROWS=TILE // 16, COLUMNS=16
        ),
        "norm_apply": source(apply_kernel, "bf16", numbers, RESIZE=0, SILU=True, **both, **tile),
        "norm_apply_down": source(apply_kernel, "bf16", numbers, RESIZE=1, SILU=True, **both, **tile),
        "norm_small": source(
            small_kernel, "bf16", numbers, C1=1024, C2=1024, WIDTH=64, TAKEN=1, RESIDUAL=0, RESIZE=0, SILU=True, **tile
        ),
        "norm_small_down": source(
            small_kernel, "bf16", numbers, C1=1024, C2=1024, WIDTH=64, TAKEN=1, RESIDUAL=1, RESIZE=1, SILU=True,
            ROWS=TILE // 128, COLUMNS=64,
        ),
    }  # fmt: skip


def sources() -> dict[str, Any]:
    everything = tuple(name for name in POINTERS if name not in ("z", "z_known", "seen"))
    return {
        "step_posterior": step_source(("x", "o", "rows", "step", "seeds")),
        "step_ode": step_source(("x", "o", "rows", "step")),
        "step_everything": step_source(everything, clip=True),
        "step_everything_wide": step_source(everything, clip=True, known_x0=True, wide=True),
        "step_recorded": step_source(POINTERS[:-1]),
        "step_laid_out": step_source(("x", "o", "rows", "step", "seeds", "seen")),
        "step_laid_out_everything": step_source((*everything, "seen"), clip=True),
        "noise": noise_source(),
        **norm_sources(),
    }


def resources(kernel: Any, target: int) -> dict[str, int]:
    compiled = triton.compile(kernel, target=GPUTarget("cuda", target, 32), options={"enable_fp_fusion": False})
    with tempfile.TemporaryDirectory() as folder:
        cubin = Path(folder, "kernel.cubin")
        cubin.write_bytes(compiled.asm["cubin"])
        text = subprocess.run(
            [CUOBJDUMP, "--dump-resource-usage", cubin], capture_output=True, text=True, check=True
        ).stdout
    found = {key.lower(): int(value) for key, value in re.findall(r"\b(REG|STACK|LOCAL|SHARED):(\d+)", text)}
    ptx = compiled.asm["ptx"]
    found |= {"fma": len(re.findall(r"\bfma\.rn\.f32", ptx))}
    return found | {"vector_stores": len(re.findall(r"st\.global\.v4", ptx))}


def main() -> None:
    found = {t: {name: resources(s, int(t)) for name, s in sources().items()} for t in sys.argv[1:]}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
