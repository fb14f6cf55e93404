"""The noise schedule of a bridge."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from i2sb_rt import _core
from i2sb_rt.errors import from_core

F64 = NDArray[np.float64]


@dataclass(frozen=True)
class Schedule:
    """The symmetric schedule of I2SB and what follows from it.

    interval: the number of steps N, even; beta_max: the largest noise rate, times N; t0, T: the ends of the network's
    time. Each array is float64 [interval], read-only: `betas`; `std_fwd`, `std_bwd`, the spread gathered from either
    end; `mu_x0`, `mu_x1`, `std_sb`, the posterior's weights and spread; `noise_levels`, the network's time input.
    Raises UsageError where a parameter is out of range. Source: arXiv 2302.05872, eq. 11.
    """

    interval: int = 1000
    beta_max: float = 0.3
    t0: float = 1e-4
    T: float = 1.0
    betas: F64 = field(init=False, repr=False, compare=False)
    std_fwd: F64 = field(init=False, repr=False, compare=False)
    std_bwd: F64 = field(init=False, repr=False, compare=False)
    std_sb: F64 = field(init=False, repr=False, compare=False)
    mu_x0: F64 = field(init=False, repr=False, compare=False)
    mu_x1: F64 = field(init=False, repr=False, compare=False)
    noise_levels: F64 = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        with from_core():
            arrays = _core.schedule_compute(self.interval, self.beta_max, self.t0, self.T)
        for name, array in arrays.items():
            array.flags.writeable = False
            object.__setattr__(self, name, array)

    def __reduce__(self) -> tuple[Any, ...]:
        """Have copies and what pickle brings back made anew: else their arrays could be written to."""
        return type(self), (self.interval, self.beta_max, self.t0, self.T)
