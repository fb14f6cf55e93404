"""Compiles the Triton kernels for sm_90, with no GPU, and prints what each uses as JSON.

A program of its own, since Triton decides once a process whether it compiles or interprets.
"""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
from pathlib import Path

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from i2sb_kernels.bridge_step.gpu import bridge_step_kernel
from i2sb_kernels.noise.gpu import GROUPS, noise_kernel

POINTERS = ("x", "o", "rows", "step", "x1", "mask", "h1", "h2", "x0", "z", "z_known", "seeds")
TYPES = {"step": "*i32", "seeds": "*i64"}
CUOBJDUMP = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"


def step_source(present: tuple[str, ...], clip: bool = False, known_x0: bool = False, wide: bool = False) -> ASTSource:
    types = {f"{name}_ptr": TYPES.get(name, "*fp32") for name in POINTERS}
    types |= {"size": "i64" if wide else "i32", "pixels": "i32", "blocks": "i32"}
    constants = {f"{name}_ptr": None for name in POINTERS if name not in present}
    constants |= {"CLIP": clip, "KNOWN_X0": known_x0, "WIDE": wide, "GROUPS": GROUPS}
    signature = {name: "constexpr" if name in constants else types[name] for name in bridge_step_kernel.arg_names}
    aligned = {(i,): [["tt.divisibility", 16]] for i, kind in enumerate(signature.values()) if kind.startswith("*")}
    size = list(signature).index("size")
    return ASTSource(bridge_step_kernel, signature, constants, aligned | {(size,): [["tt.divisibility", 16]]})


def noise_source() -> ASTSource:
    signature = {"out_ptr": "*fp32", "seed": "i64", "first_group": "i64", "skip": "i32", "count": "i64"}
    signature |= {"row": "i64", "purpose": "i32", "GROUPS": "constexpr"}
    return ASTSource(noise_kernel, signature, {"GROUPS": GROUPS}, {(0,): [["tt.divisibility", 16]]})


def resources(source: ASTSource) -> dict[str, int]:
    compiled = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"enable_fp_fusion": False})
    with tempfile.TemporaryDirectory() as folder:
        cubin = Path(folder, "kernel.cubin")
        cubin.write_bytes(compiled.asm["cubin"])
        text = subprocess.run(
            [CUOBJDUMP, "--dump-resource-usage", cubin], capture_output=True, text=True, check=True
        ).stdout
    found = {key.lower(): int(value) for key, value in re.findall(r"\b(REG|STACK|LOCAL|SHARED):(\d+)", text)}
    ptx = compiled.asm["ptx"]
    return found | {"fma": len(re.findall(r"\bfma\.rn\.f32", ptx)), "vector_stores": ptx.count("st.global.v4")}


def main() -> None:
    everything = tuple(name for name in POINTERS if name not in ("z", "z_known"))
    sources = {
        "posterior": step_source(("x", "o", "rows", "step", "seeds")),
        "ode": step_source(("x", "o", "rows", "step")),
        "everything": step_source(everything, clip=True),
        "everything_wide": step_source(everything, clip=True, known_x0=True, wide=True),
        "recorded": step_source(POINTERS),
        "noise": noise_source(),
    }
    print(json.dumps({name: resources(source) for name, source in sources.items()}))


if __name__ == "__main__":
    main()
