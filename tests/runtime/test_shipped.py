"""The models that come with the package, on the photo that comes with it."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
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


@pytest.mark.skipif("jpeg" not in models.names(), reason="the model jpeg is not built in")
def test_the_example_runs(tmp_path: Path) -> None:
    target = tmp_path / "restored.png"
    run = subprocess.run(
        [sys.executable, ROOT / "examples" / "restore.py", PHOTO, target], capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    with Image.open(PHOTO) as photo, Image.open(target) as restored:
        assert restored.size == photo.size
