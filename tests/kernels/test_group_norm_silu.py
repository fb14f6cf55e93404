from __future__ import annotations

import numpy as np
import pytest

from i2sb_kernels.cases import NORM_CASES, NormCase, norm_bounds
from i2sb_kernels.group_norm_silu import group_norm_silu, reference

Arrays = dict[str, np.ndarray]
cases = pytest.mark.parametrize("case", NORM_CASES, ids=lambda case: case.name)


def case_named(name: str) -> NormCase:
    return next(case for case in NORM_CASES if case.name == name)


def poisoned(case: NormCase) -> Arrays:
    """The arrays that the call writes, full of NaN."""
    out = {"out": np.full(case.out_shape, np.nan, case.dtype)}
    return out if case.residual is None else out | {"total": np.full(case.shape, np.nan, case.dtype)}


def expected(case: NormCase, arrays: Arrays) -> Arrays:
    written = poisoned(case)
    reference.group_norm_silu(step=case.rows - 1, **arrays, **written, **case.options())
    return written


def triton(twins, case: NormCase, arrays: Arrays) -> Arrays:
    import torch

    def there(array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(array).to(twins.device)

    written = {name: there(array) for name, array in poisoned(case).items()}
    step = torch.tensor([case.rows - 1], dtype=torch.int32, device=twins.device)
    read = {name: there(array) for name, array in arrays.items()}
    twins.group_norm_silu.group_norm_silu(step=step, **read, **written, **case.options())
    return {name: tensor.cpu().numpy() for name, tensor in written.items()}


def assert_close(actual: Arrays, wanted: Arrays, bound: Arrays) -> None:
    for name, values in wanted.items():
        off = np.abs(actual[name].astype(np.float64) - values) - bound[name]
        worst = np.unravel_index(np.argmax(np.where(np.isnan(off), np.inf, off)), off.shape)
        assert off[worst] <= 0, f"{name}{worst} is {actual[name][worst]}, not {values[worst]} +- {bound[name][worst]}"


@cases
def test_the_reference_is_what_pytorch_computes(case):
    import torch
    from torch.nn import functional as F

    def there(array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(array).double().permute(0, 3, 1, 2)

    def resized(tensor: torch.Tensor, how: str | None) -> torch.Tensor:
        if how == "down":
            return F.avg_pool2d(tensor, 2)
        return F.interpolate(tensor, scale_factor=2.0, mode="nearest") if how == "up" else tensor

    arrays = case.arrays()
    s = there(arrays["x"])
    if case.bias:
        s = s + torch.from_numpy(arrays["bias"][-1])[:, None, None]
    if case.residual:
        s = s + resized(there(arrays["residual"]), case.residual)
        s = s.to(getattr(torch, case.dtype)).double()
    c = torch.cat([s, there(arrays["second"])], 1) if case.second else s
    gamma, beta = (torch.from_numpy(arrays[name][-1]).double() for name in ("gamma", "beta"))
    y = F.group_norm(c, case.groups, gamma, beta, 1e-5)
    wanted = {"out": resized(F.silu(y) if case.silu else y, case.resize).permute(0, 2, 3, 1).numpy()}
    if case.residual:
        wanted["total"] = s.permute(0, 2, 3, 1).numpy()
    assert_close(expected(case, arrays), wanted, norm_bounds(case, arrays))


@pytest.mark.filterwarnings("ignore:overflow encountered in exp:RuntimeWarning")  # the interpreter's; 1 / inf is right
@cases
def test_triton_is_the_reference(case, triton_twins):
    arrays = case.arrays()
    assert_close(triton(triton_twins, case, arrays), expected(case, arrays), norm_bounds(case, arrays))


@pytest.mark.parametrize("name", ["large_joined", "small_half", "large_down"])
def test_two_runs_agree_to_the_bit_and_images_do_not_meet(name, triton_twins):
    case = case_named(name)
    arrays = case.arrays()
    twice = {key: np.concatenate([array, array[::-1]]) if array.ndim == 4 else array for key, array in arrays.items()}
    larger = NormCase(**{**vars(case), "shape": (2 * case.shape[0], *case.shape[1:])})
    first, second = triton(triton_twins, case, arrays), triton(triton_twins, larger, twice)
    for key, values in first.items():
        np.testing.assert_array_equal(second[key][: len(values)], values)
        np.testing.assert_array_equal(second[key][len(values) :], values[::-1])


@pytest.mark.parametrize("name", ["shipped", "large_joined"])
def test_both_ways_give_the_same(name, triton_twins, monkeypatch):
    case = case_named(name)
    arrays = case.arrays()
    for most in (0, 1 << 20):
        monkeypatch.setattr(triton_twins.group_norm_silu, "SMALL", most)
        assert_close(triton(triton_twins, case, arrays), expected(case, arrays), norm_bounds(case, arrays))


def test_bad_calls_are_refused(triton_twins):
    import torch

    case = case_named("small_down")
    arrays = case.arrays() | poisoned(case)

    def call(**changes: object) -> None:
        group_norm_silu(**{**arrays, "step": 0, **case.options(), **changes})

    call()
    for name in ("gamma", "bias", "residual", "total", "out"):
        with pytest.raises(ValueError, match=f"{name} has shape"):
            call(**{name: arrays[name][..., :-1]})
    for name in ("residual", "total", "out"):
        with pytest.raises(TypeError, match=f"{name} is float16; it must be float32"):
            call(**{name: arrays[name].astype(np.float16)})
    with pytest.raises(ValueError, match="groups is 5"):
        call(groups=5)
    with pytest.raises(ValueError, match="given together"):
        call(total=None)
    with pytest.raises(ValueError, match="resize is 'half'"):
        call(resize="half")
    odd = {name: array[:, :5] if array.ndim == 4 else array for name, array in arrays.items()}
    with pytest.raises(ValueError, match="5 x 10 pixels cannot be halved"):
        group_norm_silu(**{**odd, "step": 0, **case.options()})
    x = torch.zeros((1, 4, 4, 8), device=triton_twins.device)
    table, step = torch.zeros((1, 8), device=x.device), torch.zeros(1, dtype=torch.int32, device=x.device)
    run = triton_twins.group_norm_silu.group_norm_silu
    run(x, table, table, step, x.clone(), groups=2)
    with pytest.raises(TypeError, match="step must be an int32"):
        run(x, table, table, step.long(), x.clone(), groups=2)
    with pytest.raises(ValueError, match="x must be contiguous"):
        run(x.transpose(1, 2), table, table, step, x.clone(), groups=2)
    with pytest.raises(TypeError, match="gamma is"):
        run(x, table.double(), table, step, x.clone(), groups=2)
    with pytest.raises(TypeError, match="x is"):
        run(x.double(), table, table, step, x.double(), groups=2)
