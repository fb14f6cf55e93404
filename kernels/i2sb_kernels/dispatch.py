"""Which twin of an op runs: for each kind of array the twins, slow to fast, with the module that each needs."""

from functools import cache
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any, Final

import numpy as np

TWINS: Final[dict[str, tuple[tuple[str, str | None], ...]]] = {
    "numpy": (("reference", None), ("cpu", "i2sb_kernels._native")),
    "gpu": (("gpu", "triton"),),
}


def kind_of(array: Any) -> str:
    """Return the kind of an array: `numpy`, which PyTorch's on a CPU are too, or `gpu`.

    Raises:
        TypeError: the array is neither NumPy's nor PyTorch's.

    """
    if isinstance(array, np.ndarray):
        return "numpy"
    if _is_tensor(array):
        return "numpy" if array.device.type == "cpu" else "gpu"
    raise TypeError(f"a kernel takes NumPy arrays or PyTorch tensors, not {type(array).__name__}")


@cache
def available(op: str, kind: str) -> dict[str, ModuleType]:
    """List the twins of an op that can run here, slow to fast, by name."""
    return {
        name: import_module(f"i2sb_kernels.{op}.{name}")
        for name, needs in TWINS[kind]
        if find_spec(f"i2sb_kernels.{op}.{name}") is not None and (needs is None or find_spec(needs) is not None)
    }


def twin(op: str, array: Any) -> ModuleType:
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


def as_numpy(name: str, value: Any) -> Any:
    """Return the argument of a NumPy twin that shares its memory with a tensor on a CPU; others come back as they are.

    A step is a number there, and seeds are unsigned.
    """
    if not _is_tensor(value):
        return value
    if name == "step":
        return int(value)
    array = value.detach().numpy()
    return array.view(np.uint64) if name == "seeds" else array


def call(op: str, function: str, array: Any, **arguments: Any) -> None:
    """Call a function of the fastest twin of an op for an array. Raises what `twin` and the function raise."""
    module = twin(op, array)
    if kind_of(array) == "numpy":
        arguments = {name: as_numpy(name, value) for name, value in arguments.items()}
    getattr(module, function)(**arguments)


def _is_tensor(value: Any) -> bool:
    return type(value).__module__.partition(".")[0] == "torch" and hasattr(value, "device")
