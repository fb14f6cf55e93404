"""What the ends of a bridge are: deterministic draws of the right sets, and nothing held out is trained on."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from i2sb_rt.errors import UsageError
from i2sb_train.dsb.data import Ends
from i2sb_train.dsb.measures import sliced_wasserstein
from i2sb_train.dsb.recipe import PLANAR, DsbRecipe

MakeDsb = Callable[..., DsbRecipe]
UNET = {"mlp": None, "image_size": 8, "in_channels": 1, "out_channels": 1, "model_channels": 8, "num_res_blocks": 1,
        "channel_mult": [1, 1], "attention": False}  # fmt: skip


@pytest.mark.parametrize("kind", [*PLANAR, "normal", "mixture"])
def test_draws_are_decided_by_their_seed(kind: str, make_dsb: MakeDsb) -> None:
    ends = Ends(make_dsb(start={"kind": kind, "mean": None}))
    one, same, other = (ends.draw("start", 3000, [seed]) for seed in (1, 1, 2))
    assert one.shape == (3000, 2, 1, 1)
    assert one.dtype == np.float32
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)
    assert sliced_wasserstein(one.reshape(-1, 2), other.reshape(-1, 2)) < 0.2
    assert np.abs(one.mean((0, 2, 3))).max() < 2
    assert 0.3 < one.std() < 3
    pairs = np.sort(np.abs(np.diff(np.sort(one[:, 0, 0, 0]))))
    assert pairs[10] < 1e-4  # independent points come close by chance; evenly spaced ones do not


def test_the_checkerboard_and_the_eight_gaussians_are_where_they_should_be(make_dsb: MakeDsb) -> None:
    x, y = Ends(make_dsb(start={"kind": "checkerboard", "mean": None})).draw("start", 4000, [0])[..., 0, 0].T
    assert (np.abs(x) <= 2).all()
    assert (np.abs(y) <= 2).all()
    assert ((np.floor(x) + np.floor(y)) % 2 == 0).all()
    points = Ends(make_dsb(start={"kind": "8gaussians", "mean": None})).draw("start", 4000, [0])[..., 0, 0]
    angles = np.arange(8) * np.pi / 4
    nearest = np.linalg.norm(points[:, None] - 2 * np.stack([np.cos(angles), np.sin(angles)], 1), axis=2)
    assert np.bincount(nearest.argmin(1)).min() > 400
    assert nearest.min(1).mean() == pytest.approx(0.2 * np.sqrt(np.pi / 2), rel=0.05)


def test_a_coupled_end_is_the_plan_s_marginal(make_dsb: MakeDsb) -> None:
    recipe = make_dsb(start={"mean": None}, end={"kind": "coupled", "spread": 2.0, "std": 0.5, "seed": 1})
    ends = Ends(recipe)
    assert ends.plan is not None
    assert ends.plan.epsilon == 1.0
    mean, covariance = ends.plan.moments(ends.draw("start", 20000, [5]).reshape(-1, 2).astype(np.float64))
    drawn = ends.draw("end", 20000, [6]).reshape(-1, 2)
    np.testing.assert_allclose(drawn.mean(0), mean.mean(0), atol=0.05)
    np.testing.assert_allclose(np.cov(drawn.T), covariance.mean(0) + np.cov(mean.T), atol=0.08)


def test_digits_are_points_or_images_and_some_are_held_out(make_dsb: MakeDsb) -> None:
    points = Ends(make_dsb(start={"kind": "digits", "dim": None, "mean": None}, end={"dim": 64}))
    images = Ends(make_dsb(start={"kind": "digits", "dim": None, "mean": None}, network=UNET))
    assert points.draw("start", 5, [0]).shape == (5, 64, 1, 1)
    assert images.draw("end", 5, [0]).shape == (5, 1, 8, 8)
    seen = {row.tobytes() for row in images.draw("start", 1438, [0])}
    held = {row.tobytes() for row in images.draw("start", 359, [0], held_out=True)}
    assert len(seen) > 1400
    assert not seen & held
    assert -1 <= images.draw("start", 9, [0]).min() < images.draw("start", 9, [0]).max() <= 1


def test_folders_of_pictures(make_dsb: MakeDsb, tmp_path: Path) -> None:
    recipe = make_dsb(start={"kind": "images", "folder": "none", "size": 8, "dim": None, "mean": None}, network=UNET)
    draw = np.random.default_rng(0)
    for k in range(5):
        Image.fromarray(draw.integers(0, 255, (20, 30 - k, 3), np.uint8)).save(tmp_path / f"{k}.png")
    ends = Ends(recipe, [tmp_path])
    assert ends.draw("start", 7, [0]).shape == (7, 1, 8, 8)
    assert len({row.tobytes() for row in ends.draw("start", 4, [0])}) == 4
    for k, colour in enumerate(("black", "white")):
        Image.new("RGB", (9, 9), colour).save(tmp_path / f"{k}.png")
        (tmp_path / f"{k + 2}.png").unlink()
    (tmp_path / "4.png").unlink()
    assert {float(state.mean()) for state in Ends(recipe, [tmp_path]).draw("start", 9, [0])} <= {-1.0, 1.0}
    (tmp_path / "one").mkdir()
    Image.new("RGB", (9, 9)).save(tmp_path / "one" / "a.png")
    with pytest.raises(UsageError, match="holds 1 picture"):
        Ends(recipe, [tmp_path / "one"])
    with pytest.raises(UsageError, match="no such file or folder"):
        Ends(recipe)
