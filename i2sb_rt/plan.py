"""A sampler as a table: one row of coefficients a network call."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from i2sb_rt import _core
from i2sb_rt.errors import UsageError, from_core
from i2sb_rt.schedule import Schedule

COLUMNS = ("t", "p", "q", "a", "b", "c", "d", "e", "s", "r")


@dataclass(frozen=True, eq=False)
class Plan:
    """What a sampler does, as rows that every engine reads.

    rows: [nfe, 10], kept as read-only float32, columns t p q a b c d e s r. A row calls the network once,
    o = network(x, t), and takes x0 = p x + q o, then x' = a x + b x0 + c x1 + d h1 + e h2 + s z, where h1 and h2 are
    the x0 of the rows before and z is noise. steps: the schedule's indices, ascending, [nfe + 1], or None.
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

    @classmethod
    def posterior(cls, schedule: Schedule, nfe: int, ot_ode: bool = False, clip: bool = False) -> Plan:
        """Posterior sampling in `nfe` network calls, 1 <= nfe <= interval - 1; with ot_ode, without noise.

        Raises UsageError where nfe is out of range. Source: arXiv 2302.05872, eq. 4 and algorithm 2.
        """
        with from_core():
            rows, steps = _core.plan_posterior(
                schedule.interval, schedule.beta_max, schedule.t0, schedule.T, nfe, ot_ode
            )
        return cls(rows, steps, clip)

    @property
    def nfe(self) -> int:
        """The number of network calls."""
        return len(self.rows)


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
