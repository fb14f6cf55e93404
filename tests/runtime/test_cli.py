import argparse
import contextlib
import hashlib
import io
import json
import re
import sys
import threading
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from picture_files import everything, pixels
from PIL import Image

import i2sb_rt
from i2sb_rt import Restorer
from i2sb_rt.cli import main
from i2sb_rt.cli import restore as restore_parser

U8 = NDArray[np.uint8]


@pytest.fixture(autouse=True)
def _inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def restore(toy_path: Path) -> Callable[..., int]:
    """Run the command `restore` with the toy model in fp32."""

    def run(*arguments: str) -> int:
        return main(["restore", "-n", str(toy_path), "--precision", "fp32", *arguments])

    return run


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_restores_a_file(restore: Callable[..., int], toy: Restorer, photo: U8) -> None:
    Image.fromarray(photo).save("é photo.png")
    assert restore("é photo.png", "-o", "out.png", "--nfe", "3", "--seed", "7", "--sampler", "sde") == 0
    np.testing.assert_array_equal(pixels("out.png"), toy.restore(photo, nfe=3, seed=7, sampler="sde"))
    assert everything() == ["out.png", "é photo.png"]


def test_options_reach_the_restorer(restore: Callable[..., int], toy: Restorer, photo: U8) -> None:
    Image.fromarray(photo).save("a.png")
    assert restore("-i", "a.png", "-o", "o.webp", "-t", "32", "--tile-overlap", "16", "--threads", "1") == 0
    np.testing.assert_array_equal(pixels("o.webp"), toy.restore(photo, tile=32, overlap=16))
    assert restore("a.png", "-o", "o.png", "-t", "0", "--sampler", "ode", "--nfe", "1") == 0
    np.testing.assert_array_equal(pixels("o.png"), toy.restore(photo, tile=0, sampler="ode", nfe=1))
    assert restore("a.png", "-o", "o.png", "--sampler", "dbim1", "--nfe", "3", "--eta", "0.4") == 0
    np.testing.assert_array_equal(pixels("o.png"), toy.restore(photo, sampler="dbim1", nfe=3, eta=0.4))


def test_a_folder_with_one_bad_file(restore: Callable[..., int], folder: Path, toy: Restorer, photo: U8) -> None:
    assert restore(str(folder), "-o", "out") == 3
    assert everything()[4:] == ["out/a.png", "out/sub/b.png", "out/sub/c é.png"]
    np.testing.assert_array_equal(pixels("out/sub/b.png"), toy.restore(photo[::-1]))
    assert pixels("out/sub/c é.png").ndim == 2


def test_json_tells_each_image_and_the_sum(
    restore: Callable[..., int], folder: Path, capsys: pytest.CaptureFixture[str], toy_path: Path
) -> None:
    Path("out").mkdir()
    Path("out/a.png").touch()
    assert restore(str(folder), "-o", "out", "--json", "--skip-existing", "--seed", "5") == 3
    *images, last = lines(capsys.readouterr().out)
    found = {image["in"]: image for image in images}
    assert {name: image["status"] for name, image in found.items()} == {
        "in/a.png": "skipped",
        "in/broken.jpg": "failed",
        "in/sub/b.png": "ok",
        "in/sub/c é.tif": "ok",
    }
    done = found["in/sub/b.png"]
    wanted = {"out": "out/sub/b.png", "w": 53, "h": 37, "model": "toy", "nfe": 2, "sampler": "sde", "seed": 5}
    assert {key: done[key] for key in wanted} == wanted
    assert (done["engine"], done["precision"], done["tile"], done["schema"]) == ("native", "fp32", 0, 1)
    assert done["model_sha256"] == hashlib.sha256(toy_path.read_bytes()).hexdigest()
    times = done["ms"]
    assert set(times) >= {"decode", "network", "step", "encode", "total"}
    assert times["total"] >= times["decode"] + times["network"] + times["step"] + times["encode"] > 0
    assert found["in/broken.jpg"]["error"]["code"] == "image_broken"
    assert "in/broken.jpg" in found["in/broken.jpg"]["error"]["message"]
    summary = last["summary"]
    assert (summary["ok"], summary["skipped"], summary["failed"], summary["exit_code"]) == (2, 1, 1, 3)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ([], 2, "-o"),
        (["-o", "x.png"], 2, "no input"),
        (["a.png", "-o", "x.gif"], 2, ".gif"),
        (["a.png", "-o", "a.png"], 2, "--overwrite"),
        (["a.png", "-o", "x.png", "--nfe", "0"], 2, "nfe"),
        (["a.png", "-o", "x.png", "--nfe", "x"], 2, "--nfe"),
        (["a.png", "-o", "x.png", "--sampler", "euler"], 2, "there are sde, ode, dbim1"),
        (["a.png", "-o", "x.png", "--seed", "-1"], 2, "seed"),
        (["a.png", "-o", "x.png", "-t", "40"], 2, "multiple"),
        (["a.png", "-o", "x.png", "-t", "large"], 2, "tile"),
        (["a.png", "-o", "x.png", "--threads", "0"], 2, "threads"),
        (["a.png", "-o", "x.png", "--batch", "0"], 2, "'0' is not a whole number of at least 1"),
        (["a.png", "-o", "x.png", "--tile-overlap", "800"], 2, "tile overlap 800"),
        (
            ["a.png", "-o", "x.png", "-t", "0", "--tile-overlap", "16"],
            2,
            "--tile-overlap is that of tiles, and -t 0 makes none",
        ),
        (["a.png", "-o", "x.png", "--sampler", "dbim1", "--eta", "2"], 2, "eta must be a number from 0 to 1, not 2.0"),
        (["a.png", "-o", "x.png", "--max-pixels", "4X"], 2, "4M"),
        (["a.png", "-o", "-", "--json"], 2, "standard output"),
        (["a.png", "-o", "x.png", "--compare", "x.png"], 2, "--compare"),
        (["a.png", "-o", "x.png", "--profile", "a.png"], 2, "--profile"),
        (["a.png", "-o", "x.png", "--compare", "y.png", "--profile", "./y.png"], 2, "what --compare writes"),
        (["a.png", "a.png.txt", "-o", "out", "--compare", "y.png"], 2, "--compare"),
        (["a.png", "-o", "x.png", "--unknown"], 2, "--unknown"),
        (["a.png", "-o", "x.png", "--max-pixels", "1k"], 4, "1961 pixels"),
        (["gone.png", "-o", "x.png"], 4, "gone.png"),
        (["gone.png", "a.png", "-o", "out"], 3, "gone.png"),
        (["gone.png", "a.png.txt", "-o", "out"], 4, "2 of 2 failed"),
        (["a.png", "-o", "x.png", "-n", "unheard-of"], 5, "unheard-of"),
        (["a.png", "-o", "x.png", "-n", "a.png"], 5, "a.png"),
    ],
)
def test_exit_codes(
    restore: Callable[..., int],
    photo: U8,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
    words: str,
) -> None:
    Image.fromarray(photo).save("a.png")
    Path("a.png.txt").write_text("hello")
    before = everything()
    assert restore(*arguments) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert words in err
    assert "Traceback" not in err
    assert [path for path in everything() if path not in before] == (["out/a.png"] if code == 3 else [])


def test_no_engine_is_6(restore: Callable[..., int], photo: U8, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(photo).save("a.png")
    monkeypatch.setenv("I2SB_RT_OPENVINO", "/nowhere/libopenvino_c.so")
    assert restore("a.png", "-o", "x.png") == 6


def test_memory_that_is_not_there_is_6(
    restore: Callable[..., int], photo: U8, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.fromarray(photo).save("a.png")

    def exhausted(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(Restorer, "restore_picture", exhausted)
    assert restore("a.png", "-o", "x.png") == 6
    assert "a.png: there is not enough memory" in capsys.readouterr().err


def test_an_unknown_fault_is_one_sentence_and_1(
    restore: Callable[..., int], photo: U8, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.fromarray(photo).save("a.png")

    def faulty(*_: object, **__: object) -> None:
        raise KeyError("gremlin")

    monkeypatch.setattr(Restorer, "restore_picture", faulty)
    assert restore("a.png", "-o", "x.png") == 1
    err = capsys.readouterr().err
    assert "gremlin" in err
    assert len(err.splitlines()) == 1
    monkeypatch.setenv("I2SB_RT_DEBUG", "1")
    assert restore("a.png", "-o", "x.png") == 1
    assert "Traceback" in capsys.readouterr().err


def test_fail_fast_stops_at_the_first(restore: Callable[..., int], folder: Path) -> None:
    assert restore(str(folder), "-o", "out", "--fail-fast", "--jobs", "1") == 3
    assert [path for path in everything() if path.startswith("out")] == ["out/a.png"]


def test_fail_fast_tells_what_was_not_tried(
    restore: Callable[..., int], photo: U8, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("a.png").write_bytes(b"no picture")
    Image.fromarray(photo).save("b.png")
    assert restore("a.png", "b.png", "-o", "out", "--fail-fast", "--jobs", "1") == 3
    err = capsys.readouterr().err
    assert "1 of 2 failed" in err
    assert "0 ok, 1 failed, 1 not done in" in err
    assert restore("a.png", "b.png", "-o", "out", "--fail-fast", "--jobs", "1", "--json") == 3
    summary = lines(capsys.readouterr().out)[-1]["summary"]
    assert (summary["failed"], summary["not_done"], summary["exit_code"]) == (1, 1, 3)


@pytest.mark.parametrize("option", ["--compare", "--profile"])
def test_a_side_file_that_cannot_be_written_is_an_error_of_its_own(
    restore: Callable[..., int], photo: U8, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    Image.fromarray(photo).save("a.png")
    Path("file").touch()
    assert restore("a.png", "-o", "out.png", option, "file/side.png", "--json") == 4
    out, err = capsys.readouterr()
    image, last = lines(out)
    assert (image["status"], Path("out.png").exists()) == ("ok", True)
    (error,) = last["summary"]["errors"]
    assert (last["summary"]["ok"], last["summary"]["exit_code"], error["code"]) == (1, 4, "output")
    assert err == f"i2sb-rt: {error['message']}\n"
    assert "file/side.png cannot be written" in err


def test_an_image_without_its_comparison_is_not_skipped(
    restore: Callable[..., int], photo: U8, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.fromarray(photo).save("a.png")
    for found, words in (([], "(53x37"), (["out.png"], "(53x37"), (["out.png", "sheet.png"], "(skipped")):
        assert [name for name in everything() if name != "a.png"] == found
        extra = ["--compare", "sheet.png"] if found else []
        assert restore("a.png", "-o", "out.png", "--skip-existing", *extra) == 0
        assert words in capsys.readouterr().err


@pytest.mark.parametrize("jobs", [[], ["--jobs", "1"], ["--jobs", "3"]])
def test_several_at_once_are_told_in_order(
    restore: Callable[..., int], photo: U8, toy: Restorer, capsys: pytest.CaptureFixture[str], jobs: list[str]
) -> None:
    Path("in").mkdir()
    images = {f"{k}.png": photo[: 5 + 4 * (k % 7), : 40 - 3 * k] for k in range(10)}
    for name, image in images.items():
        Image.fromarray(image).save(Path("in", name))
    Path("in", "4.png").write_bytes(b"no picture")
    assert restore("in", "-o", "out", "--seed", "3", "--json", *jobs) == 3
    *told, last = lines(capsys.readouterr().out)
    assert [line["in"] for line in told] == [f"in/{k}.png" for k in range(10)]
    assert [line["status"] for line in told] == ["ok"] * 4 + ["failed"] + ["ok"] * 5
    assert (last["summary"]["ok"], last["summary"]["failed"]) == (9, 1)
    for name, image in images.items():
        if name != "4.png":
            np.testing.assert_array_equal(pixels(f"out/{name}"), toy.restore(image, seed=3))


def test_overwrite_lets_an_input_be_replaced(restore: Callable[..., int], toy: Restorer, photo: U8) -> None:
    Image.fromarray(photo).save("a.png")
    assert restore("a.png", "-o", "a.png", "--overwrite") == 0
    np.testing.assert_array_equal(pixels("a.png"), toy.restore(photo))


def test_an_output_that_is_no_input_is_replaced(restore: Callable[..., int], photo: U8) -> None:
    Image.fromarray(photo).save("a.png")
    Path("out.png").write_bytes(b"old")
    assert restore("a.png", "-o", "out.png") == 0
    assert pixels("out.png").shape == photo.shape


def test_compare_draws_before_and_after(restore: Callable[..., int], toy: Restorer, photo: U8) -> None:
    large = np.kron(photo, np.ones((8, 8, 1), np.uint8))
    Image.fromarray(large).save("a.png")
    assert restore("a.png", "-o", "out.png", "--compare", "sheet.png") == 0
    sheet, after = pixels("sheet.png"), pixels("out.png")
    np.testing.assert_array_equal(sheet[-large.shape[0] :, : large.shape[1]], large)
    np.testing.assert_array_equal(sheet[-large.shape[0] :, -large.shape[1] :], after)


def test_profile_is_a_trace_of_every_phase(restore: Callable[..., int], photo: U8) -> None:
    Image.fromarray(photo).save("a.png")
    assert restore("a.png", "-o", "out.png", "--profile", "trace.json", "--nfe", "3") == 0
    events = [event for event in json.loads(Path("trace.json").read_text())["traceEvents"] if event["ph"] == "X"]
    counts = {name: sum(event["name"] == name for event in events) for name in ("decode", "network", "step", "encode")}
    assert counts == {"decode": 1, "network": 3, "step": 3, "encode": 1}
    (total,) = (event for event in events if event["name"] == "total")
    for event in events:
        assert total["ts"] <= event["ts"] <= event["ts"] + event["dur"] <= total["ts"] + total["dur"] + 1e-3


def test_lines_go_to_stderr_and_quiet_says_nothing(
    restore: Callable[..., int], photo: U8, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.fromarray(photo).save("a.png")
    assert restore("a.png", "-o", "out.png") == 0
    out, err = capsys.readouterr()
    assert out == ""
    assert "a.png -> out.png (53x37" in err
    assert restore("a.png", "-o", "out.png", "-q") == 0
    assert capsys.readouterr() == ("", "")


def test_a_bar_is_drawn_on_a_terminal_only(
    restore: Callable[..., int], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    for stream, drawn in ((Terminal(), True), (io.StringIO(), False)):
        monkeypatch.setattr(sys, "stderr", stream)
        assert restore(str(folder), "-o", "out") == 3
        assert ("[####" in stream.getvalue()) == drawn
        assert "3 ok, 1 failed in" in stream.getvalue()
        assert "broken.jpg" in stream.getvalue().splitlines()[-2]


def test_pillows_limit_gives_way_to_ours(
    restore: Callable[..., int], photo: U8, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.fromarray(photo).save("a.tif")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    assert restore("a.tif", "-o", "out.png") == 0
    assert Image.MAX_IMAGE_PIXELS == 10


def test_models_are_listed_and_described(toy_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "list", "--json"]) == 0
    assert [model["name"] for model in json.loads(capsys.readouterr().out)] == i2sb_rt.models.names()
    assert main(["models"]) == 0
    listed = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in listed] == i2sb_rt.models.names()
    assert main(["models", "info", str(toy_path), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["i2sb.name"], facts["i2sb.interval"], facts["path"]) == ("toy", "100", str(toy_path))
    assert main(["models", "info", str(toy_path)]) == 0
    assert "interval        100" in capsys.readouterr().out
    assert main(["models", "info", "unheard-of"]) == 5


def test_help_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    assert "restore" in capsys.readouterr().out
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == i2sb_rt.__version__
    assert main([]) == 2
    assert main(["unheard-of"]) == 2


def good_command(subparsers: Any) -> None:
    parser = subparsers.add_parser("good", help="a command from elsewhere")
    parser.add_argument("number", type=int)
    parser.set_defaults(run=lambda options: options.number)


def test_a_broken_plugin_does_not_break_the_others(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Good(EntryPoint):
        def load(self) -> Any:
            return good_command

    found = [Good("good", "x:y", "i2sb_rt.commands"), EntryPoint("bad", "no_such_module:f", "i2sb_rt.commands")]
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: found)
    assert main(["good", "17"]) == 17
    assert main(["bad", "--any", "thing"]) == 1
    assert "no_such_module" in capsys.readouterr().err
    assert main(["--help"]) == 0
    help_text = capsys.readouterr().out
    assert "a command from elsewhere" in help_text
    assert "not available" in help_text
    assert main(["models"]) == 0


def test_the_page_tells_every_option() -> None:
    page = (Path(__file__).parents[2] / "docs" / "cli.md").read_text()
    parser = argparse.ArgumentParser("i2sb-rt")
    restore_parser.add_parser(parser.add_subparsers())
    help_text = io.StringIO()
    with contextlib.redirect_stdout(help_text), contextlib.suppress(SystemExit):
        parser.parse_args(["restore", "--help"])
    options = set(re.findall(r"(?<!\S)--?[a-z][a-z-]*", help_text.getvalue())) - {"-h", "--help", "-"}
    assert len(options) > 20
    told = set(re.findall(r"--?[a-z][a-z-]*", page))
    assert options <= told


def test_the_command_line_runs_in_a_thread_too(restore: Callable[..., int], photo: U8) -> None:
    Image.fromarray(photo).save("a.png")
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(restore("a.png", "-o", "out.png")))
    thread.start()
    thread.join()
    assert codes == [0]
