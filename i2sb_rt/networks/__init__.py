"""Networks that a bridge can run; they need PyTorch, which is imported only when one of them is asked for."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from i2sb_rt.networks.unet import UNet as UNet

__all__ = ["UNet"]


def __getattr__(name: str) -> Any:
    """Import `UNet` on first use (PEP 562), so that `import i2sb_rt` stays free of PyTorch."""
    if name != "UNet":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from i2sb_rt.networks.unet import UNet

    return UNet
