import argparse
import json
import math
import os
import re
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from i2sb_rt import Restorer, load, models
from i2sb_rt.cli import bench as bench_parser
from i2sb_rt.cli import main, timing_run
from i2sb_rt.engines.cuda import CudaEngine
from i2sb_rt.errors import CancelledError, NonFiniteError, OutOfMemoryError
from i2sb_rt.evaluation import speed
from i2sb_rt.evaluation.drawn import drawn_picture
from i2sb_rt.evaluation.speed import REST, ROUNDS, Way, Work, measure
from i2sb_rt.inventory import Offer

U8 = NDArray[np.uint8]
QUICK = ("--seconds", "0.01")


def never() -> bool:
    return False


def work(count: int = 1) -> Work:
    pictures = [drawn_picture(3, 40, 32, np.random.default_rng(k)) for k in range(count)]
    return Work(pictures=pictures, mask=None, nfe=2, sampler="sde")


def records(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


class Clock:
    """Time that only passes when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(speed, "time", found)
    return found


class Standin:
    """A restorer that takes `seconds` a picture, half of them in the network, and adds `off` to it."""

    def __init__(
        self, clock: Clock, seconds: float, off: int = 0, precision: str = "fp32", engine: str = "native", jobs: int = 1
    ) -> None:
        self.clock, self.seconds, self.off, self.precision = clock, seconds, off, precision
        self.engine_name, self.jobs = engine, jobs
        self.calls: list[SimpleNamespace] = []
        self.fails: dict[int, Exception] = {}

    def restore(self, pictures: list[U8], observer: Any, **options: Any) -> list[U8]:
        self.calls.append(SimpleNamespace(count=len(pictures), watched=observer is not None, **options))
        if len(self.calls) in self.fails:
            raise self.fails[len(self.calls)]
        for _ in pictures:
            if observer is not None:
                observer("network", 0, 1, 0, 1, 0, int(5e8 * self.seconds))
            self.clock.sleep(self.seconds)
        return [picture + np.uint8(self.off * (k == 1)) for k, picture in enumerate(pictures)]


def way(restorer: Any, ready: float = 0.0, named: str = "a way") -> Way:
    return Way(named, restorer, ready)


def test_figures_are_those_of_a_picture_and_in_turn(clock: Clock) -> None:
    slow, fast = Standin(clock, 0.4), Standin(clock, 0.1)
    ways = [way(slow, 3.0), way(fast, 5.0)]
    measure(ways, work(2), 11.0, never)
    rounds = int(11.0 / (2 * REST + 1.0))
    assert ways[0].each == pytest.approx([0.4] * rounds)
    assert ways[1].each == pytest.approx([0.1] * rounds)
    assert (ways[0].ready, ways[1].ready) == pytest.approx((3.4, 5.1))
    assert ways[1].speedup(ways[0]) == pytest.approx(4.0)
    assert ways[1].shares == pytest.approx([0.5] * rounds)
    assert [call.count for call in slow.calls] == [1] + [2] * (rounds + 2)
    assert {(call.nfe, call.sampler, call.mask) for call in fast.calls} == {(2, "sde", None)}
    assert clock.now == pytest.approx(1.5 + (rounds + 1) * (2 * REST + 1.0))  # one picture and two of each, then rounds
    record = ways[1].record(ways[0])
    assert (record["ms"], record["speedup"], record["ready_s"], record["psnr"]) == (100.0, 4.0, 5.1, None)


@pytest.mark.parametrize(("seconds", "rounds"), [(1e-9, ROUNDS[0]), (1e308, ROUNDS[1])])
def test_there_is_a_least_and_a_most_of_rounds(clock: Clock, seconds: float, rounds: int) -> None:
    ways = [way(Standin(clock, 0.1))]
    measure(ways, work(), seconds, never)
    assert len(ways[0].each) == rounds


def test_of_several_at_once_no_share_is_known(clock: Clock) -> None:
    ways = [way(Standin(clock, 0.1, jobs=2)), way(Standin(clock, 0.1, engine="cuda"))]
    measure(ways, work(2), 1.0, never)
    assert ways[0].shares == ways[1].shares == []
    assert [one.restorer.calls[0].watched for one in ways] == [True, False]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("precision", "off", "is_timed"),
    [("fp32", 0, True), ("fp32", 1, False), ("bf16", 2, True), ("bf16", 3, False), ("int8", 7, True)],
)
def test_what_restores_another_picture_is_not_timed(clock: Clock, precision: str, off: int, is_timed: bool) -> None:
    """The second of two pictures is off by so many levels: 48.1, 42.1, 38.6 and 31.2 dB."""
    ways = [way(Standin(clock, 0.1), named="the first"), way(Standin(clock, 0.1, off, precision))]
    dark = [np.zeros((8, 8, 3), np.uint8)] * 2
    measure(ways, Work(pictures=dark, mask=None, nfe=None, sampler=None), 1.0, never)
    assert bool(ways[1].each) == is_timed == (ways[1].error is None)
    if off:
        assert ways[1].psnr == pytest.approx(20 * math.log10(255 / off))
    if not is_timed:
        assert "differs from that of the first" in str(ways[1].error)


def test_a_way_that_fails_is_noted_whenever_it_does(clock: Clock) -> None:
    at_once, later, sound = (Standin(clock, 0.1) for _ in range(3))
    at_once.fails = {1: RuntimeError("a library's")}
    later.fails = {4: MemoryError()}
    ways = [way(at_once), way(later), way(sound)]
    measure(ways, work(), 1.0, never)
    assert "internal error: RuntimeError: a library's" in str(ways[0].error)
    assert isinstance(ways[1].error, OutOfMemoryError)
    assert len(later.calls) == 4
    assert ways[2].error is None
    assert len(ways[2].each) >= ROUNDS[0]


def test_real_models_are_told_apart(toy: Restorer, make_model: Callable[..., Path]) -> None:
    other, broken = (load(make_model(scale=scale), "native", precision="fp32") for scale in (0.5, math.nan))
    ways = [way(broken), way(toy), way(other), way(toy)]
    measure(ways, work(), 0.0, never)
    assert isinstance(ways[0].error, NonFiniteError)
    assert "at least 55 dB" in str(ways[2].error)
    assert [len(one.each) for one in ways] == [0, ROUNDS[0], 0, ROUNDS[0]]
    assert ways[3].psnr == math.inf


def test_a_gpu_is_not_watched() -> None:
    plain, ours = load("jpeg", "torch"), load("jpeg", "torch", jobs=4)
    ours.engine = CudaEngine(models.find("jpeg"), "fp32", device="cpu", batch=2)
    ways = [way(plain), way(ours)]
    measure(ways, work(3), 0.0, never)
    assert [one.error for one in ways] == [None, None]
    assert [bool(one.shares) for one in ways] == [True, False]
    assert ways[1].psnr > 55


def test_it_stops_where_it_is_told(toy: Restorer) -> None:
    asked = 0

    def is_stopped() -> bool:
        nonlocal asked
        asked += 1
        return asked > 7

    with pytest.raises(CancelledError):
        measure([way(toy)], work(), 60.0, is_stopped)
    assert asked == 8


def test_the_command_times_what_is_here(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--size", "48x40", "--nfe", "2", "--json", *QUICK]) == 0
    first, *others = records(capsys)
    assert (first["way"], first["precision"], first["speedup"], first["psnr"]) == ("torch:fp32", "fp32", 1.0, None)
    assert (first["w"], first["h"], first["nfe"], first["model"], first["pictures"]) == (48, 40, 2, "jpeg", 1)
    found = [one["way"] for one in others if one["engine"] == "native"]
    assert found == (["native:fp32"] if load("jpeg", "native").precision == "fp32" else ["native:fp32", "native"])
    for one in (first, *others):
        assert one["status"] == "ok"
        assert one["ms"] == pytest.approx(np.median(one["each_ms"]), abs=2e-3)
        assert len(one["each_ms"]) >= ROUNDS[0]
        assert one["ready_s"] > 0


def test_the_table_has_a_row_for_each(toy_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--way", "native:fp32", "--way", "native:fp32", "--threads", "1", *QUICK]
    assert main(["bench", "-n", str(toy_path), *options]) == 0
    head, empty, *table = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"toy, 512x512, 2 network calls of sde; .+, 1 thread, (scalar|avx2|avx512).*", head)
    assert empty == ""
    assert len(table) == 4
    cells = [cell.strip() for cell in table[2].split("|")[1:-1]]
    assert (cells[0], cells[1], cells[6], cells[7]) == ("native:fp32", "fp32", "1.00 x", "equal")
    assert float(cells[3]) * float(cells[4]) == pytest.approx(1e3, rel=0.05)
    assert 0 < float(cells[5].rstrip("%")) < 100


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the command opens, and that alone: nothing is measured, and a GPU is made believe by PyTorch."""
    calls: list[dict[str, Any]] = []

    def opening(path: str, engine: str, threads: Any, precision: str, jobs: Any, batch: Any) -> Restorer:
        clock.sleep(2.0)
        calls.append({"engine": engine, "threads": threads, "precision": precision, "jobs": jobs, "batch": batch})
        restorer = load(path, "torch" if engine == "cuda" else engine)
        if engine == "cuda":
            restorer.engine = SimpleNamespace(name="cuda", precision="bf16", core=None)  # type: ignore[assignment]
        return restorer

    def measured(ways: list[Way], work: Work, *_: Any) -> None:
        calls.append({"work": work, "ready": [one.ready for one in ways]})

    clock = Clock()
    monkeypatch.setattr(timing_run, "time", clock)

    monkeypatch.setattr(timing_run, "load", opening)
    monkeypatch.setattr(timing_run, "measure", measured)
    monkeypatch.setattr("i2sb_rt.inventory.offer", lambda name: Offer(name, "a library"))
    return calls


def test_options_reach_engines(opened: list[dict[str, Any]]) -> None:
    assert main(["bench", "--way", "native:fp32,cuda", "--batch", "4", "--threads", "1"]) == 0
    native, cuda, done = opened
    assert native == {"engine": "native", "threads": 1, "precision": "fp32", "jobs": 1, "batch": None}
    assert cuda == {"engine": "cuda", "threads": 1, "precision": "auto", "jobs": None, "batch": 4}
    assert len(done["work"].pictures) == 8
    assert done["ready"] == [2.0, 2.0]
    assert done["work"].mask is None


def test_models_get_what_they_take(
    opened: list[dict[str, Any]], make_model: Callable[..., Path], toy_path: Path
) -> None:
    assert main(["bench", "-n", "inpaint", "--way", "native", "--size", "40x20"]) == 0
    mask = opened[-1]["work"].mask
    assert (mask.shape, mask.mean()) == ((20, 40), 0.25)
    assert main(["bench", "-n", str(make_model(minimum=64, tile=64)), "--way", "native"]) == 0
    assert opened[-1]["work"].pictures[0].shape == (64, 64, 3)
    assert main(["bench", "-n", str(toy_path), "--way", "native", "--size", "1300x600", "--jobs", "3"]) == 0
    assert [picture.shape for picture in opened[-1]["work"].pictures] == [(600, 1300, 3)] * 3
    opened.clear()
    assert main(["bench", "-n", str(make_model(extra={"i2sb.quantized": "int8"})), "--size", "32x32"]) == 0
    assert [call.get("engine") for call in opened] == ["native", None]


def test_a_difference_is_told_and_the_exit_code(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(speed, "psnr", lambda *_: 12.3)
    options = ["-n", "jpeg", "--size", "16x16", "--way", "torch,native:fp32", *QUICK]
    assert main(["bench", *options]) == 1
    said = capsys.readouterr()
    assert len(said.out.splitlines()) == 5
    assert "native:fp32 was not timed: its picture differs from that of torch: 12.3 dB" in said.err
    assert main(["bench", "--json", *options]) == 1
    first, second = records(capsys)
    assert (first["status"], second["status"], second["error"]["code"]) == ("ok", "failed", "internal")


def test_what_is_not_here_is_left_out_unless_it_is_asked_for(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, toy_path: Path
) -> None:
    def offer(name: str) -> Offer:
        return Offer(name, "a library") if name == "native" else Offer(name, missing=f"no {name}")

    monkeypatch.setattr("i2sb_rt.inventory.offer", offer)
    options = ["bench", "-n", str(toy_path), "--size", "32x32", *QUICK]
    assert main(options) == 0
    assert "left out, torch: no torch\n" in capsys.readouterr().err
    assert main([*options, "-q"]) == 0
    assert capsys.readouterr().err == ""
    assert main([*options, "--way", "native,cuda"]) == 6
    assert "no cuda" in capsys.readouterr().err
    monkeypatch.setattr("i2sb_rt.inventory.offer", lambda name: Offer(name, missing=f"no {name}"))
    assert main(options) == 6
    assert "no torch; no native; no cuda" in capsys.readouterr().err


def test_ctrl_c_ends_it_and_what_was_timed_is_told(
    toy_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rounds = 0
    timed = speed._time

    def interrupted(*arguments: Any) -> float:
        nonlocal rounds
        rounds += 1
        if rounds == 4:  # the first one does not count
            os.kill(os.getpid(), signal.SIGINT)
        return timed(*arguments)

    monkeypatch.setattr(speed, "_time", interrupted)
    options = ["--way", "native:fp32", "--size", "512x512", "--nfe", "9", "--seconds", "600", "--json"]
    assert main(["bench", "-n", str(toy_path), *options]) == 130
    (record,) = records(capsys)
    assert 2 <= len(record["each_ms"]) < ROUNDS[1]


def test_a_signal_that_another_thread_gets_is_heard() -> None:
    from i2sb_rt.cli.stop import Stop

    def work() -> int | None:
        time.sleep(0.3)  # by then the first thread waits
        signal.pthread_kill(threading.get_ident(), signal.SIGINT)  # of the thread that works
        for _ in range(250):
            if stop.signal is None:
                time.sleep(0.02)
        return stop.signal

    with Stop() as stop:
        assert stop.run(work) == signal.SIGINT


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--size", "12"], 2, "no size such as"),
        (["--size", "0x12"], 2, "no size such as"),
        (["--size", "20000x20000"], 2, "pixels"),
        (["--seconds", "0"], 2, "seconds above 0"),
        (["--seconds", "nan"], 2, "seconds above 0"),
        (["--way", "native:fp8"], 2, "'native:fp8' is not one of native, torch, cuda"),
        (["--way", "native,gpu"], 2, "'gpu'"),
        (["--way", "auto"], 2, "'auto'"),
        (["--way", "native", "--nfe", "4000"], 2, "nfe"),
        (["--way", "native", "--sampler", "euler"], 2, "there are sde, ode"),
        (["--way", "native:tf32"], 2, "for the engine native"),
        (["--way", "native", "--batch", "4"], 2, "--batch 4 is for engines on a GPU"),
        (["--way", "native", "--jobs", "1000"], 2, "jobs lies in"),
        (["-n", "unheard-of"], 5, "no model called"),
    ],
)
def test_what_does_not_fit_is_refused(
    options: list[str], code: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", *options, *([] if "--seconds" in options else QUICK)]) == code
    said = capsys.readouterr()
    assert words in said.err
    assert said.out == ""


def test_the_page_tells_every_option() -> None:
    page = (Path(__file__).parents[2] / "docs" / "cli.md").read_text()
    section = page.split("## i2sb-rt bench", 1)[1].split("\n## ", 1)[0]
    subparsers = argparse.ArgumentParser("i2sb-rt").add_subparsers()
    bench_parser.add_parser(subparsers)
    actions = subparsers.choices["bench"]._actions
    options = {option for action in actions for option in action.option_strings} - {"-h", "--help"}
    assert len(options) >= 12
    assert options <= set(re.findall(r"--?[a-z][a-z-]*", section))
