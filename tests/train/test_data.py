"""Training pairs: a pure function of (seed, index), from the pictures that may be used."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from i2sb_rt.errors import UsageError
from i2sb_train import data
from i2sb_train.data import Pairs, augment, batches, list_pictures, read_picture, split_holdout, to_signal
from i2sb_train.recipe import Recipe, RecipeError

MakeRecipe = Callable[..., Recipe]
PHOTOS = {"folders": ["photos"], "procedural": 0.5, "max_shrink": 2.0, "colour": 0.5, "grey": 0.2}


def photos() -> list[NDArray[np.uint8]]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (height, width, 3), dtype=np.uint8) for height, width in ((60, 90), (100, 50))]


def test_an_index_decides_its_pair(make_recipe: MakeRecipe) -> None:
    first, again = (Pairs(make_recipe(data=PHOTOS), photos()) for _ in range(2))
    other = Pairs(make_recipe(data=PHOTOS, train={"seed": 1}), photos())
    for index in (5, 0, 3):
        for a, b in zip(first[index], again[index], strict=True):
            assert a.shape == (3, 16, 16)
            assert a.dtype == torch.uint8
            assert torch.equal(a, b)
        assert not torch.equal(first[index][0], other[index][0])
    assert not torch.equal(first[0][0], first[1][0])


def test_jpeg_pairs_stay_what_they_were(make_recipe: MakeRecipe) -> None:
    # Recorded before there were other kinds of damage. Another libjpeg may change it, another kind must not.
    lossless = {**PHOTOS, "procedural": 0.0}
    pairs = Pairs(make_recipe(data=lossless, degradation={"quality": [5, 60]}), photos())
    digest = hashlib.sha256()
    for part in next(iter(batches(pairs, 0, 1))):
        digest.update(part.numpy().tobytes())
    assert digest.hexdigest() == "be39fb60f92837775cf30b650f2389c12e6c151afb1cb9b844d0c4d67665d450"


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_batches_hold_the_samples_of_their_step(make_recipe: MakeRecipe, workers: int) -> None:
    pairs = Pairs(make_recipe(data={**PHOTOS, "workers": workers}), photos())
    loaded = list(batches(pairs, 2, 5))
    assert len(loaded) == 3
    for step, (clean, damaged) in enumerate(loaded, start=2):
        for j in range(4):
            expected = pairs[step * 4 + j]
            assert torch.equal(clean[j], expected[0])
            assert torch.equal(damaged[j], expected[1])


def test_damaged_crops_are_damaged_and_alike(make_recipe: MakeRecipe) -> None:
    pairs = Pairs(make_recipe(), [])
    for index in range(6):
        clean, damaged = (to_signal(a) for a in pairs[index])
        assert 0 < (clean - damaged).abs().mean() < 0.3


def test_signal_is_minus_one_to_one() -> None:
    assert torch.equal(to_signal(torch.tensor([0, 255], dtype=torch.uint8)), torch.tensor([-1.0, 1.0]))


def test_too_small_pictures_are_left_out(make_recipe: MakeRecipe) -> None:
    small = np.zeros((47, 200, 3), np.uint8)
    assert len(Pairs(make_recipe(data=PHOTOS), [*photos(), small]).pictures) == 2
    with pytest.raises(RecipeError, match="no training picture has sides of at least 48 pixels"):
        Pairs(make_recipe(data=PHOTOS), [small])


def test_the_whole_picture_is_reached(make_recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch) -> None:
    # A picture whose pixels tell their place: crops come from every corner, and shrunken ones stay inside.
    rows, columns = np.indices((60, 90), dtype=np.uint8)
    picture = np.stack([rows, columns, rows], axis=-1)
    monkeypatch.setattr(data, "augment", lambda region, *_: region)
    monkeypatch.setattr(data, "training_sample", lambda region, *_: (region, region, None))
    pairs = Pairs(make_recipe(data={**PHOTOS, "procedural": 0, "max_shrink": 1}), [picture])
    regions = [pairs[i][0].numpy() for i in range(150)]
    assert all(region.shape == (3, 48, 48) for region in regions)
    assert {region[0].min() for region in regions} == set(range(60 - 48 + 1))
    assert {0, 90 - 48} <= {region[1].min() for region in regions}


def test_augmentation_turns_and_mirrors_without_loss() -> None:
    region = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    rng = np.random.default_rng(1)
    seen = {augment(region, 0, 0, rng).tobytes() for _ in range(200)}
    turned = {np.rot90(side, k).tobytes() for side in (region, region[:, ::-1]) for k in range(4)}
    assert seen == turned


def test_augmentation_drops_hue_and_shifts_colour() -> None:
    region = np.random.default_rng(0).integers(60, 190, (8, 8, 3), dtype=np.uint8)
    grey = augment(region, 0, 1, np.random.default_rng(0))
    assert np.array_equal(grey[..., 0], grey[..., 2])
    shifted = augment(region, 1, 0, np.random.default_rng(0))
    assert shifted.shape == region.shape
    assert sorted(shifted.ravel()) != sorted(region.ravel())


def test_pictures_are_listed_sorted_and_recursively(tmp_path: Path) -> None:
    for name in ("b.png", "sub/a.JPG", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert [p.name for p in list_pictures([tmp_path])] == ["b.png", "a.JPG"]
    with pytest.raises(RecipeError, match="does not exist"):
        list_pictures([tmp_path / "none"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(RecipeError, match="holds no pictures"):
        list_pictures([tmp_path / "empty"])


def test_held_out_pictures_and_their_variants_are_not_trained_on() -> None:
    paths = [Path(f"{stem}.jpg") for stem in ("a_1", "a_1_crop0", "a_12", "b")]
    kept, held = split_holdout(paths, ["a_1"])
    assert [p.stem for p in kept] == ["a_12", "b"]
    assert [p.stem for p in held] == ["a_1"]
    with pytest.raises(RecipeError, match="'a_2'"):
        split_holdout(paths, ["a_2"])


def test_pictures_are_read_upright_or_refused(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = 6
    Image.new("L", (4, 8)).save(tmp_path / "turned.jpg", exif=exif)
    assert read_picture(tmp_path / "turned.jpg").shape == (4, 8, 3)
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    with pytest.raises(UsageError, match=r"broken\.jpg: cannot be read"):
        read_picture(tmp_path / "broken.jpg")
