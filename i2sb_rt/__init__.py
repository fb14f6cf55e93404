"""Restores images with diffusion bridges.

Everything public is named here and imported on first use, so that `import i2sb_rt` costs next to nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from i2sb_rt import errors as errors
    from i2sb_rt import networks as networks
    from i2sb_rt import operators as operators
    from i2sb_rt.errors import I2SBError as I2SBError
    from i2sb_rt.plan import Plan as Plan
    from i2sb_rt.restorer import Restorer as Restorer
    from i2sb_rt.restorer import load as load
    from i2sb_rt.restorer import restore as restore
    from i2sb_rt.sampling import noise as noise
    from i2sb_rt.sampling import sample as sample
    from i2sb_rt.schedule import Schedule as Schedule
    from i2sb_rt.transport import Transport as Transport
    from i2sb_rt.transport import load_transport as load_transport

    __version__: str

_HOMES = {
    "I2SBError": "i2sb_rt.errors",
    "Plan": "i2sb_rt.plan",
    "Restorer": "i2sb_rt.restorer",
    "Schedule": "i2sb_rt.schedule",
    "Transport": "i2sb_rt.transport",
    "load": "i2sb_rt.restorer",
    "load_transport": "i2sb_rt.transport",
    "noise": "i2sb_rt.sampling",
    "restore": "i2sb_rt.restorer",
    "sample": "i2sb_rt.sampling",
}

__all__ = [
    "I2SBError",
    "Plan",
    "Restorer",
    "Schedule",
    "Transport",
    "__version__",
    "errors",
    "load",
    "load_transport",
    "networks",
    "noise",
    "operators",
    "restore",
    "sample",
]


def __getattr__(name: str) -> Any:
    """Import a public name on first use (PEP 562)."""
    if name == "__version__":
        value: Any = import_module("importlib.metadata").version("i2sb-rt")
    elif name in ("errors", "networks", "operators"):
        value = import_module(f"i2sb_rt.{name}")
    elif name in _HOMES:
        value = getattr(import_module(_HOMES[name]), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
