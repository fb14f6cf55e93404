"""Cases and tolerances of every op, shared by the tests and the benchmarks.

A case makes inputs that a kernel must survive: arrays whose column is zero hold NaN, since they must not be read, and
so do outputs before they are written.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from i2sb_kernels.bridge_step import COLUMNS, Known
from i2sb_kernels.group_norm_silu import EPS, Resize, reference

Array = NDArray[np.float32]
Mask = Literal["none", "zeros", "ones", "random"]
Values = Literal["normal", "huge", "denormal", "special"]

# By state dtype: ulps of the sum of |terms| that a step may be off, and how far z may be off, times max(1, |z|).
STEP_ULPS: Final = {"float32": 4.0}
NOISE_ERROR: Final = {"float32": 1e-6}

SCALES: Final[Mapping[Values, float]] = {"normal": 1.0, "huge": 1e38, "denormal": 1e-41, "special": 1.0}
SPECIAL: Final = np.array([np.inf, -np.inf, np.nan, 0.0, -0.0, 3.4e38, -3.4e38, 1e-45, 1.0, -1.0], np.float32)

POSTERIOR: Final = {"p": 1.0, "q": -0.31, "a": 0.83, "b": 0.17, "s": 0.12}
ODE: Final = POSTERIOR | {"s": 0.0}
LAST: Final = {"p": 1.0, "q": -0.01, "b": 1.0}
HISTORY: Final = POSTERIOR | {"b": 0.4, "c": -0.06, "d": -0.25, "e": 0.08}
MEAN_FORM: Final = {"q": 1.0, "b": 1.0, "s": 0.05}
EVERYTHING: Final = HISTORY | {"r": 0.07}


@dataclass(frozen=True)
class StepCase:
    """One call of bridge_step: a shape [B, C, ...], a plan row by its columns, and what the arrays hold."""

    name: str
    shape: tuple[int, ...]
    row: Mapping[str, float]
    step: int = 0
    mask: Mask = "none"
    known: Known = "renew"
    clip: bool = False
    values: Values = "normal"
    keeps_x0: bool = False

    @property
    def rows(self) -> Array:
        """A plan, float32 [step + 1, 10], whose last row is the case's; the rows before hold NaN."""
        rows = np.full((self.step + 1, len(COLUMNS)), np.nan, np.float32)
        rows[-1] = [self.row.get(column, 0.0) for column in COLUMNS]
        return rows

    def arrays(self) -> dict[str, Array]:
        """Make the arrays of the call: x, o, x1, h1, h2, z, z_known as the row needs them, and perhaps mask."""
        rng = np.random.default_rng([len(self.name), *self.name.encode()])
        needs = {"o": "q", "h1": "d", "h2": "e", "z": "s", "z_known": "r"}
        arrays = {name: self._values(rng) for name in ("x", "o", "x1", "h1", "h2", "z", "z_known")}
        for name, column in needs.items():
            if self.row.get(column, 0.0) == 0:
                arrays[name][...] = np.nan
        if self.row.get("c", 0.0) == 0 and self.mask == "none":
            arrays["x1"][...] = np.nan
        if self.row.get("p", 0.0) == 0 and self.row.get("a", 0.0) == 0:
            arrays["x"][...] = np.nan
        if self.mask != "none":
            shape = (self.shape[0], 1, *self.shape[2:])
            hole = {"zeros": np.zeros(shape), "ones": np.ones(shape), "random": rng.random(shape) < 0.5}[self.mask]
            arrays["mask"] = hole.astype(np.float32)
        return arrays

    def seeds(self) -> NDArray[np.uint64]:
        """One seed an image, uint64 [B], all 64 bits in use."""
        return np.random.default_rng(7).integers(0, 2**64, self.shape[0], np.uint64)

    def _values(self, rng: np.random.Generator) -> Array:
        if self.values == "special":
            return rng.choice(SPECIAL, self.shape)
        values = rng.standard_normal(self.shape) * SCALES[self.values]
        return np.clip(values, -3.4e38, 3.4e38).astype(np.float32)


def step_bounds(case: StepCase, arrays: Mapping[str, Array], noise_made: bool) -> tuple[Array, Array]:
    """How far a twin may be off the reference: (bound of x', bound of x0), like x.

    4 ulp of the sum of |terms|, and with noise made inside |s| or |r| times 1e-6 max(1, |z|); `arrays` holds the draws.
    Zero, so equality, where the sum of |terms| leaves float32.
    """

    def part(column: str, name: str) -> NDArray[np.float64]:
        coefficient = case.row.get(column, 0.0)
        return np.abs(coefficient * arrays[name].astype(np.float64)) if coefficient else np.zeros(case.shape)

    def spacing(total: NDArray[np.float64]) -> NDArray[np.float64]:
        fits = total <= np.finfo(np.float32).max
        return STEP_ULPS["float32"] * np.where(fits, np.spacing(np.where(fits, total, 0).astype(np.float32)), 0.0)

    def noise(column: str, name: str) -> NDArray[np.float64]:
        coefficient = abs(case.row.get(column, 0.0))
        draws = np.abs(arrays[name]) if coefficient and noise_made else np.zeros(case.shape)
        return coefficient * noise_made * NOISE_ERROR["float32"] * np.maximum(1.0, draws)

    with np.errstate(all="ignore"):
        x0 = part("p", "x") + part("q", "o")
        outside = arrays["mask"] == 0 if case.mask != "none" else np.bool_(False)
        if case.mask != "none" and case.known == "x0":
            x0 = np.where(outside, np.abs(arrays["x1"]), x0)
        after = part("a", "x") + abs(case.row.get("b", 0.0)) * x0
        after += part("c", "x1") + part("d", "h1") + part("e", "h2") + part("s", "z")
        bound = spacing(after) + noise("s", "z")
        if case.mask != "none" and case.known == "renew":
            renewed = np.abs(arrays["x1"].astype(np.float64)) + part("r", "z_known")
            bound = np.where(outside, spacing(renewed) + noise("r", "z_known"), bound)
        return bound.astype(np.float32), spacing(x0).astype(np.float32)


STEP_CASES: Final = (
    StepCase("one_element", (1, 1, 1, 1), POSTERIOR),
    StepCase("points_2d", (7, 2, 1, 1), POSTERIOR, step=3),
    StepCase("three", (2, 3, 1, 1), HISTORY, keeps_x0=True),
    StepCase("five", (3, 5, 1, 1), EVERYTHING, mask="random", keeps_x0=True),
    StepCase("sixty_three", (2, 1, 7, 9), EVERYTHING, mask="random"),
    StepCase("sixty_four", (2, 1, 8, 8), POSTERIOR, clip=True),
    StepCase("five_hundred", (2, 1, 20, 25), HISTORY, mask="random", known="x0", keeps_x0=True),
    StepCase("odd_batch", (3, 3, 5, 7), POSTERIOR, step=12),
    StepCase("ode", (2, 3, 17, 31), ODE),
    StepCase("last_row", (2, 3, 17, 31), LAST, keeps_x0=True),
    StepCase("last_row_draws_known", (2, 3, 17, 31), LAST | {"r": 0.01}, mask="random"),
    StepCase("mean_form", (2, 3, 17, 31), MEAN_FORM),
    StepCase("mean_form_clipped", (2, 3, 17, 31), MEAN_FORM, clip=True, keeps_x0=True),
    StepCase("history", (2, 3, 17, 31), HISTORY, step=2, keeps_x0=True),
    StepCase("all_known", (2, 3, 17, 31), EVERYTHING, mask="zeros"),
    StepCase("all_hole", (2, 3, 17, 31), EVERYTHING, mask="ones", clip=True),
    StepCase("known_without_noise", (2, 3, 17, 31), HISTORY, mask="random"),
    StepCase("known_x0", (2, 3, 17, 31), EVERYTHING, mask="random", known="x0", clip=True, keeps_x0=True),
    StepCase("known_x0_all", (2, 3, 17, 31), POSTERIOR, mask="zeros", known="x0"),
    StepCase("nothing", (2, 3, 5, 7), {}, keeps_x0=True),
    StepCase("huge", (2, 3, 17, 31), EVERYTHING, mask="random", values="huge", keeps_x0=True),
    StepCase("huge_clipped", (2, 3, 17, 31), HISTORY, clip=True, values="huge", keeps_x0=True),
    StepCase("denormal", (2, 3, 17, 31), EVERYTHING, mask="random", values="denormal", keeps_x0=True),
    StepCase("special", (2, 3, 17, 31), EVERYTHING, mask="random", values="special", keeps_x0=True),
    StepCase("special_clipped", (2, 3, 17, 31), POSTERIOR, clip=True, values="special", keeps_x0=True),
    StepCase("blocks", (2, 3, 8, 12), EVERYTHING, step=3, mask="random", keeps_x0=True),
    StepCase("blocks_odd", (3, 3, 5, 7), HISTORY, step=1, clip=True),
    StepCase("many_pieces", (2, 3, 211, 223), EVERYTHING, mask="random", step=1, keeps_x0=True),
)


@dataclass(frozen=True)
class StepLayout:
    """The network's own layout: its patch, the channels that it says and sees (at least C patch^2), their type."""

    patch: int
    said: int
    seen: int
    dtype: Literal["float32", "float16"]

    def blocks(self, planes: Array, channels: int, rest: float) -> NDArray[Any]:
        """Return planes [B, C, H, W] in this layout, `rest` in the channels behind them."""
        n, _, h, w = planes.shape
        out = np.full((n, h // self.patch, w // self.patch, channels), rest, self.dtype)
        for k, (c, y, x) in enumerate(np.ndindex(planes.shape[1], self.patch, self.patch)):
            out[..., k] = planes[:, c, y :: self.patch, x :: self.patch]
        return out


STEP_LAYOUTS: Final = {
    "blocks": (
        StepLayout(1, 3, 8, "float16"),
        StepLayout(1, 8, 3, "float32"),
        StepLayout(2, 12, 24, "float16"),
        StepLayout(4, 49, 48, "float32"),
    ),
    "blocks_odd": (StepLayout(1, 3, 6, "float16"),),
}
"""By the name of a case, the layouts that it is run in."""

# What the benchmarks time: the rows of I2SB on photographs, with and without noise, a mask, a history.
STEP_BENCHMARKS: Final = (
    StepCase("posterior", (16, 3, 512, 512), POSTERIOR),
    StepCase("ode", (16, 3, 512, 512), ODE),
    StepCase("inpainting", (16, 3, 512, 512), POSTERIOR | {"r": 0.07}, mask="random"),
    StepCase("history", (16, 3, 512, 512), HISTORY | {"s": 0.0}, keeps_x0=True),
)


@dataclass(frozen=True)
class NoiseCase:
    """A window of a stream of noise: elements first .. first + count - 1."""

    name: str
    seed: int
    first: int
    count: int
    row: int = 0
    purpose: int = 0


NOISE_CASES: Final = (
    NoiseCase("first_element", 0, 0, 1),
    NoiseCase("three", 1, 1, 3),
    NoiseCase("one_group", 2, 4, 4, row=1),
    NoiseCase("across_groups", 3, 6, 63, row=2, purpose=1),
    NoiseCase("large_seed", 2**64 - 1, 0, 500, row=999, purpose=2),
    NoiseCase("large_words", 2**63, 17, 2049, row=2**32 - 1, purpose=2**32 - 1),
    NoiseCase("past_element_2_32", 4, 2**32 - 7, 1001, purpose=3),
    NoiseCase("into_second_word", 5, 2**34 - 35, 2000, row=5),
    NoiseCase("far_in_second_word", 6, 2**52 + 2**34 + 3, 1500),
    NoiseCase("radius_of_least_u", 0, 4 * 14883995, 4),  # u0 = 2^-24: |z| up to 5.77
    NoiseCase("radius_of_greatest_u", 0, 4 * 4826271, 4),  # u0 = 1 - 2^-24: |z| at most 3.5e-4
    NoiseCase("angle_of_least_u", 0, 4 * 17169035, 4),  # u1 = 2^-24
    NoiseCase("angle_of_greatest_u", 0, 4 * 7113731, 4),  # u1 = 1 - 2^-24
)


# By type: how far group_norm_silu may be off, as a part of (|c| + |mean|) / std |gamma| + |beta|, and how far total, as
# a part of the sum of |terms|; float16 and bfloat16 round what they store.
NORM_ERROR: Final = {"float32": 1e-5, "float16": 1e-3, "bfloat16": 8e-3}
TOTAL_ERROR: Final = {"float32": 2e-7, "float16": 1e-3, "bfloat16": 8e-3}


@dataclass(frozen=True)
class NormCase:
    """One call of group_norm_silu: x [N, H, W, C1], channels of a second source, what else there is, what is asked."""

    name: str
    shape: tuple[int, int, int, int]
    groups: int
    second: int = 0
    bias: bool = False
    residual: Resize | None = None
    resize: Resize = "none"
    silu: bool = True
    rows: int = 1
    dtype: str = "float32"
    mean: float = 0.5
    constant: bool = False

    @property
    def channels(self) -> int:
        """Those of both sources."""
        return self.shape[3] + self.second

    @property
    def out_shape(self) -> tuple[int, int, int, int]:
        """That of the result."""
        return (*self._resized(self.resize), self.channels)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Make the arrays of the call that are read; of the tables only the case's row, the last, holds numbers."""
        rng = np.random.default_rng([len(self.name), *self.name.encode()])

        def values(*shape: int, at: float = 0.0) -> NDArray[Any]:
            drawn = rng.standard_normal(shape) * (0.0 if self.constant else rng.uniform(0.2, 3.0, shape[-1])) + at
            return drawn.astype(self.dtype)

        def table(at: float, channels: int) -> Array:
            rows = np.full((self.rows, channels), np.nan, np.float32)
            rows[-1] = rng.standard_normal(channels) + at
            return rows

        n, h, w, c = self.shape
        arrays = {"x": values(n, h, w, c, at=self.mean), "gamma": table(1.0, self.channels)}
        arrays["beta"] = table(0.0, self.channels)
        if self.bias:
            arrays["bias"] = table(0.3, c)
        if self.residual is not None:
            opposite: Resize = {"none": "none", "down": "up", "up": "down"}[self.residual]  # type: ignore[assignment]
            arrays["residual"] = values(*self._resized(opposite), c)
        if self.second:
            arrays["second"] = values(n, h, w, self.second, at=-self.mean)
        return arrays

    def options(self) -> dict[str, Any]:
        """Return the call's other arguments."""
        return {
            "groups": self.groups, "silu": self.silu, "resize": self.resize, "residual_resize": self.residual or "none",
        }  # fmt: skip

    def _resized(self, resize: Resize) -> tuple[int, int, int]:
        n, h, w, _ = self.shape
        return {"none": (n, h, w), "down": (n, h // 2, w // 2), "up": (n, 2 * h, 2 * w)}[resize]


def norm_bounds(case: NormCase, arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[np.float64]]:
    """How far `out`, and `total` if there is a residual, may be off: parts of the sums of |terms|.

    SiLU's slope is at most 1.1.
    """
    row = {name: arrays[name][-1].astype(np.float64) for name in ("gamma", "beta", "bias") if name in arrays}
    s = reference.summed(arrays["x"], row.get("bias"), arrays.get("residual"), case.residual or "none")
    c = np.concatenate([s, arrays["second"].astype(np.float32)], axis=3) if case.second else s
    grouped = c.astype(np.float64).reshape(c.shape[0], -1, case.groups, case.channels // case.groups)
    std = np.sqrt(grouped.var(axis=(1, 3), keepdims=True) + EPS)
    size = ((np.abs(grouped) + np.abs(grouped.mean(axis=(1, 3), keepdims=True))) / std).reshape(c.shape)
    terms = 1.1 * (size * np.abs(row["gamma"]) + np.abs(row["beta"]))
    found = {"out": NORM_ERROR[case.dtype] * reference.resized(terms, case.resize)}
    if case.residual is not None:
        parts = np.abs(arrays["x"].astype(np.float64)) + np.abs(row.get("bias", 0.0))
        parts += reference.resized(np.abs(arrays["residual"].astype(np.float64)), case.residual)
        found["total"] = TOTAL_ERROR[case.dtype] * parts
    return found


NORM_CASES: Final = (
    NormCase("one_pixel", (2, 1, 1, 8), 4),
    NormCase("one_group", (1, 3, 5, 7), 1),
    NormCase("group_of_one", (1, 3, 3, 32), 32),
    NormCase("odd_channels", (3, 5, 7, 20), 4, silu=False),
    NormCase("shipped", (2, 16, 16, 64), 32, bias=True),
    NormCase("wide", (1, 8, 8, 256), 32, bias=True, rows=3),
    NormCase("widest", (1, 2, 2, 2048), 32, rows=2),
    NormCase("groups_of_24", (1, 4, 4, 512), 32, second=256, residual="none", bias=True),
    NormCase("groups_of_48", (1, 2, 3, 1024), 32, second=512),
    NormCase("straddled", (2, 5, 3, 20), 5, second=30, residual="none"),
    NormCase("attention", (1, 8, 8, 64), 32, residual="none", bias=True, silu=False),
    NormCase("small_down", (2, 6, 10, 32), 8, resize="down", residual="none", bias=True),
    NormCase("small_up", (2, 3, 5, 32), 8, resize="up", second=32),
    NormCase("small_residual_down", (2, 3, 5, 16), 4, residual="down", bias=True),
    NormCase("small_residual_up", (2, 6, 4, 16), 4, residual="up"),
    NormCase("small_half", (2, 7, 9, 48), 8, dtype="float16", residual="none", bias=True, second=16),
    NormCase("constant", (1, 4, 4, 32), 8, constant=True),
    NormCase("far_from_zero", (1, 16, 16, 32), 8, mean=1000.0),
    NormCase("large", (1, 33, 32, 16), 4, bias=True, rows=2),
    NormCase("large_odd", (2, 41, 37, 20), 5),
    NormCase("large_joined", (1, 34, 40, 40), 8, second=24, residual="none", bias=True),
    NormCase("large_wide", (1, 33, 33, 96), 32),
    NormCase("large_down", (1, 34, 66, 16), 4, resize="down", residual="none", bias=True),
    NormCase("large_up", (1, 35, 31, 8), 4, resize="up", second=8),
    NormCase("large_residual_down", (1, 37, 33, 8), 4, residual="down"),
    NormCase("large_residual_up", (1, 34, 38, 8), 4, residual="up", bias=True, silu=False),
    NormCase("large_half", (1, 40, 30, 24), 8, dtype="float16", residual="none"),
    NormCase("large_far_from_zero", (1, 64, 33, 8), 4, mean=1000.0),
    NormCase("large_constant", (1, 33, 33, 8), 4, constant=True, mean=3.0),
)
