"""The models that come with the package, on the photo that comes with it."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from i2sb_rt import load, models
from i2sb_rt.evaluation.metrics import psnr
from i2sb_rt.operators.jpeg import compress

ROOT = Path(__file__).parents[2]
PHOTO = ROOT / "examples" / "photo.jpg"


@pytest.mark.parametrize("name", models.names())
def test_every_shipped_model_restores_and_has_a_card(name: str) -> None:
    restorer = load(name)
    assert restorer.info.name == name
    with Image.open(PHOTO) as photo:
        damaged = np.asarray(photo.convert("RGB"))
        restored = np.asarray(restorer.restore(photo))
    assert restored.shape == damaged.shape
    change = np.abs(restored.astype(float) - damaged)
    assert 0.1 < change.mean() < 20
    assert models.find(name).with_suffix(".md").is_file()
    assert models.find(name).stat().st_size < 8 * 2**20


@pytest.mark.parametrize(("quality", "gain"), [(5, 0.5), (10, 0.8), (20, 0.6), (40, 0.3)])
def test_jpeg_improves_a_photo_it_never_saw(quality: int, gain: float) -> None:
    clean = np.asarray(Image.open(ROOT / "tests" / "data" / "dog.png"))
    damaged = compress(clean, quality)
    assert psnr(clean, load("jpeg").restore(damaged)) - psnr(clean, damaged) > gain


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
