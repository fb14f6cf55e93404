"""PyTorch and Triton on a GPU: the folded network in the loop that stays there."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Final

from i2sb_rt.errors import DeviceError

try:
    import torch
except ImportError as error:
    raise DeviceError("the engine cuda needs PyTorch: pip install 'i2sb-rt[gpu]'") from error

from i2sb_rt.engines.device import DeviceEngine
from i2sb_rt.engines.loop import Loop
from i2sb_rt.networks.fused import FusedUNet
from i2sb_rt.networks.loading import load_network
from i2sb_rt.networks.unet import UNet

DTYPES: Final = {
    "fp32": torch.float32,
    "tf32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}


class CudaEngine(DeviceEngine):
    """The folded network in a precision; "auto" is bf16 on a GPU that computes it, else fp16.

    batch: as in `DeviceEngine`. Raises DeviceError where there is no GPU.
    """

    def __init__(self, path: Path, precision: str = "auto", device: str = "cuda", batch: int | None = None) -> None:
        if device == "cuda" and not torch.cuda.is_available():
            raise DeviceError("PyTorch finds no CUDA device here")
        if device == "cuda" and importlib.util.find_spec("triton") is None:
            raise DeviceError("the engine cuda needs Triton: pip install 'i2sb-rt[gpu]'")
        if precision == "auto":
            precision = (
                "bf16" if device != "cuda" or torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
            )
        network = load_network(path)
        if not isinstance(network, UNet):
            raise DeviceError(f"{path}: the engine cuda runs U-Nets; points run in the engines native and torch")
        network.to(device)
        loop = Loop(FusedUNet(network, DTYPES[precision]), tf32=precision == "tf32", bucket=batch)
        super().__init__("cuda", precision, loop, batch)
