"""i2sb-rt eval: its figures against the operators, the Restorer and scikit-image by hand; what it tells and refuses."""

import argparse
import io
import json
import os
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from i2sb_rt import Restorer, load, operators
from i2sb_rt.cli import eval as eval_parser
from i2sb_rt.cli import main
from i2sb_rt.cli.report import Report

U8 = NDArray[np.uint8]
MakeModel = Callable[..., Path]
Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, photo: U8) -> None:
    """Three clean pictures in a tree, in the order in which they are taken: RGB, RGB in a folder, grey."""
    monkeypatch.chdir(tmp_path)
    for name, picture in {"a.png": photo, "sub/b é.png": photo[::-1], "sub/c.tif": photo[..., 0]}.items():
        Path("clean", name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(Path("clean", name))


@pytest.fixture
def pictures(photo: U8) -> list[U8]:
    """The clean pictures, as they are scored."""
    return [photo, photo[::-1], np.repeat(photo[..., :1], 3, axis=2)]


def evaluate(model: Path, *arguments: str) -> int:
    return main(["eval", "-n", str(model), "--images", "clean", "--precision", "fp32", *arguments])


def rows(capsys: Capture) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert set(found[-1]) == {"summary"}
    return found[:-1]


def bytes_of(x: NDArray[np.float32]) -> U8:
    return np.rint((x[0].transpose(1, 2, 0).clip(-1, 1) + 1) * 127.5).astype(np.uint8)


def damaged(picture: U8, task: str, seed: int = 0) -> U8:
    """What the operator makes of an RGB picture, in bytes; a grey one stays grey."""
    x = (picture.astype(np.float32) / np.float32(127.5) - 1).transpose(2, 0, 1)[None]
    out = bytes_of(operators.get(task)(x, seed))
    grey = (picture[..., 0] == picture[..., 1]).all()
    return np.repeat(np.asarray(Image.fromarray(out).convert("L"))[..., None], 3, axis=2) if grey else out


def psnr(clean: U8, picture: U8) -> float:
    return float(peak_signal_noise_ratio(clean, picture, data_range=255))


def ssim(clean: U8, picture: U8) -> float:
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 255}
    return float(structural_similarity(clean, picture, channel_axis=2, **options))


def check(row: dict[str, Any], clean: list[U8], before: list[U8], after: list[U8]) -> None:
    """Hold a row against the pictures that it should be made of."""
    for name, metric in (("psnr", psnr), ("ssim", ssim)):
        for when, seen in (("before", before), ("after", after)):
            values = [metric(c, s) for c, s in zip(clean, seen, strict=True)]
            assert row[f"{name}_{when}"] == pytest.approx(np.mean(values), abs=1e-9)
            assert [each[f"{name}_{when}"] for each in row["each"]] == pytest.approx(values, abs=1e-9)
    assert row["psnr_gain"] == pytest.approx(row["psnr_after"] - row["psnr_before"])
    harmed = [psnr(c, a) < psnr(c, b) for c, b, a in zip(clean, before, after, strict=True)]
    assert (row["harmed"], row["pictures"]) == (sum(harmed), len(clean))


def restored(restorer: Restorer, picture: U8, **options: Any) -> U8:
    grey = (picture[..., 0] == picture[..., 1]).all()
    if grey:
        return np.repeat(restorer.restore(picture[..., 0], **options)[..., None], 3, axis=2)
    return np.asarray(restorer.restore(picture, **options))


def test_rows_are_what_hand_work_gives(toy: Restorer, pictures: list[U8], capsys: Capture) -> None:
    tasks, samplers, calls = ["jpeg-10-exact", "blur-gauss"], ["sde", "ode"], [1, 2, 3]
    arguments = ("--task", "jpeg-10-exact,blur-gauss", "--nfe", "1,2", "--nfe", "3,1", "--sampler", "sde, ode")
    assert evaluate(toy.path, *arguments, "--seed", "5", "--json") == 0
    found = rows(capsys)
    ways = [(task, sampler, nfe) for task in tasks for sampler in samplers for nfe in calls]
    assert [(row["task"], row["sampler"], row["nfe"]) for row in found] == ways
    for row, (task, sampler, nfe) in zip(found, ways, strict=True):
        before = [damaged(picture, task, 5 + k) for k, picture in enumerate(pictures)]
        after = [restored(toy, b, nfe=nfe, sampler=sampler, seed=5 + k) for k, b in enumerate(before)]
        check(row, pictures, before, after)
        assert [each["in"] for each in row["each"]] == ["clean/a.png", "clean/sub/b é.png", "clean/sub/c.tif"]
        assert (row["schema"], row["model"], row["seed"], row["precision"]) == (1, "toy", 5, "fp32")
        assert len(row["model_sha256"]) == 64


def test_the_defaults_are_the_models_own_and_repeat(toy: Restorer, capsys: Capture) -> None:
    assert evaluate(toy.path, "--task", "jpeg-20", "--json", "--jobs", "1") == 0
    first = rows(capsys)
    assert evaluate(toy.path, "--task", "jpeg-20", "--task", "jpeg-20", "--json", "--jobs", "3") == 0
    assert rows(capsys) == first
    assert [(row["sampler"], row["nfe"]) for row in first] == [("sde", 2)]
    assert {key for key in first[0] if key.endswith("_after")} == {"psnr_after", "ssim_after"}


def test_options_reach_the_restorer(toy: Restorer, pictures: list[U8], capsys: Capture) -> None:
    arguments = ("--sampler", "dbim1", "--nfe", "3", "--eta", "0.4", "-t", "32", "--tile-overlap", "16")
    assert evaluate(toy.path, "--task", "jpeg-10", *arguments, "--limit", "1", "--threads", "1", "--json") == 0
    (row,) = rows(capsys)
    before = damaged(pictures[0], "jpeg-10")
    after = toy.restore(before, nfe=3, sampler="dbim1", eta=0.4, tile=32, overlap=16)
    check(row, pictures[:1], [before], [after])
    assert row["eta"] == 0.4


def test_holes_differ_and_are_filled(make_model: MakeModel, pictures: list[U8], capsys: Capture) -> None:
    model = load(make_model(task="inpaint-freeform"), precision="fp32")
    assert evaluate(model.path, "--task", "inpaint-freeform2030", "--seed", "7", "--limit", "2", "--json") == 0
    (row,) = rows(capsys)
    masks = [operators.get("inpaint-freeform2030").mask(37, 53, 7 + k) for k in range(2)]
    assert (masks[0] != masks[1]).any()
    before = [np.where(mask[..., None], np.uint8(128), c) for mask, c in zip(masks, pictures, strict=False)]
    after = [model.restore(b, seed=7 + k, mask=masks[k]) for k, b in enumerate(before)]
    check(row, pictures[:2], before, after)


def test_superresolution_with_models_of_both_kinds(
    make_model: MakeModel, toy: Restorer, pictures: list[U8], capsys: Capture
) -> None:
    cropped = [picture[:36, :52] for picture in pictures[:2]]
    before = [damaged(picture, "sr4x-bicubic") for picture in cropped]
    small = [picture[::4, ::4] for picture in before]
    larger = load(make_model(upscale=4, task="sr4x-bicubic"), precision="fp32")
    given = {larger: small, toy: before}
    for model, images in given.items():
        assert evaluate(model.path, "--task", "sr4x-bicubic,sr4x-pool", "--limit", "2", "--json", "--nfe", "1") == 0
        captured = capsys.readouterr()
        row = json.loads(captured.out.splitlines()[0])
        check(row, cropped, before, [model.restore(image, nfe=1, seed=k) for k, image in enumerate(images)])
        assert [(each["w"], each["h"]) for each in row["each"]] == [(52, 36)] * 2
        assert "2 of 2 pictures had their sides cropped to multiples of 4" in captured.err


def test_classical_methods_are_scored_beside_models(
    make_model: MakeModel, toy: Restorer, pictures: list[U8], capsys: Capture
) -> None:
    cropped = [picture[:36, :52] for picture in pictures[:2]]
    before = [damaged(picture, "sr4x-bicubic") for picture in cropped]
    lanczos = [np.asarray(Image.fromarray(b[::4, ::4]).resize((52, 36), Image.Resampling.LANCZOS)) for b in before]
    arguments = ("--baseline", "--limit", "2", "--json", "--nfe", "1", "--save", "out", "--plot", "f.png")
    for model in (toy.path, make_model(upscale=4, task="sr4x-bicubic")):
        assert evaluate(model, "--task", "sr4x-bicubic", *arguments) == 0
        first, second = rows(capsys)
        check(first, cropped, before, lanczos)
        assert [(row["sampler"], row["nfe"]) for row in (first, second)] == [("lanczos", 0), ("sde", 1)]
    assert evaluate(make_model(task="inpaint-freeform"), "--task", "inpaint-center", *arguments) == 0
    row, _ = rows(capsys)
    hole = np.asarray(operators.get("inpaint-center").mask(37, 53))
    before = [np.where(hole[..., None], np.uint8(128), picture) for picture in pictures[:2]]
    telea = [cv2.inpaint(b, hole.astype(np.uint8), 3, cv2.INPAINT_TELEA) for b in before]
    check(row, pictures[:2], before, telea)
    assert row["sampler"] == "telea"
    with Image.open("out/inpaint-center/telea/a.png") as saved:
        assert np.array_equal(np.asarray(saved)[~hole], pictures[0][~hole])
    assert evaluate(toy.path, "--task", "jpeg-10", *arguments) == 0
    assert len(rows(capsys)) == 1  # there is none for JPEG


def test_the_table_is_markdown(toy: Restorer, capsys: Capture) -> None:
    assert evaluate(toy.path, "--task", "jpeg-10,jpeg-40", "--nfe", "1", "--metrics", "psnr,sharpness") == 0
    out, err = capsys.readouterr()
    head, rule, *lines = out.splitlines()
    assert [cell.strip() for cell in head.strip("|").split("|")] == [
        *("task", "sampler", "NFE", "PSNR before", "after", "gain (dB)", "sharpness before", "after", "harmed, of 3")
    ]
    assert re.fullmatch(r"(\| -+:? )+\|", rule)
    assert len({len(line) for line in out.splitlines()}) == 1
    assert [line.split("|")[1].strip() for line in lines] == ["jpeg-10", "jpeg-40"]
    assert re.search(r" [+-]\d\.\d\d ", lines[0])
    assert "clean/a.png (53x37" in err
    assert "3 ok in" in err
    assert evaluate(toy.path, "--task", "jpeg-10", "--metrics", "ssim", "-q") == 0
    out, err = capsys.readouterr()
    assert "harmed" not in out
    assert err == ""


def test_equal_pictures_are_infinitely_close(make_model: MakeModel, capsys: Capture) -> None:
    # What stands in a hole before it is filled is this grey.
    Image.fromarray(np.full((16, 16, 3), 128, np.uint8)).save("clean/a.png")
    model = make_model(task="inpaint-test")
    assert evaluate(model, "--task", "inpaint-center", "--limit", "1", "--json") == 0
    (row,) = rows(capsys)
    assert row["psnr_before"] is row["psnr_gain"] is None
    assert row["harmed"] == 1
    assert evaluate(model, "--task", "inpaint-center", "--limit", "1") == 0
    assert "|         inf |" in capsys.readouterr().out


def test_pictures_are_saved_below_their_way(toy: Restorer, pictures: list[U8]) -> None:
    clean = sorted(Path("clean").rglob("*.*"))
    before = [path.read_bytes() for path in clean]
    arguments = ("--task", "jpeg-10-exact,blur-uni", "--nfe", "1,3", "--save", "clean/out", "-q")
    for _ in range(2):  # what was saved among the clean pictures is not taken for one
        assert evaluate(toy.path, *arguments) == 0
    saved = sorted(str(path.relative_to("clean/out")) for path in Path("clean/out").rglob("*.*"))
    names = ("a.png", "sub/b é.png", "sub/c.png")
    ways = [f"{task}/sde-{nfe}" for task in ("blur-uni", "jpeg-10-exact") for nfe in (1, 3)]
    assert saved == [f"{way}/{name}" for way in ways for name in names]
    with Image.open("clean/out/jpeg-10-exact/sde-3/sub/b é.png") as image:
        wanted = toy.restore(damaged(pictures[1], "jpeg-10-exact", 1), nfe=3, seed=1)
        np.testing.assert_array_equal(np.asarray(image), wanted)
    assert [path.read_bytes() for path in clean] == before


@pytest.mark.parametrize(("name", "start"), [("f.png", b"\x89PNG"), ("f.svg", b"<?xml"), ("new/f.pdf", b"%PDF")])
def test_curves_are_drawn(toy: Restorer, name: str, start: bytes) -> None:
    tasks = ("--task", "jpeg-10,jpeg-40", "--nfe", "1,2,20", "--sampler", "sde,ode")
    assert evaluate(toy.path, *tasks, "--limit", "1", "--plot", name, "-q") == 0
    assert Path(name).read_bytes().startswith(start)
    assert "matplotlib.pyplot" not in sys.modules
    if name.endswith("svg"):
        assert "jpeg-40, ode" in Path(name).read_text()


def test_pictures_that_fail_are_told_and_left_out(toy: Restorer, pictures: list[U8], capsys: Capture) -> None:
    Path("clean/aa.jpg").write_bytes(b"\xff\xd8\xff\xe0 nothing more")
    Image.fromarray(pictures[0][:9]).save("clean/ab.png")
    assert evaluate(toy.path, "--task", "jpeg-10", "--json") == 3
    out, err = capsys.readouterr()
    *failed, row, summary = (json.loads(line) for line in out.splitlines())
    assert [line["error"]["code"] for line in failed] == ["image_broken", "usage"]
    assert "clean/ab.png: the metric ssim needs sides of at least 11 pixels, not 53 x 9" in err
    seeds = (0, 3, 4)  # those that fail count
    before = [damaged(picture, "jpeg-10", seed) for picture, seed in zip(pictures, seeds, strict=True)]
    check(row, pictures, before, [restored(toy, b, seed=s) for b, s in zip(before, seeds, strict=True)])
    assert (summary["summary"]["ok"], summary["summary"]["failed"], summary["summary"]["exit_code"]) == (3, 2, 3)
    for path in Path("clean/sub").iterdir():
        path.unlink()
    Path("clean/a.png").unlink()
    assert evaluate(toy.path, "--task", "jpeg-10") == 4
    out, err = capsys.readouterr()
    assert out == ""
    assert "2 of 2 failed" in err


def test_a_signal_stops_after_the_picture_before(
    toy: Restorer, pictures: list[U8], capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Report.progress

    def stop_at_the_second(report: Report, name: str, fraction: float) -> None:
        if "b é" in name and fraction == 0:
            os.kill(os.getpid(), signal.SIGINT)
        real(report, name, fraction)

    monkeypatch.setattr(Report, "progress", stop_at_the_second)
    arguments = ("--task", "jpeg-10", "--nfe", "99", "--jobs", "1", "--save", "out", "--plot", "f.png")
    assert evaluate(toy.path, *arguments, "--json") == 130
    out, err = capsys.readouterr()
    row, summary = (json.loads(line) for line in out.splitlines())
    before = damaged(pictures[0], "jpeg-10")
    check(row, pictures[:1], [before], [toy.restore(before, nfe=99)])
    assert summary["summary"]["exit_code"] == 130
    assert "stopping" in err
    assert [str(path) for path in Path("out").rglob("*.*")] == ["out/jpeg-10/sde-99/a.png"]
    assert not Path("f.png").exists()


def test_a_bar_is_drawn_on_a_terminal(toy: Restorer, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stderr", stream := Terminal())
    assert evaluate(toy.path, "--task", "jpeg-10,jpeg-20", "--nfe", "1,3", "--jobs", "1") == 0
    assert "[####" in stream.getvalue()
    assert "2/3 clean/sub/c.tif" in stream.getvalue()
    assert capsys.readouterr().out.startswith("| task ")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--images", "none"], "--images none: there is no such folder"),
        (["--images", "clean/a.png"], "no such folder"),
        (["--images", "empty"], "there are no images in empty"),
        (["--task", "rain"], "no operator 'rain'; there are jpeg-QF"),
        (["--metrics", "psnr,vif"], "no metric 'vif'"),
        (["--metrics", "lpips"], "pip install 'i2sb-rt[perceptual]'"),
        (["--metrics", "fid", "--limit", "1"], "fid compares sets of pictures"),
        (["--sampler", "sde,euler"], "there are sde, ode, dbim1"),
        (["--nfe", "100"], "nfe must be from 1 to 99"),
        (["--nfe", "one"], "is not a list of numbers"),
        (["--eta", "0.5"], "eta is a choice of the samplers dbim1 and i3sb"),
        (["--seed", "-1"], "seed"),
        (["--limit", "0"], "--limit: '0' is not a whole number of at least 1"),
        (["--jobs", "0"], "--jobs: '0' is not a whole number of at least 1"),
        (["--plot", "f.jpg"], "one of .png, .svg, .pdf"),
        (["--plot", "clean/a.png"], "would lie among the pictures in clean"),
        (["--plot", "clean/z.png", "--limit", "1"], "would lie among the pictures in clean"),
        (["--save", "s", "--plot", "s/jpeg-10-exact/x.png"], "would lie among the pictures in s"),
        (["--save", "clean"], "among the clean ones"),
        (["--save", "."], "among the clean ones"),
        (["--save", "clean/a.png"], "is a file"),
        (["--task", "inpaint-center"], "fills no holes (its task is test), but inpaint-center makes some"),
        (["--task", "mixture:jpeg-5,inpaint-center"], "other members do not"),
        (["-n", "none.onnx"], "none.onnx"),
    ],
)
def test_mistakes_are_sentences(
    toy: Restorer, capsys: Capture, monkeypatch: pytest.MonkeyPatch, arguments: list[str], words: str
) -> None:
    monkeypatch.setitem(sys.modules, "torchmetrics", None)
    Path("empty").mkdir()
    before = sorted(Path().rglob("*"))
    tasks = [] if "--task" in arguments else ["--task", "jpeg-10"]
    assert evaluate(toy.path, *tasks, *arguments) in (2, 5)
    out, err = capsys.readouterr()
    assert out == ""
    assert words in err
    assert "Traceback" not in err
    assert sorted(Path().rglob("*")) == before


def test_models_refuse_tasks_of_another_kind(make_model: MakeModel, capsys: Capture) -> None:
    larger, hole = make_model(upscale=4, task="sr4x-pool"), make_model(task="inpaint-center")
    ode = make_model(ot_ode=True, sampler="ode")
    for model, arguments, words in (
        (larger, ["--task", "jpeg-10"], "enlarges 4 times, but jpeg-10 keeps their size"),
        (hole, ["--task", "jpeg-10"], "fills holes, but jpeg-10 makes none"),
        (ode, ["--task", "jpeg-10", "--sampler", "sde"], "so it takes the sampler ode, not sde"),
    ):
        assert evaluate(model, *arguments) == 2
        assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "tasks"),
    [
        (["jpeg-5,jpeg-10"], ["jpeg-5", "jpeg-10"]),
        (["mixture:jpeg-5,blur-uni", "sr4x-pool"], ["mixture:jpeg-5,blur-uni", "sr4x-pool"]),
        (["jpeg-5, mixture:jpeg-5,blur-uni"], ["jpeg-5", "mixture:jpeg-5,blur-uni"]),
        (["mixture,jpeg-5"], ["mixture", "jpeg-5"]),
    ],
)
def test_tasks_are_parted_at_commas(given: list[str], tasks: list[str]) -> None:
    parser = argparse.ArgumentParser("i2sb-rt")
    eval_parser.add_parser(parser.add_subparsers())
    options = parser.parse_args(["eval", "--images", "x", *(part for task in given for part in ("--task", task))])
    assert options.task == tasks


def test_the_page_tells_every_option() -> None:
    page = (Path(__file__).parents[2] / "docs" / "cli.md").read_text()
    section = page.split("## i2sb-rt eval", 1)[1].split("\n## ", 1)[0]
    subparsers = argparse.ArgumentParser("i2sb-rt").add_subparsers()
    eval_parser.add_parser(subparsers)
    actions = subparsers.choices["eval"]._actions
    options = {option for action in actions for option in action.option_strings} - {"-h", "--help"}
    assert len(options) > 20
    assert options <= set(re.findall(r"--?[a-z][a-z-]*", section))
