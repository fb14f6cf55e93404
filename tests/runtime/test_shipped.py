"""The models that come with the package, on the photo that comes with it."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from i2sb_rt import load, models, operators
from i2sb_rt.evaluation.baselines import lanczos, telea
from i2sb_rt.evaluation.metrics import psnr
from i2sb_rt.operators.base import from_bytes, to_bytes
from i2sb_rt.operators.jpeg import compress

ROOT = Path(__file__).parents[2]
PHOTO = ROOT / "examples" / "photo.jpg"


@pytest.mark.parametrize("name", models.names())
def test_every_shipped_model_restores_and_has_a_card(name: str) -> None:
    restorer = load(name)
    assert restorer.info.name == name
    with Image.open(PHOTO) as image:
        photo = image.convert("RGB").crop((0, 0, 320, 240))
    hole = np.asarray(operators.get("inpaint-freeform1020").mask(240, 320)) if restorer.info.fills_holes else None
    restored = np.asarray(restorer.restore(photo, mask=hole))
    upscale = restorer.info.upscale
    given = np.asarray(photo).repeat(upscale, axis=0).repeat(upscale, axis=1)
    assert restored.shape == given.shape
    change = np.abs(restored.astype(float) - given)
    assert 0.1 < change.mean() < 20
    assert models.find(name).with_suffix(".md").is_file()
    assert models.find(name).stat().st_size < 8 * 2**20


@pytest.mark.parametrize(("quality", "gain"), [(5, 0.5), (10, 0.8), (20, 0.6), (40, 0.3)])
def test_jpeg_improves_a_photo_it_never_saw(quality: int, gain: float) -> None:
    clean = np.asarray(Image.open(ROOT / "tests" / "data" / "dog.png"))
    damaged = compress(clean, quality)
    assert psnr(clean, load("jpeg").restore(damaged)) - psnr(clean, damaged) > gain


def test_sr4x_enlarges_a_photo_it_never_saw_better_than_lanczos() -> None:
    clean = np.asarray(Image.open(ROOT / "tests" / "data" / "dog.png"))
    height, width = (side // 4 * 4 for side in clean.shape[:2])
    clean = clean[:height, :width]
    small = to_bytes(operators.downsample("sr4x-bicubic")(from_bytes(clean)[None])[0])
    assert psnr(clean, load("sr4x").restore(small)) - psnr(clean, lanczos(small, 4)) > 0.5


@pytest.mark.parametrize(("task", "gain"), [("gaussian-2+noise-0.01", 1.5), ("blur-uni-exact", 2.0)])
def test_deblur_sharpens_a_photo_it_never_saw(task: str, gain: float) -> None:
    clean = np.asarray(Image.open(ROOT / "tests" / "data" / "dog.png"))
    blurred = to_bytes(operators.get(task)(from_bytes(clean)[None])[0])
    assert psnr(clean, load("deblur").restore(blurred)) - psnr(clean, blurred) > gain


def test_inpaint_fills_holes_of_a_photo_it_never_saw_better_than_telea() -> None:
    clean, restorer = np.asarray(Image.open(ROOT / "tests" / "data" / "dog.png")), load("inpaint")
    gains = []
    for seed in range(6):
        hole = operators.get("inpaint-freeform1020").mask(*clean.shape[:2], seed=seed)
        assert hole is not None
        damaged = np.where(hole[..., None], np.uint8(128), clean)
        restored = restorer.restore(damaged, mask=hole)
        np.testing.assert_array_equal(restored[~hole], clean[~hole])
        gains.append(psnr(clean, restored) - psnr(clean, telea(damaged, hole)))
    assert np.mean(gains) > 0.7


def test_tiles_hardly_change_the_picture() -> None:
    restorer = load("jpeg")
    with Image.open(PHOTO) as image:
        photo = np.asarray(image.convert("RGB"))
    whole, tiled = (restorer.restore(photo, nfe=1, tile=tile, overlap=64) for tile in (0, 256))
    assert restorer.tile_of(*photo.shape[1::-1], tile=256, overlap=64) == 256
    assert 45 < psnr(whole, tiled) < 80


def test_the_example_runs(tmp_path: Path) -> None:
    target = tmp_path / "restored.png"
    run = subprocess.run([sys.executable, ROOT / "examples" / "jpeg.py", PHOTO, target], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    with Image.open(PHOTO) as photo, Image.open(target) as restored:
        assert restored.size == photo.size
