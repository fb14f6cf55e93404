import argparse
import contextlib
import io
import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from picture_files import everything, pixels
from PIL import Image, ImageCms

from i2sb_rt import operators
from i2sb_rt.cli import degrade as degrade_parser
from i2sb_rt.cli import main

U8 = NDArray[np.uint8]


@pytest.fixture(autouse=True)
def _inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def degrade(*arguments: str) -> int:
    return main(["degrade", *arguments])


def damaged(photo: U8, task: str, seed: int = 0) -> U8:
    """What the operator makes of a photo, in bytes."""
    x = (photo.astype(np.float32) / np.float32(127.5) - 1).transpose(2, 0, 1)[None]
    y = operators.get(task)(x, seed)[0].transpose(1, 2, 0)
    return np.rint((y.clip(-1, 1) + 1) * 127.5).astype(np.uint8)


@pytest.mark.parametrize("task", ["jpeg-10", "jpeg-10-exact", "blur-gauss", "blur-uni-exact", "mixture"])
def test_damages_a_file(photo: U8, task: str) -> None:
    Image.fromarray(photo).save("é photo.png")
    assert degrade("é photo.png", "-o", "out.png", "--task", task) == 0
    np.testing.assert_array_equal(pixels("out.png"), damaged(photo, task))
    assert everything() == ["out.png", "é photo.png"]


def test_superresolution_writes_the_small_image(photo: U8) -> None:
    Image.fromarray(photo).save("a.png")
    assert degrade("a.png", "-o", "small.png", "--task", "sr4x-bicubic") == 0
    assert degrade("a.png", "-o", "full.png", "--task", "sr4x-bicubic", "--full-size") == 0
    small, full = pixels("small.png"), pixels("full.png")
    assert (small.shape, full.shape) == ((10, 14, 3), photo.shape)
    np.testing.assert_array_equal(full, damaged(photo, "sr4x-bicubic"))
    np.testing.assert_array_equal(small.repeat(4, axis=0).repeat(4, axis=1)[:37, :53], full)


@pytest.mark.parametrize("task", ["inpaint-center", "inpaint-freeform2030"])
def test_masks_are_white_in_the_hole(photo: U8, task: str) -> None:
    Image.fromarray(photo).save("a.png")
    assert degrade("a.png", "-o", "out.png", "--task", task, "--seed", "3", "--mask-out", "mask.png") == 0
    mask, out = pixels("mask.png"), pixels("out.png")
    hole = operators.get(task).mask(37, 53, 3)
    assert hole is not None
    np.testing.assert_array_equal(mask, np.where(hole, 255, 0))
    np.testing.assert_array_equal(out, np.where(hole[..., None], 128, photo))


def test_masks_of_a_folder_lie_as_their_images_do(folder: Path) -> None:
    arguments = (str(folder), "-o", "out", "--task", "inpaint-freeform1020", "--vary-seed", "--seed", "5", "-q")
    assert degrade(*arguments, "--mask-out", "masks") == 3
    made = ["a.png", "sub/b.png", "sub/c é.png"]
    assert everything()[4:] == [f"{place}/{name}" for place in ("masks", "out") for name in made]
    for number, name in ((0, "a.png"), (2, "sub/b.png"), (3, "sub/c é.png")):
        hole = operators.get("inpaint-freeform1020").mask(37, 53, 5 + number)
        np.testing.assert_array_equal(pixels(f"masks/{name}") == 255, hole)
        assert (pixels(f"out/{name}")[hole] == 128).all()
    assert degrade(*arguments, "--skip-existing") == 3


def test_an_image_without_its_mask_is_not_skipped(photo: U8) -> None:
    Image.fromarray(photo).save("a.png")
    arguments = ("a.png", "-o", "out.png", "--task", "inpaint-center", "--skip-existing")
    assert degrade(*arguments) == 0
    assert degrade(*arguments, "--mask-out", "mask.png") == 0
    assert pixels("mask.png").shape == (37, 53)
    Path("out.png").write_bytes(b"as it is")
    assert degrade(*arguments, "--mask-out", "mask.png") == 0
    assert Path("out.png").read_bytes() == b"as it is"


def test_masks_in_the_input_folder_are_no_inputs(photo: U8) -> None:
    Path("in").mkdir()
    Image.fromarray(photo).save("in/a.png")
    arguments = ("in", "-o", "in/out", "--task", "inpaint-center", "--mask-out", "in/masks", "-q")
    for more in ((), ("--overwrite",)):  # what lies there the second time could be a photo
        assert degrade(*arguments, *more) == 0
        assert everything() == ["in/a.png", "in/masks/a.png", "in/out/a.png"]


def test_without_vary_seed_every_image_has_the_same_mask(folder: Path) -> None:
    assert degrade(str(folder), "-o", "out", "--task", "inpaint-freeform1020", "--mask-out", "masks", "-q") == 3
    np.testing.assert_array_equal(pixels("masks/a.png"), pixels("masks/sub/b.png"))


def test_masks_do_not_replace_pictures(photo: U8, capsys: pytest.CaptureFixture[str]) -> None:
    Path("in/sub").mkdir(parents=True)
    for name in ("in/a.png", "in/sub/a.png"):
        Image.fromarray(photo).save(name)
    command = ["in", "-o", "out", "--task", "inpaint-center", "--mask-out", "in/sub"]
    assert degrade(*command) == 2
    assert "in/sub/a.png is an input and would be replaced" in capsys.readouterr().err
    np.testing.assert_array_equal(pixels("in/sub/a.png"), photo)
    assert not Path("out").exists()
    assert degrade(*command, "--overwrite", "-q") == 0
    assert set(np.unique(pixels("in/sub/a.png"))) == {0, 255}


@pytest.mark.parametrize("task", ["jpeg-10", "sr4x-pool", "inpaint-center"])
def test_grey_transparency_and_profile_are_kept(photo: U8, task: str) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    alpha = np.tile(np.arange(53, dtype=np.uint8) * 4, (37, 1))
    Image.fromarray(photo[..., 0]).save("grey.png", icc_profile=profile)
    Image.fromarray(np.dstack([photo, alpha])).save("clear.png")
    assert degrade("grey.png", "clear.png", "-o", "out", "--task", task) == 0
    with Image.open("out/grey.png") as grey, Image.open("out/clear.png") as clear:
        assert (grey.mode, clear.mode) == ("L", "RGBA")
        assert grey.info["icc_profile"] == profile
        kept = np.asarray(clear)[..., 3]
    if task == "sr4x-pool":
        np.testing.assert_allclose(kept[:9, :13], alpha[:36, :52].reshape(9, 4, 13, 4).mean((1, 3)), atol=0.5)
    else:
        np.testing.assert_array_equal(kept, alpha)
    three = np.repeat(photo[..., :1], 3, axis=2)
    if task == "jpeg-10":
        colour = damaged(three, task)
        np.testing.assert_array_equal(pixels("out/grey.png"), np.asarray(Image.fromarray(colour).convert("L")))


def test_streams(photo: U8, monkeypatch: pytest.MonkeyPatch) -> None:
    class Stream:
        def __init__(self, data: bytes = b"") -> None:
            self.buffer = io.BytesIO(data)

        def flush(self) -> None:
            pass

    source, target = io.BytesIO(), Stream()
    Image.fromarray(photo).save(source, "PNG")
    monkeypatch.setattr(sys, "stdin", Stream(source.getvalue()))
    monkeypatch.setattr(sys, "stdout", target)
    assert degrade("-", "-o", "-", "--task", "inpaint-center", "--mask-out", "m.png") == 0
    assert np.asarray(Image.open(target.buffer)).shape == photo.shape
    assert pixels("m.png").shape == (37, 53)


def test_an_empty_standard_input_is_told_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("empty").touch()
    with Path("empty").open() as file:
        monkeypatch.setattr(sys, "stdin", file)
        assert degrade("-", "-o", "out.png", "--task", "jpeg-10") == 4
    assert capsys.readouterr().err == "i2sb-rt: standard input is empty\n"


def test_json_tells_each_image_and_the_sum(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("out").mkdir()
    Path("out/a.png").touch()
    arguments = (str(folder), "-o", "out", "--task", "sr4x-pool", "--vary-seed", "--json", "--skip-existing")
    assert degrade(*arguments, "--jobs", "3") == 3
    *images, last = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    found: dict[str, dict[str, Any]] = {image["in"]: image for image in images}
    assert [image["status"] for image in images] == ["skipped", "failed", "ok", "ok"]
    done = found["in/sub/b.png"]
    wanted = {"task": "sr4x-pool", "seed": 2, "w": 53, "h": 37, "out_w": 14, "out_h": 10, "schema": 1}
    assert {key: done[key] for key in wanted} == wanted
    assert set(done["ms"]) == {"decode", "degrade", "encode", "total"}
    assert found["in/broken.jpg"]["error"]["code"] == "image_broken"
    summary = last["summary"]
    assert (summary["ok"], summary["skipped"], summary["failed"]) == (2, 1, 1)


def test_the_summary_is_told_once(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert degrade(str(folder), "-o", "out", "--task", "jpeg-5", "--fail-fast", "--jobs", "1") == 3
    assert capsys.readouterr().err.count("1 ok, 1 failed, 2 not done in") == 1
    assert [path for path in everything() if path.startswith("out")] == ["out/a.png"]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["a.png", "-o", "x.png"], 2, "--task"),
        (["-o", "x.png", "--task", "jpeg-10"], 2, "no input"),
        (["a.png", "-o", "x.png", "--task", "rain"], 2, "jpeg-QF"),
        (["a.png", "-o", "a.png", "--task", "jpeg-10"], 2, "--overwrite"),
        (["a.png", "-o", "-", "--json", "--task", "jpeg-10"], 2, "--json"),
        (["a.png", "-o", "x.png", "--task", "mixture", "--seed", "-1"], 2, "seed"),
        (["a.png", "-o", "x.png", "--task", "jpeg-10", "--jobs", "0"], 2, "--jobs"),
        (["a.png", "-o", "x.png", "--task", "jpeg-10", "--full-size"], 2, "jpeg-10 keeps the size"),
        (["a.png", "-o", "x.png", "--task", "jpeg-10", "--mask-out", "m.png"], 2, "makes no holes"),
        (["a.png", "-o", "x.png", "--task", "inpaint-center", "--mask-out", "x.png"], 2, "replace an output"),
        (["a.png", "-o", "x.png", "--task", "inpaint-center", "--mask-out", "a.png"], 2, "a.png"),
        (["a.png", "-o", "x.png", "--task", "inpaint-center", "--mask-out", "m.jpg"], 2, ".png"),
        (["a.png", "-o", "x.png", "--task", "inpaint-center", "--mask-out", "-"], 2, ".png"),
        (["a.png", "-o", "out", "--task", "inpaint-center", "--mask-out", "out"], 2, "replace an output"),
        (["tiny.png", "-o", "x.png", "--task", "inpaint-freeform1020"], 2, "at least 8"),
        (["a.png", "-o", "x.png", "--task", "jpeg-10", "--max-pixels", "1k"], 4, "1961 pixels"),
        (["gone.png", "-o", "x.png", "--task", "jpeg-10"], 4, "gone.png"),
    ],
)
def test_exit_codes(photo: U8, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, words: str) -> None:
    Image.fromarray(photo).save("a.png")
    Image.fromarray(photo[:5, :5]).save("tiny.png")
    before = everything()
    assert degrade(*arguments) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert words in err
    assert "Traceback" not in err
    assert everything() == before


def test_the_page_tells_every_option_and_every_operator() -> None:
    docs = Path(__file__).parents[2] / "docs"
    section = (docs / "cli.md").read_text().split("## i2sb-rt degrade", 1)[1].split("\n## ", 1)[0]
    parser = argparse.ArgumentParser("i2sb-rt")
    degrade_parser.add_parser(parser.add_subparsers())
    help_text = io.StringIO()
    with contextlib.redirect_stdout(help_text), contextlib.suppress(SystemExit):
        parser.parse_args(["degrade", "--help"])
    options = set(re.findall(r"(?<!\S)--?[a-z][a-z-]*", help_text.getvalue())) - {"-h", "--help", "-"}
    assert len(options) > 10
    assert options <= set(re.findall(r"--?[a-z][a-z-]*", section))
    page = (docs / "operators.md").read_text()
    assert all(f"`{name}`" in page for name in operators.NAMES)
