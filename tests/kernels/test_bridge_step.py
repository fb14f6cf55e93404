from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from i2sb_kernels.bridge_step import COLUMNS, cpu, reference
from i2sb_kernels.cases import STEP_CASES, STEP_LAYOUTS, StepCase, StepLayout, step_bounds
from i2sb_kernels.noise import Purpose

Arrays = dict[str, np.ndarray]
cases = pytest.mark.parametrize("case", STEP_CASES, ids=lambda case: case.name)
SMALL_CASES = [case for case in STEP_CASES if np.prod(case.shape) < 10_000]  # the interpreter is slow
made_inside = pytest.mark.parametrize("noise_made", [False, True], ids=["recorded", "made_inside"])


def case_named(name: str) -> StepCase:
    return next(case for case in STEP_CASES if case.name == name)


def inputs(case: StepCase, noise_made: bool) -> Arrays:
    """The call's arrays: draws recorded, or the seeds they are made from."""
    arrays = case.arrays()
    if noise_made:
        arrays = {name: array for name, array in arrays.items() if name not in ("z", "z_known")}
        arrays["seeds"] = case.seeds()
    return arrays


def expected(case: StepCase, arrays: Arrays, noise_made: bool) -> tuple[np.ndarray, ...]:
    """(x', x0, bound of x', bound of x0) of the reference."""
    after, x0 = reference.stepped(rows=case.rows, step=case.step, clip=case.clip, known=case.known, **arrays)
    full = dict(arrays)
    if noise_made:
        for name, purpose in (("z", Purpose.STEP), ("z_known", Purpose.KNOWN)):
            full[name] = reference.draw(arrays["seeds"], case.shape, case.step, purpose)
    return after, x0, *step_bounds(case, full, noise_made)


def native(case: StepCase, arrays: Arrays, **options: object) -> tuple[np.ndarray, np.ndarray]:
    """(x', x0) of the C++ twin, outputs poisoned; what the case does not keep comes back as NaN."""
    x, x0 = arrays["x"].copy(), np.full(case.shape, np.nan, np.float32)
    rest = {name: array for name, array in arrays.items() if name != "x"}
    if case.keeps_x0:
        rest["x0"] = x0
    cpu.bridge_step(x, rows=case.rows, step=case.step, clip=case.clip, known=case.known, **rest, **options)
    return x, x0


def triton(twins, case: StepCase, arrays: Arrays) -> tuple[np.ndarray, np.ndarray]:
    """(x', x0) of the Triton twin, likewise."""
    import torch

    def there(array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(array.view(np.int64) if array.dtype == np.uint64 else array).to(twins.device)

    tensors = {name: there(array.copy()) for name, array in arrays.items()}
    x0 = there(np.full(case.shape, np.nan, np.float32))
    if case.keeps_x0:
        tensors["x0"] = x0
    step = torch.tensor([case.step], dtype=torch.int32, device=twins.device)
    twins.bridge_step.bridge_step(rows=there(case.rows), step=step, clip=case.clip, known=case.known, **tensors)
    return tensors["x"].cpu().numpy(), x0.cpu().numpy()


def bits(array: np.ndarray) -> np.ndarray:
    """The bits of every number; which of many NaN a NaN is, a compiler may choose."""
    return np.where(np.isnan(array), np.float32(np.nan), array).view(np.uint32)


def assert_close(what: str, actual: np.ndarray, wanted: np.ndarray, bound: np.ndarray) -> None:
    with np.errstate(invalid="ignore"):
        close = (actual == wanted) | (np.isnan(actual) & np.isnan(wanted)) | (np.abs(actual - wanted) <= bound)
    worst = tuple(int(i) for i in np.argwhere(~close)[0]) if not close.all() else ()
    assert close.all(), f"{what}{list(worst)} is {actual[worst]}, the reference {wanted[worst]} +- {bound[worst]}"


def assert_is_reference(case: StepCase, actual: tuple[np.ndarray, np.ndarray], wanted: tuple[np.ndarray, ...]) -> None:
    assert_close("x'", actual[0], wanted[0], wanted[2])
    if case.keeps_x0:
        assert_close("x0", actual[1], wanted[1], wanted[3])


@cases
@made_inside
def test_native_is_the_reference(case, noise_made, isa):
    arrays = inputs(case, noise_made)
    assert_is_reference(case, native(case, arrays, isa=isa), expected(case, arrays, noise_made))


@cases
def test_native_rounds_as_the_reference(case, isa):
    arrays = inputs(case, noise_made=False)
    after, x0 = reference.stepped(rows=case.rows, step=case.step, clip=case.clip, known=case.known, **arrays)
    actual = native(case, arrays, isa=isa)
    np.testing.assert_array_equal(actual[0], after)
    if case.keeps_x0:
        np.testing.assert_array_equal(actual[1], x0)


@pytest.mark.filterwarnings("ignore:.* encountered in:RuntimeWarning")  # the interpreter's, on inf and NaN
@pytest.mark.parametrize("case", SMALL_CASES, ids=lambda case: case.name)
@made_inside
def test_triton_is_the_reference(case, noise_made, triton_twins):
    arrays = inputs(case, noise_made)
    actual = triton(triton_twins, case, arrays)
    assert_is_reference(case, actual, expected(case, arrays, noise_made))
    bounds = expected(case, arrays, noise_made)[2:]
    assert_is_reference(case, actual, (*native(case, arrays), *bounds))


@cases
@made_inside
def test_instruction_sets_give_the_same_bits(case, noise_made, isa):
    arrays = inputs(case, noise_made)
    for fast, plain in zip(native(case, arrays, isa=isa), native(case, arrays, isa="scalar"), strict=True):
        np.testing.assert_array_equal(bits(fast), bits(plain))


@pytest.mark.parametrize("name", ["many_pieces", "points_2d", "odd_batch"])
def test_threads_do_not_change_a_bit(name, isa):
    case = case_named(name)
    arrays = inputs(case, noise_made=True)
    alone = native(case, arrays, isa=isa)
    for threads in (2, 5):
        np.testing.assert_array_equal(native(case, arrays, isa=isa, threads=threads), alone)


@pytest.mark.parametrize("name", ["five", "odd_batch", "history", "known_x0", "many_pieces"])
def test_an_image_does_not_depend_on_its_batch(name, isa):
    case = case_named(name)
    arrays = inputs(case, noise_made=True)
    together = native(case, arrays, isa=isa)[0]
    for image in range(case.shape[0]):
        only = {key: array[image : image + 1] for key, array in arrays.items()}
        alone = StepCase(case.name, (1, *case.shape[1:]), case.row, case.step, case.mask, case.known, case.clip)
        np.testing.assert_array_equal(native(alone, only, isa=isa)[0][0], together[image])


@pytest.mark.parametrize("name", ["h1", "h2"])
def test_x0_may_take_the_place_of_a_history(name, isa, triton_twins):
    case = case_named("history")
    arrays = inputs(case, noise_made=False)
    x, x0 = native(case, arrays, isa=isa)
    aliased = {key: array.copy() for key, array in arrays.items()}
    cpu.bridge_step(rows=case.rows, step=case.step, x0=aliased[name], isa=isa, **aliased)
    np.testing.assert_array_equal(aliased["x"], x)
    np.testing.assert_array_equal(aliased[name], x0)

    import torch

    tensors = {key: torch.from_numpy(array.copy()).to(triton_twins.device) for key, array in arrays.items()}
    rows = torch.from_numpy(case.rows).to(triton_twins.device)
    step = torch.tensor([case.step], dtype=torch.int32, device=triton_twins.device)
    triton_twins.bridge_step.bridge_step(rows=rows, step=step, x0=tensors[name], **tensors)
    bounds = expected(case, arrays, noise_made=False)[2:]
    assert_close("x'", tensors["x"].cpu().numpy(), x, bounds[0])
    assert_close(name, tensors[name].cpu().numpy(), x0, bounds[1])


def test_arrays_that_the_row_does_not_read_may_be_missing(isa):
    case = case_named("ode")
    arrays = case.arrays()
    x, o = arrays["x"].copy(), arrays["o"]
    cpu.bridge_step(x, o, case.rows, case.step, isa=isa)
    np.testing.assert_array_equal(x, native(case, arrays, isa=isa)[0])


@settings(deadline=None, max_examples=150)
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 9), st.integers(1, 9)),
    row=st.dictionaries(st.sampled_from(COLUMNS[1:]), st.floats(-2, 2, width=32)),
    mask=st.sampled_from(["none", "zeros", "ones", "random"]),
    known=st.sampled_from(["x0", "renew"]),
    clip=st.booleans(),
)
def test_any_row_on_any_shape(shape, row, mask, known, clip):
    case = StepCase("any", shape, row, 0, mask, known, clip, keeps_x0=True)
    arrays = inputs(case, noise_made=False)
    after, x0 = reference.stepped(rows=case.rows, step=0, clip=clip, known=known, **arrays)
    np.testing.assert_array_equal(native(case, arrays), (after, x0))


layouts = pytest.mark.parametrize(
    ("name", "layout"), [(name, layout) for name, found in STEP_LAYOUTS.items() for layout in found]
)


def laid_out(case: StepCase, layout: StepLayout) -> tuple[Arrays, np.ndarray]:
    """The case's arrays with o as the network's type rounds it, and o in the network's layout, NaN behind it."""
    arrays = inputs(case, noise_made=True)
    arrays["o"] = arrays["o"].astype(layout.dtype).astype(np.float32)
    return arrays, layout.blocks(arrays["o"], layout.said, np.nan)


def assert_is_shown(layout: StepLayout, seen: np.ndarray, x: np.ndarray) -> None:
    """The next x stands in what the network sees, rounded to its type; what stood behind it still does."""
    np.testing.assert_array_equal(seen, layout.blocks(x, layout.seen, -7.5))


@layouts
def test_the_networks_layout_on_a_cpu(name, layout):
    case = case_named(name)
    arrays, said = laid_out(case, layout)
    wanted = native(case, arrays)
    for twin in (cpu, reference):
        x, x0 = arrays["x"].copy(), np.full(case.shape, np.nan, np.float32)
        seen = layout.blocks(np.full(case.shape, np.nan), layout.seen, -7.5)
        rest = {key: array for key, array in arrays.items() if key not in ("x", "o")}
        options = {"clip": case.clip, "known": case.known, "patch": layout.patch, "seen": seen, "x0": x0}
        twin.bridge_step(x, said, case.rows, case.step, **options, **rest)
        np.testing.assert_allclose(x, wanted[0], rtol=0, atol=4e-6)
        assert_is_shown(layout, seen, x)


@layouts
def test_the_networks_layout_in_triton(name, layout, triton_twins):
    import torch

    case = case_named(name)
    arrays, said = laid_out(case, layout)
    wanted = triton(triton_twins, case, arrays)
    tensors = {
        key: torch.from_numpy(array.view(np.int64) if key == "seeds" else array.copy()).to(triton_twins.device)
        for key, array in (arrays | {"o": said}).items()
    }
    seen = torch.from_numpy(layout.blocks(np.full(case.shape, np.nan), layout.seen, -7.5)).to(triton_twins.device)
    step = torch.tensor([case.step], dtype=torch.int32, device=triton_twins.device)
    rows = torch.from_numpy(case.rows).to(triton_twins.device)
    triton_twins.bridge_step.bridge_step(
        rows=rows, step=step, clip=case.clip, known=case.known, patch=layout.patch, seen=seen, **tensors
    )
    x = tensors["x"].cpu().numpy()
    np.testing.assert_array_equal(x, wanted[0])
    assert_is_shown(layout, seen.cpu().numpy(), x)


def test_a_layout_that_does_not_fit_is_refused(triton_twins):
    import torch

    x, rows = np.zeros((2, 3, 6, 8), np.float32), np.zeros((1, 10), np.float32)
    good, half = np.zeros((2, 3, 4, 12), np.float32), np.zeros((2, 3, 4, 12), np.float16)
    wrong = [
        ({"patch": 4, "o": good}, ValueError, "patch is 4; it must divide the sides"),
        ({"patch": 2, "o": good[..., :11].copy()}, ValueError, "o has shape"),
        ({"patch": 2, "o": good[:, :2].copy()}, ValueError, "o has shape"),
        ({"patch": 2, "o": good.astype(np.float64)}, TypeError, "o is .*float64"),
        ({"patch": 2, "o": good, "seen": np.zeros((2, 3, 4, 13), np.float32)[..., :12]}, ValueError, "contiguous"),
        ({"patch": 2, "o": half, "seen": np.zeros((2, 3, 3, 12), np.float16)}, ValueError, "seen has shape"),
        ({"patch": 2, "o": good, "seen": half}, TypeError, "seen is .*float16"),
        ({"o": x, "seen": good}, ValueError, "patch is 0"),
    ]
    for changes, error, words in wrong:
        o = changes.pop("o")
        for twin in (cpu, reference):
            state = x + 1
            with pytest.raises(error, match=words):
                twin.bridge_step(state, o, rows, 0, **changes)
            np.testing.assert_array_equal(state, x + 1)
        tensors = {key: torch.from_numpy(value) if key == "seen" else value for key, value in changes.items()}
        if triton_twins.device == "cpu":
            step = torch.zeros(1, dtype=torch.int32)
            with pytest.raises(error, match=words):
                triton_twins.bridge_step.bridge_step(
                    torch.from_numpy(x.copy()), torch.from_numpy(o), torch.from_numpy(rows), step, **tensors
                )


def test_triton_reads_row_and_step_from_memory(triton_twins):
    import torch

    rng = np.random.default_rng(0)
    rows = rng.standard_normal((3, len(COLUMNS))).astype(np.float32)
    rows[1, COLUMNS.index("s")] = 0
    start, o, x1, h1, h2 = (rng.standard_normal((2, 3, 5, 7)).astype(np.float32) for _ in range(5))
    tensors = [torch.from_numpy(array).to(triton_twins.device) for array in (o, x1, h1, h2)]
    table = torch.from_numpy(rows).to(triton_twins.device)
    seeds = torch.tensor([4, -5], device=triton_twins.device)
    step = torch.zeros(1, dtype=torch.int32, device=triton_twins.device)
    for row in range(3):
        x = torch.from_numpy(start.copy()).to(triton_twins.device)
        step.fill_(row)
        triton_twins.bridge_step.bridge_step(
            x, tensors[0], table, step, x1=tensors[1], h1=tensors[2], h2=tensors[3], seeds=seeds
        )
        wanted = start.copy()
        cpu.bridge_step(wanted, o, rows, row, x1=x1, h1=h1, h2=h2, seeds=np.array([4, 2**64 - 5], np.uint64))
        np.testing.assert_allclose(x.cpu().numpy(), wanted, rtol=0, atol=2e-5)


def test_bad_calls_are_refused():
    case = case_named("five")
    arrays = inputs(case, noise_made=True)

    def call(**changes: object) -> None:
        cpu.bridge_step(rows=case.rows, step=case.step, **(arrays | changes))

    call()
    for name in ("x1", "h1", "h2", "seeds"):
        with pytest.raises(ValueError, match=f"{name} (is|are) missing"):
            call(**{name: None})
    for name in ("x", "o", "x1", "h1", "mask"):
        with pytest.raises(TypeError, match=f"{name} is float64; it must be float32"):
            call(**{name: arrays[name].astype(np.float64)})
        with pytest.raises(ValueError, match=f"{name} has shape" if name != "x" else "o has shape"):
            call(**{name: np.zeros((3, 4, 1, 1), np.float32)})
    with pytest.raises(ValueError, match="o must be contiguous"):
        call(o=np.zeros((3, 10, 1, 1), np.float32)[:, ::2])
    with pytest.raises(TypeError, match="seeds is int64; it must be uint64"):
        call(seeds=np.zeros(3, np.int64))
    with pytest.raises(ValueError, match="known is 'x1'"):
        call(known="x1")
    with pytest.raises(ValueError, match="x is overwritten"):
        call(o=arrays["x"])
    with pytest.raises(ValueError, match="x0 is overwritten"):
        call(x0=arrays["o"])
    with pytest.raises(ValueError, match="isa is 'sse9'"):
        call(isa="sse9")
    with pytest.raises(IndexError):
        cpu.bridge_step(rows=case.rows, step=1, **arrays)


def test_bad_triton_calls_are_refused(triton_twins):
    import torch

    x = torch.zeros((2, 3, 4, 4), device=triton_twins.device)
    rows, step = x.new_zeros((1, 10)), torch.zeros(1, dtype=torch.int32, device=x.device)
    call = triton_twins.bridge_step.bridge_step
    with pytest.raises(TypeError, match=r"o is torch\.float64"):
        call(x, x.double(), rows, step)
    with pytest.raises(ValueError, match="o has shape"):
        call(x, x[:1].clone(), rows, step)
    with pytest.raises(ValueError, match="o must be contiguous"):
        call(x, x.clone().transpose(2, 3), rows, step)
    with pytest.raises(ValueError, match="x1 is missing, and there is a mask"):
        call(x, x.clone(), rows, step, mask=torch.ones((2, 1, 4, 4), device=x.device))
    with pytest.raises(TypeError, match=r"step is torch\.int64"):
        call(x, x.clone(), rows, step.long())
