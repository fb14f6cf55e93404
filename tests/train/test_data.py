"""Training samples: a pure function of (seed, index), from the pictures that may be used."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from i2sb_rt import noise
from i2sb_train import data, degrade
from i2sb_train.data import Sample, Samples, augment, batches, to_signal
from i2sb_train.recipe import Data, Recipe, RecipeError
from i2sb_train.sources import Picture

MakeRecipe = Callable[..., Recipe]
PHOTOS = {"folders": ["photos"], "procedural": 0.5, "max_shrink": 2.0, "colour": 0.5, "grey": 0.2}
PAIRS = {
    "data": {"folders": ["clean"], "damaged": ["damaged"], "procedural": 0.0, "max_shrink": 1.0, "crop": 16},
    "degradation": {"kind": "paired", "factor": 2},
}
INPAINT = {"model": {"task": "inpaint"}, "degradation": {"kind": "inpaint"}}


def photos(count: int = 2) -> list[Picture]:
    rng = np.random.default_rng(0)
    sides = [(60, 90), (100, 50), (70, 70), (48, 48)] * count
    return [(rng.integers(0, 256, (*size, 3), dtype=np.uint8),) for size in sides[:count]]


def assert_equal(a: Sample, b: Sample) -> None:
    for ours, theirs in zip(a, b, strict=True):
        assert (ours is None) == (theirs is None)
        assert ours is None or torch.equal(ours, theirs)


def test_an_index_decides_its_sample(make_recipe: MakeRecipe) -> None:
    first, again = (Samples(make_recipe(data=PHOTOS), photos()) for _ in range(2))
    other = Samples(make_recipe(data=PHOTOS, train={"seed": 1}), photos())
    for index in (5, 0, 3):
        sample = first[index]
        assert_equal(sample, again[index])
        assert sample.clean.shape == sample.x1.shape == (3, 16, 16)
        assert sample.clean.dtype == sample.x1.dtype == torch.uint8
        assert not torch.equal(sample.clean, other[index].clean)
    assert not torch.equal(first[0].clean, first[1].clean)
    assert first[0].mask is first[0].cond is None


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize("count", [1, 2])
def test_batches_hold_the_samples_of_their_step(make_recipe: MakeRecipe, workers: int, count: int) -> None:
    samples = Samples(make_recipe(data={**PHOTOS, "workers": workers}), photos())
    shares = [list(batches(samples, 2, 5, rank, count)) for rank in range(count)]
    for step, parts in enumerate(zip(*shares, strict=True), start=2):
        singles = [Sample(*(t if t is None else t[j] for t in part)) for part in parts for j in range(4 // count)]
        for j, single in enumerate(singles):
            assert_equal(single, samples[step * 4 + j])


@pytest.mark.parametrize("fraction", [0.0, 0.25, 1.0])
def test_draws_of_steps(make_recipe: MakeRecipe, fraction: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "noise", lambda *_, **__: np.zeros((3, 16, 16), np.float32))
    monkeypatch.setattr(data, "training_sample", lambda regions, *_: (regions[0][:16, :16], regions[0][:16, :16], None))
    picture = [(np.zeros((48, 48, 3), np.uint8),)]
    recipe = make_recipe(train={"last_step": fraction}, data={"procedural": 0.0, "folders": ["photos"]})
    samples = Samples(recipe, picture)
    steps = np.array([samples[i].step.item() for i in range(3000)])
    assert (steps.min() >= 0, steps.max()) == (True, 999)
    assert np.mean(steps == 999) == pytest.approx(fraction, abs=0.03)
    if fraction < 1:
        assert steps[steps < 999].mean() == pytest.approx(499, abs=20)


def test_noise_is_the_runtime_s(make_recipe: MakeRecipe) -> None:
    samples = Samples(make_recipe(), [])
    drawn = torch.stack([z for i in range(40) if (z := samples[i].z) is not None])
    assert drawn.shape == (40, 3, 16, 16)
    assert drawn.mean().item() == pytest.approx(0, abs=0.03)
    assert drawn.std().item() == pytest.approx(1, abs=0.03)
    assert len(drawn.unique(dim=0)) == 40
    ode = Samples(make_recipe(bridge={"ot_ode": True}, model={"sampler": "ode"}), [])
    assert ode[0].z is None


def test_noise_at_the_start_is_not_shown_to_the_network(
    make_recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    bridge = {"bridge": {"cond_x1": True, "add_x1_noise": True}, "network": {"in_channels": 6}}
    plain, noisy = Samples(make_recipe(), [])[0], Samples(make_recipe(**bridge), [])[0]
    assert noisy.cond is not None
    assert torch.equal(noisy.cond, plain.x1)
    added = noisy.x1 - to_signal(plain.x1)
    assert added.std().item() == pytest.approx(1, abs=0.1)
    assert noisy.z is not None
    assert not torch.allclose(added, noisy.z)
    calls: list[tuple[int, int]] = []

    def listened(seed: int, shape: tuple[int, int, int], row: int, purpose: int = 0) -> np.ndarray[Any, Any]:
        calls.append((row, purpose))
        return noise(seed, shape, row, purpose)

    monkeypatch.setattr(data, "noise", listened)
    Samples(make_recipe(**bridge), [])[0]
    assert calls == [(0, 3), (0, 0)]  # the purposes of x1's noise and of a step's, as DESIGN of the runtime has them


def test_damaged_crops_are_damaged_and_alike(make_recipe: MakeRecipe) -> None:
    samples = Samples(make_recipe(), [])
    for index in range(6):
        clean, x1 = (to_signal(a) for a in samples[index][:2])
        assert 0 < (clean - x1).abs().mean() < 0.3


def test_signal_is_minus_one_to_one() -> None:
    assert torch.equal(to_signal(torch.tensor([0, 255], dtype=torch.uint8)), torch.tensor([-1.0, 1.0]))
    signal = torch.tensor([0.5, -3.0])
    assert to_signal(signal) is signal


def test_an_epoch_shows_every_picture_once_in_an_order_of_its_own(make_recipe: MakeRecipe) -> None:
    pictures: list[Picture] = [(np.full((48, 48, 3), 10 * i, np.uint8),) for i in range(12)]
    alone = {"folders": ["photos"], "procedural": 0.0, "colour": 0.0, "grey": 0.0}
    samples = Samples(make_recipe(data=alone), pictures)
    epochs = [[int(samples[12 * epoch + i].clean.max()) // 10 for i in range(12)] for epoch in range(3)]
    assert all(sorted(epoch) == list(range(12)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3
    assert [int(samples[i].clean.max()) // 10 for i in (30, 3, 14)] == [epochs[2][6], epochs[0][3], epochs[1][2]]


def test_too_small_pictures_are_left_out(make_recipe: MakeRecipe) -> None:
    small = (np.zeros((47, 200, 3), np.uint8),)
    alone = make_recipe(data={**PHOTOS, "procedural": 0.0, "colour": 0.0})
    samples = Samples(alone, [small, *photos(1), small])
    assert all(samples[i].clean.any() for i in range(12))
    with pytest.raises(RecipeError, match="no training picture has sides of at least 48 pixels"):
        Samples(make_recipe(data=PHOTOS), [small])


def test_the_whole_picture_is_reached(make_recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch) -> None:
    # A picture whose pixels tell their place: crops come from every corner, and shrunken ones stay inside.
    rows, columns = np.indices((60, 90), dtype=np.uint8)
    picture = np.stack([rows, columns, rows], axis=-1)
    monkeypatch.setattr(data, "augment", lambda regions, *_: regions)
    monkeypatch.setattr(data, "training_sample", lambda regions, *_: (regions[0], regions[0], None))
    samples = Samples(make_recipe(data={**PHOTOS, "procedural": 0, "max_shrink": 1}), [(picture,)])
    regions = [samples[i].clean.numpy() for i in range(150)]
    assert all(region.shape == (3, 48, 48) for region in regions)
    assert {region[0].min() for region in regions} == set(range(60 - 48 + 1))
    assert {0, 90 - 48} <= {region[1].min() for region in regions}


@pytest.mark.parametrize("size", [(60, 90), (90, 20), (16, 16)])
def test_fitted_pictures_are_cut_from_edge_to_edge(
    make_recipe: MakeRecipe, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(degrade, "MARGIN", 0)
    recipe = make_recipe(data={**PHOTOS, "procedural": 0, "fit": True, "turns": False, "colour": 0.0, "grey": 0.0})
    fall = np.linspace(0, 255, min(size)).astype(np.uint8)
    ramp = np.broadcast_to(fall[:, None, None] if size[0] <= size[1] else fall[None, :, None], (*size, 3))
    monkeypatch.setattr(data, "training_sample", lambda regions, *_: (regions[0], regions[0], None))
    for index in range(4):
        clean = Samples(recipe, [(ramp,)])[index].clean
        assert clean.shape == (3, 16, 16)
        assert (clean.min() <= 12, clean.max() >= 243) == (True, True)


def test_pairs_are_cut_turned_and_tinted_alike(make_recipe: MakeRecipe) -> None:
    rng = np.random.default_rng(4)
    small = rng.integers(0, 256, (30, 40, 3), dtype=np.uint8)
    damaged = small.repeat(2, axis=0).repeat(2, axis=1)
    recipe = make_recipe(**{**PAIRS, "data": {**PAIRS["data"], "colour": 0.5, "grey": 0.3}})
    samples = Samples(recipe, [(damaged, damaged)])
    crops = [samples[i] for i in range(30)]
    assert all(torch.equal(sample.clean, sample.x1) for sample in crops)
    for sample in crops:  # on the small picture's pixels
        blocks = sample.x1.reshape(3, 8, 2, 8, 2)
        assert torch.equal(blocks[:, :, :1, :, :1].expand_as(blocks), blocks)
    assert len({sample.clean.numpy().tobytes() for sample in crops}) == 30


@pytest.mark.parametrize("name", ["jpeg-10", "blur-gauss", "sr4x-bicubic", "inpaint-center", "mixture:jpeg-5,blur-uni"])
def test_published_degradations_are_left_in_float32(make_recipe: MakeRecipe, name: str) -> None:
    task = {"model": {"task": name.replace(":", "-").replace(",", "-")}}
    recipe = make_recipe(**task, degradation={"kind": "nvlabs", "operators": [name]})
    sample = Samples(recipe, [])[3]
    assert sample.x1.dtype == torch.float32
    assert sample.clean.shape == sample.x1.shape == (3, 16, 16)
    levels = (sample.x1 + 1) * 127.5
    assert (levels - levels.round()).abs().max() > 0.01
    if name == "inpaint-center":
        assert sample.mask is not None
        hole = sample.mask.expand_as(sample.clean)
        assert hole.sum() == 3 * 8 * 8
        torch.testing.assert_close(sample.x1[~hole], to_signal(sample.clean)[~hole])
        assert sample.x1[hole].std() > 0.7
    else:
        assert sample.mask is None


def test_augmentation_turns_and_mirrors_without_loss() -> None:
    region = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    rng = np.random.default_rng(1)
    seen = {augment((region,), Data(8), rng)[0].tobytes() for _ in range(200)}
    assert seen == {np.rot90(side, k).tobytes() for side in (region, region[:, ::-1]) for k in range(4)}
    upright = {augment((region,), Data(8, turns=False), rng)[0].tobytes() for _ in range(50)}
    assert upright == {region.tobytes(), region[:, ::-1].tobytes()}


def test_augmentation_drops_hue_and_shifts_colour() -> None:
    region = np.random.default_rng(0).integers(60, 190, (8, 8, 3), dtype=np.uint8)
    (grey,) = augment((region,), Data(8, grey=1), np.random.default_rng(0))
    assert np.array_equal(grey[..., 0], grey[..., 2])
    (shifted,) = augment((region,), Data(8, colour=1), np.random.default_rng(0))
    assert shifted.shape == region.shape
    assert sorted(shifted.ravel()) != sorted(region.ravel())
