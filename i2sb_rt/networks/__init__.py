"""Networks that a bridge can run; they need PyTorch, which is imported only when one of them is asked for."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from i2sb_rt.networks.mlp import MLP as MLP
    from i2sb_rt.networks.unet import UNet as UNet

_HOMES = {"MLP": "mlp", "UNet": "unet"}

__all__ = ["MLP", "UNet"]


def __getattr__(name: str) -> Any:
    """Import a network on first use (PEP 562), so that `import i2sb_rt` stays free of PyTorch."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
