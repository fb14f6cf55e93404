import argparse
import json
import math
import os
import re
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from i2sb_rt import Restorer, load, models
from i2sb_rt.cli import bench as bench_parser
from i2sb_rt.cli import bench_run, main
from i2sb_rt.engines.cuda import CudaEngine
from i2sb_rt.errors import CancelledError, NonFiniteError
from i2sb_rt.evaluation import speed
from i2sb_rt.evaluation.drawn import drawn_picture
from i2sb_rt.evaluation.speed import ROUNDS, Way, Work, measure

U8 = NDArray[np.uint8]
QUICK = ("--seconds", "0.01")


@pytest.fixture(autouse=True)
def _no_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "REST", 0.0)


def never() -> bool:
    return False


def work(count: int = 1) -> Work:
    pictures = [drawn_picture(3, 40, 32, np.random.default_rng(k)) for k in range(count)]
    return Work(pictures=pictures, mask=None, nfe=2, sampler="sde")


def records(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_it_times_every_engine_that_is_here(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--size", "48x40", "--nfe", "2", "--json", *QUICK]) == 0
    first, *others = records(capsys)
    assert (first["engine"], first["precision"], first["times"], first["psnr"]) == ("torch", "fp32", 1.0, None)
    assert (first["w"], first["h"], first["nfe"], first["model"]) == (48, 40, 2, "jpeg")
    found = [(one["engine"], one["precision"]) for one in others]
    auto = load("jpeg", "native").precision
    assert [one for one in found if one[0] == "native"] == [("native", one) for one in dict.fromkeys(["fp32", auto])]
    for one in (first, *others):
        assert one["status"] == "ok"
        assert len(one["each_ms"]) >= ROUNDS[0]
        assert one["ms"] == pytest.approx(np.median(one["each_ms"]), abs=2e-3)
        assert one["ready_s"] > 0
        ratios = np.divide(first["each_ms"], one["each_ms"])
        assert one["times"] == pytest.approx(float(np.median(ratios)), rel=1e-2)
        if one["engine"] != "cuda":
            assert 0 < one["network_share"] < 1


def test_the_table_has_a_row_for_each(toy_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "-n", str(toy_path), "--engine", "native", "--precision", "fp32,fp32", *QUICK]) == 0
    head, empty, *table = capsys.readouterr().out.splitlines()
    assert head.startswith("toy, 512x512, 2 network calls of sde; ")
    assert empty == ""
    assert len(table) == 3
    assert re.fullmatch(r"\| native \| fp32 +\| .* \| +1\.00 x \| +equal \|", table[2])


def test_a_model_that_fills_holes_gets_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "-n", "inpaint", "--size", "33x31", "--engine", "native", "--json", *QUICK]) == 0
    assert all(record["status"] == "ok" for record in records(capsys))


def test_several_pictures_at_once(toy_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--engine", "native", "--precision", "fp32", "--jobs", "3", "--size", "40x40", "--json", *QUICK]
    assert main(["bench", "-n", str(toy_path), *options]) == 0
    (record,) = records(capsys)
    assert (record["pictures"], record["network_share"]) == (3, None)


def test_what_restores_another_picture_is_not_timed(toy: Restorer, make_model: Callable[..., Path]) -> None:
    other = load(make_model(scale=0.5), "native", precision="fp32")
    ways = [Way(toy, 0.0), Way(other, 0.0), Way(toy, 0.0)]
    measure(ways, work(), 0.0, never)
    assert ways[1].error is not None
    assert "where 55 dB are the least" in str(ways[1].error)
    assert [len(way.each) for way in ways] == [ROUNDS[0], 0, ROUNDS[0]]
    assert ways[2].psnr == math.inf


def test_what_fails_is_not_what_others_are_measured_by(toy: Restorer, make_model: Callable[..., Path]) -> None:
    broken = load(make_model(scale=math.nan), "native", precision="fp32")
    ways = [Way(broken, 0.0), Way(toy, 0.0)]
    measure(ways, work(), 0.0, never)
    assert isinstance(ways[0].error, NonFiniteError)
    assert ways[1].error is None
    assert ways[1].times(ways[1]) == 1.0


def test_a_difference_is_told_and_the_exit_code(
    toy_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(speed, "psnr", lambda *_: 12.3)
    options = ["-n", "jpeg", "--size", "16x16", "--precision", "fp32", "--engine", "torch,native", *QUICK]
    assert main(["bench", *options]) == 1
    said = capsys.readouterr()
    assert len(said.out.splitlines()) == 5
    assert "not timed, native fp32: native fp32 differs from torch fp32: 12.3 dB" in said.err
    assert main(["bench", "--json", *options]) == 1
    first, second = records(capsys)
    assert (first["status"], second["status"], second["error"]["code"]) == ("ok", "failed", "internal")


def test_a_gpu_is_not_watched(make_model: Callable[..., Path]) -> None:
    plain, ours = load("jpeg", "torch"), load("jpeg", "torch", jobs=4)
    ours.engine = CudaEngine(models.find("jpeg"), "fp32", device="cpu", batch=2)
    ways = [Way(plain, 0.0), Way(ours, 0.0)]
    measure(ways, work(3), 0.0, never)
    assert [way.error for way in ways] == [None, None]
    assert [bool(way.shares) for way in ways] == [True, False]
    assert ways[1].psnr > 55


def test_it_stops_where_it_is_told(toy: Restorer) -> None:
    asked = 0

    def is_stopped() -> bool:
        nonlocal asked
        asked += 1
        return asked > 7

    with pytest.raises(CancelledError):
        measure([Way(toy, 0.0)], work(), 60.0, is_stopped)
    assert asked == 8


def test_ctrl_c_ends_it(toy_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))

    def interrupted(*arguments: Any) -> None:
        timer.start()
        measure(*arguments)

    monkeypatch.setattr(bench_run, "measure", interrupted)
    options = ["--engine", "native", "--precision", "fp32", "--size", "1024x1024", "--nfe", "9", "--seconds", "600"]
    assert main(["bench", "-n", str(toy_path), *options]) == 130
    timer.join()
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--size", "12"], 2, "no size such as"),
        (["--size", "0x12"], 2, "no size such as"),
        (["--size", "20000x20000"], 2, "pixels"),
        (["--seconds", "0"], 2, "seconds above 0"),
        (["--seconds", "nan"], 2, "seconds above 0"),
        (["--precision", "fp32,fp8"], 2, "'fp8' is none of"),
        (["--engine", "native,gpu"], 2, "'gpu'"),
        (["--engine", "native", "--nfe", "4000"], 2, "nfe"),
        (["--engine", "native", "--sampler", "euler"], 2, "there are sde, ode"),
        (["--engine", "native", "--precision", "tf32"], 2, "for the engine native"),
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
