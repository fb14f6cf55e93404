"""Models that enlarge: the picture, its alpha, and what the command line tells of it."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from i2sb_rt import Restorer, load
from i2sb_rt.cli import main

U8 = NDArray[np.uint8]
MakeModel = Callable[..., Path]


@pytest.fixture(scope="module")
def larger(make_model: MakeModel) -> Restorer:
    return load(make_model(upscale=4, task="sr4x-bicubic"), precision="fp32")


def enlarged(image: U8) -> U8:
    return image.repeat(4, axis=0).repeat(4, axis=1)


def test_a_photo_is_enlarged_and_restored(larger: Restorer, toy: Restorer, photo: U8) -> None:
    out = larger.restore(photo, nfe=3, seed=2)
    np.testing.assert_array_equal(out, toy.restore(enlarged(photo), nfe=3, seed=2))
    one, other = larger.restore([photo, photo[:5, :7]], nfe=3, seed=2)
    np.testing.assert_array_equal(one, out)
    assert other.shape == (20, 28, 3)
    assert larger.restore(photo[..., 0]).shape == (148, 212)


def test_alpha_grows_with_the_picture_and_smoothly(larger: Restorer, photo: U8) -> None:
    ramp = np.broadcast_to(np.arange(0, 53 * 4, 4, dtype=np.uint8), photo.shape[:2])
    out = larger.restore(np.dstack([photo, ramp]))
    assert out.shape == (148, 212, 4)
    np.testing.assert_array_equal(out[..., :3], larger.restore(photo))
    steps = np.diff(out[..., 3].astype(int), axis=1)[:, 8:-8]
    assert np.abs(steps - 1).max() <= 1
    solid = larger.restore(Image.fromarray(np.dstack([photo, np.full(photo.shape[:2], 255, np.uint8)])))
    assert solid.size == (212, 148)
    assert (np.asarray(solid)[..., 3] == 255).all()


def test_the_command_line_enlarges(
    larger: Restorer, photo: U8, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Image.fromarray(photo).save("a.png")
    command = ["restore", "-n", str(larger.path), "--precision", "fp32", "a.png", "-o", "b.png"]
    assert main([*command, "--json", "--compare", "sheet.png"]) == 0
    record = json.loads(capsys.readouterr().out.splitlines()[0])
    assert [record[key] for key in ("w", "h", "out_w", "out_h", "tile")] == [53, 37, 212, 148, 64]
    with Image.open("b.png") as image:
        np.testing.assert_array_equal(np.asarray(image), larger.restore(photo))
    assert Path("sheet.png").stat().st_size > 0
    assert main(command) == 0
    assert "a.png -> b.png (212x148" in capsys.readouterr().err
    # The limit holds for what is made, 53 x 37 x 16 pixels, not for what is read alone.
    assert main([*command, "--max-pixels", "31376"]) == 0
    assert main([*command, "--max-pixels", "31375"]) == 4
    told = capsys.readouterr().err
    assert "a.png" in told
    assert "for 31375 when it is enlarged 4 times" in told
