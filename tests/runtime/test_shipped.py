"""The models that come with the package, on the photo that comes with it."""

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from i2sb_rt import load, models

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
    buffer = io.BytesIO()
    Image.fromarray(clean).save(buffer, "JPEG", quality=quality)
    damaged = np.asarray(Image.open(buffer))
    restored = load("jpeg").restore(damaged)

    def psnr(image: NDArray[np.uint8]) -> float:
        return float(10 * np.log10(255**2 / np.mean((image.astype(float) - clean) ** 2)))

    assert psnr(restored) - psnr(damaged) > gain


def test_the_example_runs(tmp_path: Path) -> None:
    target = tmp_path / "restored.png"
    run = subprocess.run([sys.executable, ROOT / "examples" / "jpeg.py", PHOTO, target], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    with Image.open(PHOTO) as photo, Image.open(target) as restored:
        assert restored.size == photo.size
