"""Running a plan with any callable as the network, and the noise that plans draw."""

from __future__ import annotations

import operator
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from i2sb_rt import _core
from i2sb_rt.errors import UsageError, from_core
from i2sb_rt.plan import Plan

F32 = NDArray[np.float32]
Seeds = int | Sequence[int] | NDArray[np.integer[Any]] | None


def sample(
    network: Callable[[Any, Any], Any],
    x1: Any,
    plan: Plan,
    seeds: Seeds = None,
    mask: Any = None,
    cond: Any = None,
    noise: Any = None,
    trajectory: bool = False,
) -> Any:
    """Run a plan from x1 and return where it ends.

    network: called as network(x, t) with x float32 [B, C, H, W] and t float32 [B], returns [B, C, H, W].
    x1: float [B, C, H, W], in [-1, 1] for images. cond: float [B, K, H, W]; the network then sees [B, C + K, H, W],
    cond behind x. mask: [B, 1, H, W], 1 = hole, 0 = known. seeds: None (0), one for all, or one each.
    noise: recorded draws [draw, B, C, H, W], used in place of the seeds' noise in the order drawn.
    Returns float32 [B, C, H, W]; with trajectory [B, nfe, C, H, W], index 0 final.
    With a torch tensor as x1 (on the CPU) the network sees torch tensors and one is returned; a torch.nn.Module always
    sees them, without gradients.
    Raises UsageError for shapes and values that do not fit, NonFiniteError where the result is not finite.
    """
    if not isinstance(plan, Plan):
        raise UsageError(f"a plan is a Plan, such as Plan(rows) makes of rows, not {type(plan).__name__}")
    wants_torch = _is_torch(x1, "Tensor")
    state = _array("x1", x1)
    predict = _adapted(network, wants_torch or _is_torch(network, "nn.Module"))
    with from_core():
        out = _core.sample(
            _core.Engine.callback(predict),
            plan.rows,
            state,
            clip=plan.clip,
            known=plan.known,
            cond=None if cond is None else _array("cond", cond),
            mask=None if mask is None else _array("mask", mask),
            seeds=seed_list(seeds, len(state)),
            draws=None if noise is None else _array("noise", noise),
            trajectory=trajectory,
        )
    return sys.modules["torch"].from_numpy(out) if wants_torch else out


def noise(seed: int, shape: tuple[int, int, int], row: int, purpose: int = 0) -> F32:
    """Return standard normal noise of one image, float32 [C, H, W].

    shape: (C, H, W). row: the plan row that draws it, from 0. purpose: 0 step, 1 hole, 2 known region, 3 x1.
    The same arguments give the same numbers everywhere. Raises UsageError for negative or oversized arguments.
    """
    if len(shape) != 3 or min(shape) < 1:
        raise UsageError(f"the shape of noise is (C, H, W), each at least 1, not {tuple(shape)}")
    if not 0 <= row < 2**32 or not 0 <= purpose < 2**32:
        raise UsageError(f"row and purpose lie in 0 .. 2^32 - 1, not {row} and {purpose}")
    (checked,) = seed_list(seed, 1)
    return _core.noise(checked, 0, int(np.prod(shape)), row, purpose).reshape(shape)


def seed_list(seeds: Seeds, count: int) -> list[int]:
    """One seed for each of `count` images, from None (0), one integer for all, or a sequence of that length.

    Raises UsageError for another length, for what is no integer, and outside 0 .. 2^64 - 1.
    """
    try:
        given = [operator.index(0 if seeds is None else seeds)] * count  # type: ignore[arg-type]
    except TypeError:
        try:
            given = [operator.index(seed) for seed in seeds]  # type: ignore[union-attr]
        except TypeError:
            raise UsageError(f"a seed is an integer, or a sequence of them, not {seeds!r}") from None
    if len(given) != count:
        raise UsageError(f"{len(given)} seeds for {count} images: give one for all or one each")
    for seed in given:
        if not 0 <= seed < 2**64:
            raise UsageError(f"a seed lies in 0 .. 2^64 - 1, not {seed}")
    return given


def _is_torch(thing: Any, kind: str) -> bool:
    """Whether a thing is of this torch class; torch is not imported to find out."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(thing, operator.attrgetter(kind)(torch))


def _array(name: str, values: Any) -> F32:
    """Return an array or a tensor as contiguous float32; the core checks its shape."""
    if _is_torch(values, "Tensor"):
        if values.device.type != "cpu":
            raise UsageError(f"{name} lies on {values.device}, but this loop runs on the CPU")
        values = values.detach().float().numpy()
    try:
        return np.require(values, np.float32, "C")
    except (TypeError, ValueError) as error:
        raise UsageError(f"{name} is no array of numbers: {error}") from error


def _adapted(network: Callable[[Any, Any], Any], in_torch: bool) -> Callable[[F32, F32], F32]:
    """Wrap the network for the core: it gets copies, since the core's own memory is gone after the call."""
    torch = sys.modules["torch"] if in_torch else None

    def predict(x: F32, t: F32) -> F32:
        if torch is None:
            return _array("the network's output", network(x.copy(), t.copy()))
        with torch.no_grad():
            return _array("the network's output", network(torch.tensor(x), torch.tensor(t)))

    return predict
