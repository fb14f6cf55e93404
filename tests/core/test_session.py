"""The loop and the way from 8-bit image to 8-bit image, with networks written in Python."""

import subprocess
import sys
import textwrap
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from i2sb_rt import _core

F32 = NDArray[np.float32]
COLUMNS = dict(zip("tpqabcdesr", range(10), strict=True))


def plan(*rows: dict[str, float]) -> F32:
    table = np.zeros((len(rows), 10), np.float32)
    for line, row in zip(table, rows, strict=True):
        for column, value in row.items():
            line[COLUMNS[column]] = value
    return table


def sample(network: Callable[[F32, F32], F32], rows: F32, x1: F32, **options: object) -> F32:
    return _core.sample(_core.Engine.callback(network), rows, x1, **options)  # type: ignore[arg-type]


def image(*shape: int) -> F32:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def test_history_reaches_two_rows_back() -> None:
    x1 = image(1, 2, 3, 5)
    rows = plan({"t": 1, "q": 1, "b": 1}, {"t": 2, "q": 1, "b": 1, "d": 0.5}, {"t": 3, "q": 1, "d": 10, "e": 100})
    # x0 of row k is t_k; the last row sums what the two before said.
    out = sample(lambda x, t: np.broadcast_to(t[:, None, None, None], x.shape).astype(np.float32).copy(), rows, x1)
    np.testing.assert_array_equal(out, np.full_like(x1, 10 * 2 + 100 * 1))


def test_recorded_draws_follow_the_order_of_the_plan() -> None:
    x1 = np.zeros((2, 1, 2, 2), np.float32)
    mask = np.zeros((2, 1, 2, 2), np.float32)
    mask[:, :, 0] = 1
    draws = np.arange(3, dtype=np.float32).reshape(3, 1, 1, 1, 1) + np.zeros((3, 2, 1, 2, 2), np.float32) + 1
    rows = plan({"a": 1, "s": 1, "r": 1}, {"a": 1, "r": 10})
    out = sample(lambda x, t: x.copy(), rows, x1, mask=mask, draws=draws)
    assert (out[:, :, 0] == 1).all()  # z of the first row, then nothing more
    assert (out[:, :, 1] == 10 * 3).all()  # z' of the last row
    with pytest.raises(ValueError, match=r"draws noise 3 times, 2 recorded"):
        sample(lambda x, t: x.copy(), rows, x1, mask=mask, draws=draws[:2].copy())


def test_an_image_s_noise_is_its_own() -> None:
    x1 = image(3, 3, 5, 7)
    rows = plan({"a": 0.5, "s": 0.5}, {"a": 0.5, "s": 0.25})
    together = sample(lambda x, t: x.copy(), rows, x1, seeds=[5, 6, 5])
    for index, seed in enumerate([5, 6, 5]):
        alone = sample(lambda x, t: x.copy(), rows, x1[index : index + 1].copy(), seeds=[seed], threads=2)
        np.testing.assert_array_equal(alone, together[index : index + 1])
    z = _core.noise(6, 0, 105, 0, 0).reshape(3, 5, 7)
    first = sample(lambda x, t: x.copy(), rows[:1].copy(), x1[1:2].copy(), seeds=[6])
    np.testing.assert_array_equal(first[0], np.float32(0.5) * x1[1] + np.float32(0.5) * z)


def test_the_network_s_exception_comes_through() -> None:
    class Burst(Exception):
        pass

    def network(x: F32, t: F32) -> F32:
        raise Burst("the network burst")

    with pytest.raises(Burst, match="burst"):
        sample(network, plan({"q": 1, "b": 1}), image(1, 1, 2, 2))


@pytest.mark.parametrize("answer", [np.zeros((1, 1, 2, 3), np.float32), np.zeros((1, 1, 2, 2)), None, "text"])
def test_a_wrong_answer_of_the_network_is_refused(answer: object) -> None:
    with pytest.raises((ValueError, TypeError), match="what the network returns"):
        sample(lambda x, t: answer, plan({"q": 1, "b": 1}), image(1, 1, 2, 2))  # type: ignore[arg-type,return-value]


def test_what_the_network_sees_cannot_be_written() -> None:
    def network(x: F32, t: F32) -> F32:
        x[...] = 0
        return x

    with pytest.raises(ValueError, match="read-only"):
        sample(network, plan({"q": 1, "b": 1}), image(1, 1, 2, 2))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_result_that_is_not_finite_is_an_error(bad: float) -> None:
    def network(x: F32, t: F32) -> F32:
        out = x.copy()
        out[0, 0, 0, 0] = bad
        return out

    with pytest.raises(_core.NonFiniteError, match="not finite"):
        sample(network, plan({"q": 1, "b": 1}), image(1, 1, 2, 2))


def test_an_observer_sees_all_and_can_stop() -> None:
    events: list[tuple[str, int, int]] = []

    def observe(phase: str, row: int, rows: int, tile: int, tiles: int, begin: int, end: int) -> bool:
        assert begin <= end
        events.append((phase, row, tile))
        return len(events) == 5

    rows = plan({"a": 1}, {"a": 1}, {"a": 1})
    x1 = image(1, 1, 8, 8)
    with pytest.raises(_core.CancelledError):
        sample(lambda x, t: x.copy(), rows, x1, tile=8, observer=observe)
    assert events == [("network", 0, 1), ("step", 0, 0), ("network", 1, 1), ("step", 1, 0), ("network", 2, 1)]


# ---- what may end a program, each in one of its own ----


def run(program: str) -> str:
    """Run a program that must end well and say nothing on standard error; what it printed."""
    head = "import numpy as np\nfrom i2sb_rt import _core\nx1 = np.zeros((1, 1, 2, 2), np.float32)\n"
    command = [sys.executable, "-c", head + textwrap.dedent(program)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout


def test_what_an_observer_of_a_whole_plan_raises_comes_through_and_is_gone() -> None:
    program = """
        def engine(x, rows, on_row, **facts):
            for row in range(len(rows)):
                if on_row(row):
                    raise _core.CancelledError("stopped by the caller")
            return x.copy(), None

        def observe(*event):
            raise KeyError("mine")

        try:
            _core.sample(_core.Engine.whole(engine), np.zeros((3, 10), np.float32), x1, observer=observe)
        except KeyError as error:
            print("raised", error)
    """
    assert run(program) == "raised 'mine'\n"


@pytest.mark.parametrize("phase", ["prepare", "network", "step", "finish"])
def test_what_an_observer_raises_comes_through(open_model: Callable[..., _core.Model], phase: str) -> None:
    def observe(*event: object) -> None:
        if event[0] == phase:
            raise KeyError(phase)

    engine = _core.Engine.callback(lambda x, t: x.copy())
    with pytest.raises(KeyError, match=phase):
        _core.restore(open_model(), engine, identity_rows(), np.zeros((4, 4, 3), np.uint8), observer=observe)


def test_ctrl_c_ends_a_run_that_nobody_observes() -> None:
    """The network is C, as OpenVINO is: nothing but the core's own loop looks for signals."""
    program = """
        import _thread
        import functools
        import operator
        import threading

        seen, ended = np.zeros_like(x1), []

        def interrupt():
            while not seen.any():
                pass
            _thread.interrupt_main()

        engine = _core.Engine.callback(functools.partial(np.add, out=seen))
        rows = np.zeros((300000, 10), np.float32)
        rows[:, 0] = 1
        threading.Thread(target=interrupt).start()
        try:
            calls = [functools.partial(_core.sample, engine, rows, x1), functools.partial(ended.append, True)]
            list(map(operator.call, calls))
        except KeyboardInterrupt:
            print("after the end" if ended else "before the end")
    """
    assert run(program) == "before the end\n"


@pytest.mark.parametrize("network", ["np.add", "lambda x, t: (time.sleep(0), x.copy())[1]"])
def test_a_program_ends_while_a_thread_of_it_samples(network: str) -> None:
    program = f"""
        import threading
        import time

        started = threading.Event()
        options = {{"observer": lambda *event: started.set()}}
        arguments = (_core.Engine.callback({network}), np.zeros((1000000, 10), np.float32), x1)
        threading.Thread(target=_core.sample, args=arguments, kwargs=options, daemon=True).start()
        started.wait()
    """
    assert run(program) == ""


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mask": np.full((1, 1, 2, 2), 0.5, np.float32)}, "0 .known. and 1 .hole. only"),
        ({"mask": np.zeros((1, 1, 2, 3), np.float32)}, r"mask must be \[1,1,2,2\], not \[1,1,2,3\]"),
        ({"seeds": [1, 2]}, "one for each image"),
        ({"known": "both"}, "'renew' or 'x0'"),
        ({"tile": 4, "overlap": 4}, "overlap"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sample(lambda x, t: x.copy(), plan({"a": 1}), image(1, 1, 2, 2), **changes)


# ---- restoring ----


def identity_rows() -> F32:
    return plan({"a": 1})


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 9), (7, 1), (3, 5), (32, 32), (33, 70)])
def test_doing_nothing_gives_every_byte_back(open_model: Callable[..., _core.Model], height: int, width: int) -> None:
    picture = np.random.default_rng(1).integers(0, 256, (height, width, 3), np.uint8)
    engine = _core.Engine.callback(lambda x, t: x.copy())
    np.testing.assert_array_equal(_core.restore(open_model(), engine, identity_rows(), picture), picture)


def test_every_byte_survives_the_way_to_floats_and_back(open_model: Callable[..., _core.Model]) -> None:
    picture = np.repeat(np.arange(256, dtype=np.uint8).reshape(16, 16, 1), 3, axis=2)
    engine = _core.Engine.callback(lambda x, t: x.copy())
    np.testing.assert_array_equal(_core.restore(open_model(), engine, identity_rows(), picture), picture)


@pytest.mark.parametrize(("height", "width"), [(5, 6), (1, 7), (2, 1), (3, 3)])
def test_padding_reflects_and_then_repeats(open_model: Callable[..., _core.Model], height: int, width: int) -> None:
    seen: list[F32] = []

    def network(x: F32, t: F32) -> F32:
        seen.append(x.copy())
        return x.copy()

    picture = np.random.default_rng(2).integers(0, 256, (height, width, 3), np.uint8)
    _core.restore(open_model(minimum="12"), _core.Engine.callback(network), identity_rows(), picture)
    padded = picture
    for axis in (0, 1):
        reflected = min(12 - padded.shape[axis], padded.shape[axis] - 1)
        widths = [(0, 0)] * 3
        widths[axis] = (0, reflected)
        padded = np.pad(padded, widths, "reflect")
        widths[axis] = (0, 12 - padded.shape[axis])
        padded = np.pad(padded, widths, "edge")
    expected = (padded.astype(np.float32) / np.float32(127.5) - 1).transpose(2, 0, 1)
    np.testing.assert_array_equal(seen[0][0], expected)


def test_a_hole_is_filled_with_the_seed_s_noise_and_the_rest_is_kept(open_model: Callable[..., _core.Model]) -> None:
    seen: list[F32] = []

    def network(x: F32, t: F32) -> F32:
        seen.append(x.copy())
        return np.zeros_like(x)

    picture = np.random.default_rng(3).integers(0, 256, (6, 5, 3), np.uint8)
    mask = np.zeros((6, 5), np.uint8)
    mask[1:4, 2:] = 255
    rows = plan({"q": 1, "b": 1})
    with pytest.raises(ValueError, match="the model tiny fills no holes: it takes no mask"):
        _core.restore(open_model(), _core.Engine.callback(network), rows, picture, mask=mask)
    model, engine = open_model(task="inpaint"), _core.Engine.callback(network)
    out = _core.restore(model, engine, rows, picture, mask=mask, seed=2**63 + 5)
    assert (out[mask > 0] == 128).all()  # 0 -> 127.5 -> half to even
    np.testing.assert_array_equal(out[mask == 0], picture[mask == 0])
    z = _core.noise(2**63 + 5, 0, 3 * 8 * 8, 0, 1).reshape(3, 8, 8)
    hole = mask > 0
    np.testing.assert_array_equal(seen[0][0][:, :6, :5][:, hole], z[:, :6, :5][:, hole])


def test_cond_is_x1_before_noise_is_added_to_it(open_model: Callable[..., _core.Model]) -> None:
    seen: list[F32] = []

    def network(x: F32, t: F32) -> F32:
        seen.append(x.copy())
        return x[:, :3].copy()

    picture = np.random.default_rng(4).integers(0, 256, (4, 8, 3), np.uint8)
    model = open_model(cond_x1="1", add_x1_noise="1")
    _core.restore(model, _core.Engine.callback(network), identity_rows(), picture, seed=9)
    clean = (picture.astype(np.float32) / np.float32(127.5) - 1).transpose(2, 0, 1)
    np.testing.assert_array_equal(seen[0][0][3:], clean)
    np.testing.assert_array_equal(seen[0][0][:3], clean + _core.noise(9, 0, 96, 0, 3).reshape(3, 4, 8))


def test_cond_is_x1_where_no_noise_is_added(open_model: Callable[..., _core.Model]) -> None:
    picture = np.random.default_rng(4).integers(0, 256, (6, 8, 3), np.uint8)
    rows = plan({"q": 1, "b": 1}, {"c": 1})  # whatever the network says, x1 is back in the end
    engine = _core.Engine.callback(lambda x, t: -x[:, 3:])
    for tile in (0, 16):
        found = _core.restore(open_model(cond_x1="1"), engine, rows, picture, tile=tile)
        np.testing.assert_array_equal(found, picture)


@pytest.mark.parametrize("tile", [0, 16])
def test_cond_mask_shows_what_is_known_and_where_nothing_is(open_model: Callable[..., _core.Model], tile: int) -> None:
    rng = np.random.default_rng(4)
    picture = rng.integers(0, 256, (21, 30, 3), np.uint8)  # padded to 24 x 32, or to tiles
    mask = (rng.random((21, 30)) < 0.3).astype(np.uint8)
    model = open_model(cond_mask="1", task="inpaint")

    def network(x: F32, t: F32) -> F32:
        assert x.shape[1] == 7
        hole = x[:, 6:] == 1
        np.testing.assert_array_equal(x[:, 6:], hole)
        assert hole.any()
        assert not x[:, 3:6][np.broadcast_to(hole, x[:, 3:6].shape)].any()
        np.testing.assert_array_equal(np.where(hole, 0, x[:, :3]), x[:, 3:6])
        return np.asarray(x[:, 3:6] + 0.5 * x[:, 6:], np.float32)

    rows = plan({"q": 1, "b": 1})
    options = {"mask": mask, "seed": 9, "tile": tile, "overlap": 0}
    restored = _core.restore(model, _core.Engine.callback(network), rows, picture, **options)
    np.testing.assert_array_equal(restored, np.where(mask[..., None] > 0, 191, picture))  # 0.5 is 191.25
    with pytest.raises(ValueError, match="a mask must say where they are"):
        _core.restore(model, _core.Engine.callback(network), rows, picture)


def test_the_model_s_batch_is_the_only_batch(open_model: Callable[..., _core.Model]) -> None:
    batches = []

    def network(x: F32, t: F32) -> F32:
        batches.append(x.shape)
        return x.copy()

    picture = np.zeros((40, 100, 3), np.uint8)
    _core.restore(open_model(batch="4"), _core.Engine.callback(network), identity_rows(), picture)
    assert batches == [(4, 3, 32, 32)] * 3  # 6 x 2 tiles, four a call


def test_values_beyond_the_range_are_clamped(open_model: Callable[..., _core.Model]) -> None:
    rows = plan({"q": 1, "b": 1})
    picture = np.zeros((4, 4, 3), np.uint8)
    for value, byte in ((5.0, 255), (-5.0, 0), (1.0, 255), (0.5 / 127.5, 128)):
        engine = _core.Engine.callback(lambda x, t, value=value: np.full_like(x, value))  # type: ignore[misc]
        assert (_core.restore(open_model(), engine, rows, picture) == byte).all()


@pytest.mark.parametrize(("height", "width"), [(1, 1), (3, 5), (8, 8), (11, 19)])
def test_a_model_that_enlarges_begins_with_the_nearest_pixels(
    open_model: Callable[..., _core.Model], height: int, width: int
) -> None:
    picture = np.random.default_rng(5).integers(0, 256, (height, width, 3), np.uint8)
    enlarged = picture.repeat(4, axis=0).repeat(4, axis=1)
    engine = _core.Engine.callback(lambda x, t: np.sin(3 * x))
    rows = plan({"t": 1, "q": 0.5, "a": 0.5, "b": 1}, {"t": 0, "a": 1, "b": 0.1, "q": 1, "s": 0.2})
    small, large = open_model(upscale="4"), open_model()
    out = _core.restore(small, engine, rows, picture, seed=3)
    np.testing.assert_array_equal(out, _core.restore(large, engine, rows, enlarged, seed=3))
    layout = small.layout(width, height)
    assert (layout["width"], layout["height"]) == (4 * width, 4 * height)
    assert layout | {"width": 0, "height": 0} == large.layout(4 * width, 4 * height) | {"width": 0, "height": 0}


def test_a_model_that_enlarges_takes_no_mask_and_no_giant(open_model: Callable[..., _core.Model]) -> None:
    engine, model = _core.Engine.callback(lambda x, t: x.copy()), open_model(upscale="4")
    with pytest.raises(ValueError, match="no pixel of its result is known"):
        _core.restore(model, engine, identity_rows(), np.zeros((4, 4, 3), np.uint8), mask=np.ones((4, 4), np.uint8))
    with pytest.raises(ValueError, match="from 1 to 262144 pixels"):
        model.layout(262145, 1)
    with pytest.raises(_core.ModelError, match=r"i2sb\.upscale is '65'"):
        open_model(upscale="65")


def test_an_image_of_other_channels_is_refused(open_model: Callable[..., _core.Model]) -> None:
    engine = _core.Engine.callback(lambda x, t: x.copy())
    with pytest.raises(ValueError, match="3 channels, the image has 2"):
        _core.restore(open_model(), engine, identity_rows(), np.zeros((4, 4, 2), np.uint8))
    with pytest.raises(ValueError, match="a fourth channel is not enlarged"):
        _core.restore(open_model(upscale="2"), engine, identity_rows(), np.zeros((4, 4, 4), np.uint8))


def test_grey_is_restored_as_colour_and_a_fourth_channel_kept(open_model: Callable[..., _core.Model]) -> None:
    def network(x: F32, t: F32) -> F32:
        return np.stack([x[:, 0] * 0.9, x[:, 1] * 0.5, -x[:, 2]], axis=1)

    picture = np.random.default_rng(3).integers(0, 256, (21, 30, 4), np.uint8)
    model, engine, rows = open_model(), _core.Engine.callback(network), plan({"q": 1, "b": 1})
    colour = _core.restore(model, engine, rows, picture[..., :3].copy())
    kept = _core.restore(model, engine, rows, picture)
    np.testing.assert_array_equal(kept, np.concatenate([colour, picture[..., 3:]], axis=2))
    grey = picture[..., :1].copy()
    wanted = Image.fromarray(_core.restore(model, engine, rows, np.repeat(grey, 3, axis=2))).convert("L")
    np.testing.assert_array_equal(_core.restore(model, engine, rows, grey)[..., 0], wanted)
