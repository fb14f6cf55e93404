"""A sampler as a table: one row of coefficients a network call."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from i2sb_rt import _core
from i2sb_rt.errors import UsageError, from_core
from i2sb_rt.schedule import Schedule

I3SB_ETA = 0.6
COLUMNS = ("t", "p", "q", "a", "b", "c", "d", "e", "s", "r")


@dataclass(frozen=True, eq=False)
class Plan:
    """What a sampler does, as rows that every engine reads.

    rows: [nfe, 10], kept as read-only float32, columns t p q a b c d e s r. A row calls the network once,
    o = network(x, t), and takes x0 = p x + q o, then x' = a x + b x0 + c x1 + d h1 + e h2 + s z, where h1 and h2 are
    the x0 of the rows before and z is noise. steps: the schedule's indices, ascending, [nfe + 1], or None.
    A plan of a schedule reads x0 off the network's output by its `prediction`: "noise" says (x_n - x0) / std_fwd_n
    (arXiv 2302.05872, eq. 12), so p = 1 and q = -std_fwd_n, and "mean" says x0 itself, so p = 0 and q = 1.
    clip: clamp x0 to [-1, 1]. known: what a mask does outside the hole, "renew" (x' = x1 + r z') or "x0" (x0 = x1).
    Raises UsageError unless the rows have that shape, at least one row, and only finite numbers.
    """

    rows: NDArray[np.float32]
    steps: NDArray[np.int32] | None = None
    clip: bool = False
    known: Literal["renew", "x0"] = "renew"

    def __post_init__(self) -> None:
        object.__setattr__(self, "rows", _checked_rows(self.rows))
        if self.steps is not None:
            object.__setattr__(self, "steps", _frozen(self.steps, np.int32))
        if self.known not in ("renew", "x0"):
            raise UsageError(f'known is "renew" or "x0", not {self.known!r}')

    def __reduce__(self) -> tuple[Any, ...]:
        """Have copies and what pickle brings back made anew: else their arrays could be written to."""
        return type(self), (self.rows, self.steps, self.clip, self.known)

    @classmethod
    def posterior(
        cls,
        schedule: Schedule,
        nfe: int,
        ot_ode: bool = False,
        clip: bool = False,
        prediction: str = "noise",
    ) -> Plan:
        """Posterior sampling in `nfe` network calls, 1 <= nfe <= interval - 1; with ot_ode, without noise.

        Raises UsageError where nfe is out of range. Source: arXiv 2302.05872, eq. 4 and algorithm 2.
        """
        return cls.named("ode" if ot_ode else "sde", schedule, nfe, None, clip, prediction)

    @classmethod
    def dbim(
        cls,
        schedule: Schedule,
        nfe: int,
        order: int = 1,
        eta: float = 0.0,
        steps: Sequence[int] | None = None,
        clip: bool = False,
        prediction: str = "noise",
    ) -> Plan:
        """DBIM of order 1, 2 or 3 in `nfe` network calls, 1 <= nfe <= interval - 1: fewer calls than the posterior.

        eta: the share of fresh noise on the way, 0 .. 1, where 1 is posterior sampling; 0 for the orders 2 and 3. The
        first row always draws noise, so the bridge must have been trained with it. steps: [nfe + 1], ascending from 0
        to interval - 1, in place of those of `posterior`; the second row has no history and the last is of order 1.
        Raises UsageError where a value is out of range. Source: arXiv 2405.15885, with std_bwd^2 = S^2 - std_fwd^2.
        """
        if order not in (1, 2, 3):
            raise UsageError(f"order must be 1, 2 or 3, not {order!r}")
        if order > 1 and eta != 0:
            raise UsageError("eta must be 0 for the orders 2 and 3, which draw no noise on the way")
        return cls._made(f"dbim{order}", schedule, nfe, eta if order == 1 else None, clip, prediction, steps)

    @classmethod
    def i3sb(
        cls,
        schedule: Schedule,
        nfe: int,
        eta: float = I3SB_ETA,
        clip: bool = False,
        prediction: str = "noise",
    ) -> Plan:
        """I3SB in `nfe` network calls, 1 <= nfe <= interval - 1; the last estimate of the clean image is the result.

        eta: the share of fresh noise on the way, 0 .. 1; the paper takes 0.6 for photos and 0 to 0.2 for faces. As
        with DBIM the first row draws noise whatever eta is. Raises UsageError where a value is out of range.
        Source: arXiv 2403.06069.
        """
        return cls._made("i3sb", schedule, nfe, eta, clip, prediction)

    @classmethod
    def dsb(cls, gammas: Sequence[float], direction: str, nfe: int | None = None, prediction: str = "drift") -> Plan:
        """Return the Euler-Maruyama steps of a diffusion Schrodinger bridge, the last one without noise.

        gammas: half the variance of each step, above 0, from the data on. direction: "forward", from the data, or
        "backward". x' = x + gamma f(x, t) + sqrt(2 gamma) z, t = 1000 times the share of the gammas that lie between
        x and the data. prediction: what the network says, "drift": f, "noise": f sqrt(gamma / 2), which is gamma f over
        the size of z, "mean": x + gamma f, "residual": gamma f. nfe: network calls, 1 .. len(gammas), the steps between
        taken in one; None, and always for "mean" and "residual", all.
        Raises UsageError where a value is out of range. Source: arXiv 2106.01357, section 3.3.
        """
        if nfe is not None and whole("nfe", nfe) < 1:
            raise UsageError(f"nfe must be from 1 to {len(gammas)} (the number of gammas), not {nfe}")
        with from_core():
            return cls(*_core.plan("dsb", nfe or 0, gammas=list(gammas), direction=direction, prediction=prediction))

    @classmethod
    def named(
        cls,
        sampler: str,
        schedule: Schedule,
        nfe: int,
        eta: float | None = None,
        clip: bool = False,
        prediction: str = "noise",
    ) -> Plan:
        """Return the plan of a sampler by its name: sde, ode, dbim1, dbim2, dbim3 or i3sb.

        eta: for dbim1 (0 by default) and i3sb (0.6), as there. Raises UsageError for another name or value.
        """
        return cls._made(sampler, schedule, nfe, eta, clip, prediction)

    @classmethod
    def _made(
        cls,
        sampler: str,
        schedule: Schedule,
        nfe: int,
        eta: float | None,
        clip: bool,
        prediction: str,
        steps: Sequence[int] | None = None,
    ) -> Plan:
        numbers = schedule.interval, schedule.beta_max, schedule.t0, schedule.T
        _check_eta(eta)
        if whole("nfe", nfe) == 0:
            raise UsageError(f"nfe must be from 1 to {schedule.interval - 1} (interval - 1), not 0")
        with from_core():
            return cls(
                *_core.plan(sampler, nfe, schedule=numbers, prediction=prediction, eta=eta, steps=steps, clip=clip)
            )

    @classmethod
    def of_model(
        cls, model: _core.Model, nfe: int | None = None, sampler: str | None = None, eta: float | None = None
    ) -> Plan:
        """Return the plan of a model's sampler in so many network calls; None takes the model's own.

        Raises UsageError for a sampler or a number that this model cannot be run with.
        """
        _check_eta(eta)
        if nfe is not None and whole("nfe", nfe) < 1:
            raise UsageError(f"nfe must be at least 1, not {nfe}")
        with from_core():
            return cls(*_core.plan(sampler, nfe or 0, model=model, eta=eta))

    @property
    def nfe(self) -> int:
        """The number of network calls."""
        return len(self.rows)


def whole(name: str, value: Any) -> int:
    """Return a whole number of any type as an int. Raises UsageError, with the value's name, for all else."""
    try:
        return operator.index(value)
    except TypeError:
        raise UsageError(f"{name} is a whole number, not {value!r}") from None


def _check_eta(eta: Any) -> None:
    if eta is not None and not (isinstance(eta, Real) and 0 <= float(eta) <= 1):
        raise UsageError(f"eta must be a number from 0 to 1, not {eta!r}")


def _frozen(values: ArrayLike, dtype: type[np.generic]) -> NDArray[Any]:
    """Return a read-only copy in C order."""
    array = np.array(values, dtype=dtype, order="C")
    array.flags.writeable = False
    return array


def _checked_rows(values: ArrayLike) -> NDArray[np.float32]:
    """Return the rows as read-only float32; refuse another shape and numbers that float32 cannot hold."""
    with np.errstate(over="ignore"):
        rows: NDArray[np.float32] = _frozen(values, np.float32)
    if rows.ndim != 2 or rows.shape[1] != len(COLUMNS) or not len(rows):
        raise UsageError(f"plan rows have the shape (nfe, {len(COLUMNS)}) with nfe >= 1, not {rows.shape}")
    if not np.isfinite(rows).all():
        raise UsageError("plan rows hold a number that is not finite in float32")
    return rows
