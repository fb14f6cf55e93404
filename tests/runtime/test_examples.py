"""The examples run as their first lines say, with a model of the kind that they ask for."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

EXAMPLES = Path(__file__).parents[2] / "examples"
MakeModel = Callable[..., Path]


def run(name: str, *arguments: object) -> str:
    command = [sys.executable, str(EXAMPLES / name), *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def small(tmp_path: Path) -> Path:
    with Image.open(EXAMPLES / "photo.jpg") as photo:
        photo.crop((0, 0, 96, 64)).save(tmp_path / "small.png")
    return tmp_path / "small.png"


@pytest.mark.parametrize("name", sorted(path.name for path in EXAMPLES.glob("*.py")))
def test_without_arguments_an_example_tells_its_usage(name: str) -> None:
    done = subprocess.run([sys.executable, str(EXAMPLES / name)], capture_output=True, text=True)
    assert done.returncode == 1
    assert f"python examples/{name}" in done.stderr
    assert "Traceback" not in done.stderr


def test_inpainting(make_model: MakeModel, small: Path, tmp_path: Path) -> None:
    model, target = make_model(task="inpaint"), tmp_path / "out.png"
    assert "pixels filled" in run("inpainting.py", model, small, target)
    mask = np.zeros((64, 96), np.uint8)
    mask[20:40, 30:50] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    assert "400 of 6144 pixels filled" in run("inpainting.py", model, small, target, tmp_path / "mask.png")
    with Image.open(small) as before, Image.open(target) as after:
        changed = (np.asarray(before) != np.asarray(after)).any(axis=2)
    assert changed.any()
    assert not changed[mask == 0].any()


def test_superresolution(make_model: MakeModel, small: Path, tmp_path: Path) -> None:
    model = make_model(task="sr4x-bicubic", upscale=4)
    assert "384x256" in run("superresolution.py", model, small, tmp_path / "out.png", "dbim2", 4)


def test_deblurring(make_model: MakeModel, small: Path, tmp_path: Path) -> None:
    assert "blurred and restored" in run("deblurring.py", make_model(), small, tmp_path / "out.png", "blur-uni-exact")
    with Image.open(tmp_path / "out.png") as sheet:
        assert sheet.size == (192, 64)


def test_the_default_blur_is_one_that_the_shipped_model_undoes(small: Path, tmp_path: Path) -> None:
    run("deblurring.py", "deblur", small, tmp_path / "out.png")
    with Image.open(small) as photo, Image.open(tmp_path / "out.png") as sheet:
        clean, both = np.asarray(photo.convert("RGB"), float), np.asarray(sheet, float)
    blurred, restored = (np.square(half - clean).mean() for half in (both[:, :96], both[:, 96:]))
    assert restored < 0.9 * blurred
    assert abs(both[:, 96:].mean() - clean.mean()) < 1
