"""Inpainting: masks from arrays and from files, and what of the picture stays as it was."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from i2sb_rt import Restorer, load
from i2sb_rt.cli import main
from i2sb_rt.errors import UsageError
from i2sb_rt.model_info import BRIDGE_SAMPLERS

U8 = NDArray[np.uint8]
MakeModel = Callable[..., Path]


@pytest.fixture(scope="module")
def models(make_model: MakeModel) -> dict[str, Restorer]:
    """Models of both kinds: they differ in whether the bridge has noise, and so in their samplers."""
    plain = make_model(side=3, scale=0.4, task="inpaint-freeform", clip=False)
    ot = make_model(side=3, scale=0.4, task="inpaint-freeform", clip=False, ot_ode=True, sampler="ode")
    return {"sde": load(plain, precision="fp32"), "ode": load(ot, precision="fp32")}


@given(data=st.data())
def test_known_pixels_are_the_inputs_for_every_sampler_and_mask(
    models: dict[str, Restorer], data: st.DataObject
) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    sampler = data.draw(st.sampled_from(BRIDGE_SAMPLERS))
    restorer = models["ode" if sampler == "ode" and data.draw(st.booleans()) else "sde"]
    height, width = data.draw(st.integers(1, 70)), data.draw(st.integers(1, 70))
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    mask = rng.random((height, width)) < data.draw(st.sampled_from([0.0, 0.02, 0.5, 0.98, 1.0]))
    tile = data.draw(st.sampled_from(["auto", 0, 32]))
    out = restorer.restore(image, nfe=data.draw(st.integers(1, 5)), sampler=sampler, seed=5, mask=mask, tile=tile)
    np.testing.assert_array_equal(out[~mask], image[~mask])


@pytest.mark.parametrize("sampler", BRIDGE_SAMPLERS)
def test_what_stands_in_the_hole_is_not_seen(models: dict[str, Restorer], photo: U8, sampler: str) -> None:
    mask = np.zeros(photo.shape[:2], bool)
    mask[10:30, 15:40] = True
    torn = photo.copy()
    torn[mask] = 255 - torn[mask]
    first, second = (models["sde"].restore(each, nfe=3, sampler=sampler, mask=mask) for each in (photo, torn))
    np.testing.assert_array_equal(first, second)
    other = models["sde"].restore(photo, nfe=3, sampler=sampler, mask=mask, seed=1)
    assert (other[mask] != first[mask]).mean() > 0.5


def test_a_model_that_fills_holes_must_be_told_of_them(models: dict[str, Restorer], photo: U8) -> None:
    with pytest.raises(UsageError, match="a mask must say where they are"):
        models["sde"].restore(photo)


@pytest.fixture
def inpaint(models: dict[str, Restorer]) -> Callable[..., int]:
    path = models["sde"].path

    def run(*arguments: str) -> int:
        return main(["restore", "-n", str(path), "--precision", "fp32", *arguments])

    return run


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def hole(photo: U8) -> NDArray[np.bool_]:
    mask = np.zeros(photo.shape[:2], bool)
    mask[5:20, 10:40] = True
    return mask


def save(array: NDArray[Any], path: str) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def pixels(path: str) -> U8:
    with Image.open(path) as image:
        return np.asarray(image)


def test_a_mask_from_a_file(inpaint: Callable[..., int], models: dict[str, Restorer], photo: U8) -> None:
    mask = hole(photo)
    wanted = models["sde"].restore(photo, mask=mask)
    save(photo, "a.png")
    grey = np.where(mask, 255, 0).astype(np.uint8)
    soft = np.where(mask, 128, 127).astype(np.uint8)
    save(grey, "grey.png")
    save(255 - grey, "black.png")
    save(np.dstack([grey] * 3), "colour.webp")
    save(np.dstack([soft] * 3 + [np.full_like(soft, 255)]), "soft.tif")
    Image.fromarray(grey).convert("1").save("bits.png")
    for file in ("grey.png", "colour.webp", "soft.tif", "bits.png"):
        assert inpaint("a.png", "-o", "out.png", "--mask", file) == 0
        np.testing.assert_array_equal(pixels("out.png"), wanted)
    assert inpaint("a.png", "-o", "out.png", "--mask", "black.png", "--mask-invert") == 0
    np.testing.assert_array_equal(pixels("out.png"), wanted)


def test_a_folder_of_masks(
    inpaint: Callable[..., int], models: dict[str, Restorer], photo: U8, capsys: pytest.CaptureFixture[str]
) -> None:
    first = hole(photo)
    second = first[::-1].copy()
    save(photo, "in/a.jpg.png")
    save(photo[::-1], "in/sub/b.png")
    save(photo, "in/c.png")
    save(first, "masks/a.jpg.tif")
    save(second, "masks/sub/b.webp")
    Path("masks/sub/b.webp").rename("masks/sub/b.WebP")
    assert inpaint("in", "-o", "out", "--mask", "masks", "--json") == 3
    np.testing.assert_array_equal(pixels("out/a.jpg.png"), models["sde"].restore(photo, mask=first))
    np.testing.assert_array_equal(pixels("out/sub/b.png"), models["sde"].restore(photo[::-1], mask=second))
    printed = capsys.readouterr()
    records = {r["in"]: r for r in map(json.loads, printed.out.splitlines()) if "in" in r}
    assert records["in/sub/b.png"]["mask"] == "masks/sub/b.WebP"
    assert records["in/c.png"]["error"]["code"] == "image_missing"
    assert "there is no masks/c.png" in printed.err


def test_masks_beside_the_images_are_no_images(inpaint: Callable[..., int], photo: U8) -> None:
    save(photo, "in/a.png")
    save(hole(photo), "in/masks/a.png")
    assert inpaint("in", "-o", "out", "--mask", "in/masks") == 0
    assert [str(path) for path in Path("out").rglob("*.png")] == ["out/a.png"]
    assert inpaint("in/masks", "-o", "out2", "--mask", "in/masks") == 2


def test_a_mask_for_standard_input_is_a_file(
    inpaint: Callable[..., int], photo: U8, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    save(photo, "a.png")
    save(hole(photo), "masks/a.png")
    for mask, code in (("masks/a.png", 0), ("masks", 2)):
        with Path("a.png").open() as file:
            monkeypatch.setattr("sys.stdin", file)
            assert inpaint("-", "-o", "out.png", "--mask", mask) == code
    assert "standard input has no name" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--mask", "missing.png"], "no such file or folder"),
        (["--mask", "m" * 300], "no such file or folder"),
        (["--mask", "small.png"], "small.png has 53 x 36 pixels, a.png 53 x 37"),
        (["--mask", "clear.png"], "has transparency"),
        (["--mask", "text.png"], "text.png is not a PNG"),
        (["--mask", "white.png"], "white.png is white all over, so nothing of a.png is known; --mask-invert turns"),
        (["--mask", "black.png", "--mask-invert"], "black.png is black all over"),
        (["--mask", "mask.png", "--compare", "mask.png"], "written over a mask"),
        (["--mask", "."], "written over a mask, or among them"),
        (["--mask", "a.png"], "no images besides"),
        (["--mask-invert"], "--mask-invert"),
        ([], "fills holes: name them with --mask"),
    ],
)
def test_refuses_what_is_no_mask(
    inpaint: Callable[..., int], photo: U8, arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    save(photo, "a.png")
    save(hole(photo), "mask.png")
    save(hole(photo)[1:], "small.png")
    save(np.dstack([photo, photo[..., 0]]), "clear.png")
    Path("text.png").write_text("white")
    for name, level in (("white.png", 255), ("black.png", 0)):
        save(np.full(photo.shape[:2], level, np.uint8), name)
    before = {path: path.read_bytes() for path in Path().iterdir()}
    assert inpaint("a.png", "-o", "out.png", *arguments) in (2, 4)
    assert words in capsys.readouterr().err
    assert {path: path.read_bytes() for path in Path().iterdir()} == before


def test_a_mask_without_a_hole_is_warned_of(
    inpaint: Callable[..., int], photo: U8, capsys: pytest.CaptureFixture[str]
) -> None:
    save(photo, "a.png")
    save(np.zeros(photo.shape[:2], np.uint8), "black.png")
    assert inpaint("a.png", "-o", "out.png", "--mask", "black.png") == 0
    np.testing.assert_array_equal(pixels("out.png"), photo)
    assert "the mask black.png has no hole, so nothing of a.png is filled" in capsys.readouterr().err


def test_a_model_that_fills_no_holes_takes_no_mask(
    toy_path: Path, photo: U8, capsys: pytest.CaptureFixture[str]
) -> None:
    save(photo, "a.png")
    save(hole(photo), "mask.png")
    assert main(["restore", "-n", str(toy_path), "a.png", "-o", "out.png", "--mask", "mask.png"]) == 2
    assert "the model toy fills no holes (its task is test)" in capsys.readouterr().err
