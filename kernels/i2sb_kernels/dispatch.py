"""Which twin of an op runs: for each kind of array the twins, slow to fast, with the module that each needs."""

from functools import cache
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Final

import numpy as np

TWINS: Final[dict[str, tuple[tuple[str, str | None], ...]]] = {
    "numpy": (("reference", None), ("cpu", "i2sb_kernels._native")),
    "torch": (("gpu", "triton"),),
}


def kind_of(array: object) -> str:
    """Return the kind of an array: `numpy` or `torch`.

    Raises:
        TypeError: the array is neither.

    """
    if isinstance(array, np.ndarray):
        return "numpy"
    if type(array).__module__.partition(".")[0] == "torch":
        return "torch"
    raise TypeError(f"a kernel takes NumPy arrays or PyTorch tensors, not {type(array).__name__}")


@cache
def available(op: str, kind: str) -> dict[str, ModuleType]:
    """List the twins of an op that can run here, slow to fast, by name."""
    return {
        name: import_module(f"i2sb_kernels.{op}.{name}")
        for name, needs in TWINS[kind]
        if needs is None or find_spec(needs) is not None
    }


def twin(op: str, array: object) -> ModuleType:
    """Return the fastest twin of an op for an array.

    Raises:
        TypeError: the array is neither NumPy's nor PyTorch's.
        RuntimeError: nothing here can run the op on such an array.

    """
    kind = kind_of(array)
    twins = available(op, kind)
    if not twins:
        needs = ", ".join(str(module) for _, module in TWINS[kind])
        raise RuntimeError(f"{op} on {kind} arrays needs {needs}, which is not installed")
    return list(twins.values())[-1]
