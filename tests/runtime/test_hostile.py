"""The command line among unusual images, bad files, bad names and bad networks."""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hostile_files import (
    ALPHA,
    GREY,
    RGB,
    SRGB,
    U8,
    adam7,
    encoded,
    oriented,
    refused_files,
    sound_files,
    tiff,
    tiff_tags,
)
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from i2sb_rt.cli import main
from i2sb_rt.model_file import ModelInfo


@pytest.fixture(autouse=True)
def _inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def still(make_model: Callable[..., Path]) -> str:
    """A model that changes no pixel by more than one level."""
    return str(make_model(scale=0.0, sampler="ode", nfe=1))


def files() -> list[str]:
    return sorted(path.as_posix() for path in Path().rglob("*") if not path.is_dir())


def restored(name: str) -> tuple[U8, U8 | None, bytes | None]:
    """The colour, the transparency and the profile of an output."""
    with Image.open(name) as image:
        pixels, icc = np.asarray(image).astype(np.uint8), image.info.get("icc_profile")
        bands = image.getbands()
    if bands[-1] != "A":
        return pixels, None, icc
    return (pixels[..., 0] if len(bands) == 2 else pixels[..., :3]), pixels[..., -1], icc


def test_every_kind_is_restored_with_its_own_pixels(still: str) -> None:
    inks = np.stack([255 - RGB[..., 0], RGB[..., 1], 255 - RGB[..., 2], RGB[..., 0] // 3], axis=-1)
    colours, indices = np.array([[250, 0, 5], [0, 240, 9], [7, 8, 230]], np.uint8), (GREY // 7 % 3).astype(np.uint8)
    palette = Image.fromarray(indices, "P")
    palette.putpalette(colours.tobytes())
    levels, bits = np.array([255, 0, 128], np.uint8), np.where(GREY > 99, 255, 0).astype(np.uint8)
    printed = ((255 - inks[..., :3].astype(int)) * (255 - inks[..., 3:].astype(int)) / 255).round().astype(np.uint8)
    smooth, cmyk = Image.fromarray(RGB), Image.fromarray(inks, "CMYK")
    one_bit = Image.fromarray(bits).convert("1")
    # What each file holds, how far lossy coding may take it, and what is to be seen.
    cases: dict[str, tuple[bytes, int, U8, U8 | None]] = {
        "palette.png": (encoded(palette, "PNG"), 1, colours[indices], None),
        "clear.png": (encoded(palette, "PNG", transparency=levels.tobytes()), 1, colours[indices], levels[indices]),
        "palette.tif": (encoded(palette, "TIFF", compression="tiff_lzw"), 1, colours[indices], None),
        "cmyk.jpg": (encoded(cmyk, "JPEG", quality=98), 9, printed, None),
        "cmyk.tif": (encoded(cmyk, "TIFF"), 2, printed, None),
        "grey.jpg": (encoded(Image.fromarray(GREY), "JPEG", quality=98), 5, GREY, None),
        "rgb.jpg": (encoded(smooth, "JPEG", quality=98, subsampling=0), 7, RGB, None),
        "progressive.jpg": (encoded(smooth, "JPEG", quality=98, subsampling=0, progressive=True), 7, RGB, None),
        "grey.png": (adam7(GREY), 1, GREY, None),
        "grey_alpha.tif": (encoded(Image.fromarray(np.dstack([GREY, ALPHA])), "TIFF"), 1, GREY, ALPHA),
        "rgba.webp": (
            encoded(Image.fromarray(np.dstack([RGB, ALPHA])), "WEBP", lossless=True, exact=True),
            1,
            RGB,
            ALPHA,
        ),
        "bits.png": (encoded(one_bit, "PNG"), 1, bits, None),
        "bits.tif": (encoded(one_bit, "TIFF", compression="group4"), 1, bits, None),
        "motorola.tif": (tiff(tiff_tags(23, 19), RGB.tobytes(), order=">"), 1, RGB, None),
        "Ωμέγα 写真 🙂.png": (encoded(smooth, "PNG"), 1, RGB, None),
    }
    for width, height in ((1, 1), (1, 17), (23, 1)):
        part = np.ascontiguousarray(RGB[:height, :width])
        cases[f"{width}x{height}.png"] = (encoded(Image.fromarray(part), "PNG"), 1, part, None)
    shown = [RGB, RGB[:, ::-1], RGB[::-1, ::-1], RGB[::-1], *([RGB.transpose(1, 0, 2)] * 4)]
    shown[5:] = [shown[4][:, ::-1], shown[4][::-1, ::-1], shown[4][::-1]]
    for value, upright in enumerate(shown, start=1):
        turned = encoded(smooth, "TIFF" if value % 2 else "PNG", exif=oriented(value), icc_profile=SRGB)
        cases[f"turned{value}.{'tif' if value % 2 else 'png'}"] = (turned, 1, upright, None)
    Path("in").mkdir()
    for name, case in cases.items():
        Path("in", name).write_bytes(case[0])
    assert b"Adobe" in cases["cmyk.jpg"][0]  # whose inks are stored the other way round
    assert main(["restore", "-n", still, "in", "-o", "out", "--precision", "fp32", "-q"]) == 0
    for name, (_, tolerance, wanted, clear) in cases.items():
        twins = sum(other.split(".")[0] == name.split(".")[0] for other in cases) > 1
        colour, alpha, icc = restored(f"out/{name}.png" if twins else f"out/{Path(name).stem}.png")
        assert colour.shape == wanted.shape, name
        assert np.abs(colour.astype(int) - wanted).max() <= tolerance, name
        assert (alpha is None) == (clear is None), name
        assert clear is None or np.array_equal(alpha, clear), name
        assert (icc == SRGB) == name.startswith("turned"), name


def test_bad_files_are_told_one_by_one_and_leave_nothing(still: str, capfd: pytest.CaptureFixture[str]) -> None:
    Path("in/folder.png").mkdir(parents=True)
    sound = sound_files()
    wanted = {f"in/{name}": "image_format" for name in refused_files()}
    for name, data in {
        **refused_files(),
        "empty.png": b"",
        "cut.webp": sound["lossy.webp"][:300],
        "cut.tif": sound["lzw.tif"][:300],
        "noise.jpg": b"no image at all",
        "other.png": sound["rgb.jpg"],
        "large.jpg": encoded(Image.new("L", (2000, 2000)), "JPEG"),
        "gif.png": encoded(Image.fromarray(GREY), "GIF"),
        "name\n\x1b[31mred.png": b"",
    }.items():
        Path("in", name).write_bytes(data)
    os.mkfifo("in/pipe.tif")
    Path("in/gone.jpg").symlink_to("nowhere")
    Path("in/circle.jpg").symlink_to("circle.jpg")
    Path("in/zero.png").symlink_to("/dev/zero")
    broken = ("empty.png", "cut.webp", "cut.tif", "name\n\x1b[31mred.png")
    wanted |= dict.fromkeys((f"in/{name}" for name in broken), "image_broken")
    wanted |= dict.fromkeys((f"in/{name}" for name in ("noise.jpg", "other.png", "gif.png")), "image_format")
    wanted |= {"in/large.jpg": "image_too_large"}
    wanted |= dict.fromkeys((f"in/{n}" for n in ("pipe.tif", "gone.jpg", "circle.jpg", "zero.png")), "image_missing")
    before = files()
    assert main(["restore", "-n", still, "in", "in/folder.png/x.png", "-o", "out", "--json", "--max-pixels", "1M"]) == 4
    out, err = capfd.readouterr()
    *images, _ = [json.loads(line) for line in out.splitlines()]
    wanted["in/folder.png/x.png"] = "image_missing"
    assert {image["in"]: image["error"]["code"] for image in images} == wanted
    assert all(image["error"]["message"].startswith(image["in"]) for image in images)
    assert files() == before
    assert not Path("out").exists()
    assert len(err.splitlines()) == 2 * len(wanted) + 1
    assert "\x1b" not in err


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read and write everything")
def test_what_may_not_be_read_or_written(still: str, capfd: pytest.CaptureFixture[str]) -> None:
    for folder in ("in/closed", "locked"):
        Path(folder).mkdir(parents=True)
    for name in ("in/a.png", "in/secret.png", "in/closed/b.png"):
        Path(name).write_bytes(encoded(Image.fromarray(RGB), "PNG"))
    Path("in/secret.png").chmod(0)
    Path("in/closed").chmod(0)
    Path("locked").chmod(0o500)
    try:
        assert main(["restore", "-n", still, "in", "-o", "out"]) == 3
        assert main(["restore", "-n", still, "in/a.png", "-o", "locked/a.png"]) == 4
        assert main(["restore", "-n", still, "in/closed/b.png", "-o", "out"]) == 4
        assert files() == ["in/a.png", "in/secret.png", "out/a.png"]
    finally:
        Path("in/closed").chmod(0o700)
    err = capfd.readouterr().err
    for path in ("in/secret.png", "in/closed", "in/closed/b.png"):
        assert f"i2sb-rt: {path} cannot be read: Permission denied" in err
    assert "i2sb-rt: locked/a.png cannot be written: Permission denied" in err


@pytest.mark.parametrize(
    ("output", "words"),
    [
        ("a.png/x.png", "a.png is not a folder"),
        ("a.png/x/y.png", "Not a directory"),
        ("circle/x.png", "circle is not a folder"),
        ("n" * 252 + ".png", "File name too long"),
        ("n" * 300 + "/x.png", "File name too long"),
        ("/proc/x.png", "cannot be written"),
    ],
)
def test_an_output_that_cannot_be(still: str, output: str, words: str, capfd: pytest.CaptureFixture[str]) -> None:
    Path("a.png").write_bytes(encoded(Image.fromarray(RGB), "PNG"))
    Path("circle").symlink_to("circle")
    for more in ([], ["--skip-existing"]):
        assert main(["restore", "-n", still, "a.png", "-o", output, *more]) == 4
        err = capfd.readouterr().err
        assert words in err
        assert len(err.splitlines()) == 1
    assert files() == ["a.png", "circle"]


def test_an_output_of_the_longest_name_and_one_that_was_a_circle(still: str) -> None:
    Path("a.png").write_bytes(encoded(Image.fromarray(RGB), "PNG"))
    Path("circle.png").symlink_to("circle.png")
    for output in ("n" * 251 + ".png", "circle.png"):
        assert main(["restore", "-n", still, "a.png", "-o", output]) == 0
        assert restored(output)[0].shape == RGB.shape
    assert main(["restore", "-n", "m" * 300, "a.png", "-o", "x.png"]) == 5


def test_a_file_that_goes_while_others_are_restored(still: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "abc":
        Path(f"{name}.png").write_bytes(encoded(Image.fromarray(RGB), "PNG"))
    from i2sb_rt.cli import restore_run

    plan = restore_run.plan_jobs

    def late(*arguments: Any) -> Any:
        jobs = plan(*arguments)
        Path("b.png").unlink()
        Path("c.png").write_bytes(Path("c.png").read_bytes()[:90])
        return jobs

    monkeypatch.setattr(restore_run, "plan_jobs", late)
    assert main(["restore", "-n", still, "a.png", "b.png", "c.png", "-o", "out"]) == 3
    assert files() == ["a.png", "c.png", "out/a.png"]


def faulty_model(path: Path, info: ModelInfo, brightness: float = 2.0, first: float = 0.0, last: float = 999.0) -> str:
    """Write out = 0, but NaN where the mean of x is over `brightness`, and where t is not in first .. last."""
    shape: list[str | int | None] = ["B", 3, "H", "W"]
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["mean"], axes=[1, 2, 3], keepdims=1),
        helper.make_node("Sub", ["brightness", "mean"], ["dark"]),
        helper.make_node("Reshape", ["t", "column"], ["time"]),
        helper.make_node("Sub", ["time", "first"], ["after"]),
        helper.make_node("Sub", ["last", "time"], ["before"]),
        helper.make_node("Min", ["dark", "after", "before"], ["sound"]),
        helper.make_node("Sqrt", ["sound"], ["root"]),
        helper.make_node("Mul", ["root", "zero"], ["fault"]),
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("ConstantOfShape", ["shape"], ["zeros"]),
        helper.make_node("Add", ["zeros", "fault"], ["out"]),
    ]
    constants = {"brightness": brightness, "first": first, "last": last, "zero": 0.0}
    values = [numpy_helper.from_array(np.array(value, np.float32), name) for name, value in constants.items()]
    values.append(numpy_helper.from_array(np.array([-1, 1, 1, 1], np.int64), "column"))
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, dims) for name, dims in (("x", shape), ("t", ["B"]))
    ]
    outputs = [helper.make_tensor_value_info("out", TensorProto.FLOAT, shape)]
    graph = helper.make_graph(nodes, "faulty", inputs, outputs, values)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    helper.set_model_props(model, dict(info.to_metadata()))
    onnx.save(model, path)
    return str(path)


@pytest.mark.parametrize("sampler", ["sde", "ode"])
@pytest.mark.parametrize("clip", [True, False])
def test_a_network_that_gives_nan_writes_nothing(
    toy_info: ModelInfo, sampler: str, clip: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    bright = np.full((64, 160, 3), 30, np.uint8)
    Image.fromarray(bright).save("dark.png")
    bright[:, 120:] = 250  # only the last of the tiles is over the mean
    Image.fromarray(bright).save("bright.png")
    info = replace(toy_info, clip=clip)
    models = {
        "sound": faulty_model(Path("sound.onnx"), info),
        "tile": faulty_model(Path("tile.onnx"), info, brightness=0.0),
        "last": faulty_model(Path("last.onnx"), info, first=50.0),
        "first": faulty_model(Path("first.onnx"), info, last=90.0),
    }
    outcomes = {
        "sound": ("ok", "ok"),
        "tile": ("nonfinite", "ok"),
        "last": ("nonfinite",) * 2,
        "first": ("nonfinite",) * 2,
    }
    before = files()
    for name, outcome in outcomes.items():
        options = ["--sampler", sampler, "--nfe", "4", "--precision", "fp32", "-t", "64", "--json"]
        code = main(["restore", "-n", models[name], "bright.png", "dark.png", "-o", f"out_{name}", *options])
        assert code == {"sound": 0, "tile": 3}.get(name, 4)
        out, err = capfd.readouterr()
        images = [json.loads(line) for line in out.splitlines()][:2]
        assert tuple(image["error"]["code"] if "error" in image else "ok" for image in images) == outcome
        assert err.count("not finite") == outcome.count("nonfinite")
    written = ["out_sound/bright.png", "out_sound/dark.png", "out_tile/dark.png"]
    assert files() == sorted([*before, *written])
