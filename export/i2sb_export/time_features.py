"""The features of the time, written so that engines which compute in 16 bits still get them right.

OpenVINO in bfloat16 rounds what goes from one operator to the next to 8 bits, the time and the angles before Cos and
Sin among them: an angle of 999 radians is then off by up to two, and the features of late times are noise. What it
leaves in float32 is the inside of one fused group of elementwise operators, and an input of the model that such a group
reads itself. So the features are one such group: it reads t, and rounds once, at its end.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.polynomial import Chebyshev, Polynomial
from numpy.typing import NDArray
from onnxscript.rewriter import RewriteRule, rewrite

Value = Any  # as in lowering.py

# 2 pi in three parts, of 8 and 12 bits and the rest, so that whole multiples up to 4096 of the first two are exact
# (Cody and Waite's reduction).
_TURN = (6.28125, 4058 / 2**21, 2 * math.pi - 6.28125 - 4058 / 2**21)


def exact_time_features(model: ir.Model) -> None:
    """Replace the cosines and sines of the time, in place, in a graph whose constants are folded.

    Where a network has no time, or features of another form, nothing is replaced.
    """
    rewrite(model, [RewriteRule(_as_traced, _as_one_group, _rates_are_known)])


def _as_traced(op: Any, t: Value, axes: Value, rates: Value) -> Value:
    """Write what is replaced: cat(cos(t rates), sin(t rates)) of t [B] and rates [half]."""
    angles = op.Mul(op.Unsqueeze(t, axes), rates)
    return op.Concat(op.Cos(angles), op.Sin(angles), axis=1)


def _rates_are_known(context: Any, rates: Value, **_: Any) -> bool:
    return rates.const_value is not None


def _as_one_group(op: Any, t: Value, rates: Value, **_: Any) -> Value:
    """Write the features as one chain over [2 half, B], turned over at its end.

    With the angle's rest h = (a - 2 pi k) / 2 in [-pi/2, pi/2], cos a = 1 - 2 sin(h)^2 and sin a = 2 sin(h) cos(h).
    """
    column = rates.const_value.numpy().reshape(-1, 1)
    is_cosine = _constant(op, np.repeat([[1.0], [0.0]], len(column), axis=0))
    a = op.Mul(t, _constant(op, np.concatenate([column, column])))
    k = op.Round(op.Mul(a, _constant(op, 1 / (2 * math.pi))))
    for part in _TURN:
        a = op.Sub(a, op.Mul(k, _constant(op, part)))
    h = op.Mul(a, _constant(op, 0.5))
    square = op.Mul(h, h)
    sine = op.Mul(_horner(op, square, lambda u: np.sinc(np.sqrt(u) / np.pi), 4), h)
    cosine = _horner(op, square, lambda u: np.cos(np.sqrt(u)), 5)
    # 2 sin(h) cos(h), or 1 - 2 sin(h)^2 where the cosine of the whole angle is wanted
    factor = op.Sub(cosine, op.Mul(op.Add(cosine, sine), is_cosine))
    both = op.Add(op.Mul(op.Mul(sine, _constant(op, 2.0)), factor), is_cosine)
    return op.Transpose(both, perm=[1, 0])


def _horner(op: Any, u: Value, function: Callable[[NDArray[np.float64]], NDArray[np.float64]], degree: int) -> Value:
    """Write a function of u in [0, (pi/2)^2] as the polynomial that meets it at Chebyshev's points."""
    coefficients = Chebyshev.interpolate(function, degree, domain=[0, math.pi**2 / 4]).convert(kind=Polynomial).coef
    last, *others = reversed(coefficients.tolist())
    value = _constant(op, last)
    for coefficient in others:
        value = op.Add(op.Mul(value, u), _constant(op, coefficient))
    return value


def _constant(op: Any, value: float | NDArray[np.float64]) -> Value:
    return op.Constant(value=ir.tensor(np.asarray(value, np.float32)))
