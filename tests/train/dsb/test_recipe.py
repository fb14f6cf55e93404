"""Recipes: those that come with the package are sound, and what cannot be is refused by name."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from i2sb_train.dsb.recipe import DsbRecipe, dsb_rules
from i2sb_train.dsb.run import model_info
from i2sb_train.recipe import RecipeError
from i2sb_train.recipe_file import checked, read_tables

RECIPES = sorted((Path(__file__).parents[3] / "train" / "recipes" / "dsb").glob("*.toml"))
MakeDsb = Callable[..., DsbRecipe]


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipes_of_the_package_are_sound(path: Path) -> None:
    recipe = checked(DsbRecipe, read_tables(path), dsb_rules)
    for direction in ("forward", "backward"):
        info = model_info(recipe, direction)
        assert (info.direction, info.sampler, len(info.gammas)) == (direction, "dsb", recipe.bridge.steps)
        assert sum(info.gammas) == pytest.approx(recipe.bridge.horizon)
    assert recipe.model.name == path.stem


@pytest.mark.parametrize(
    ("changes", "right"),
    [
        ({"train": {"algorithm": "sinkhorn"}}, r"train\.algorithm must be one of ipf, imf"),
        ({"bridge": {"grid": "even"}}, r"bridge\.grid must be one of cosine, linear"),
        ({"bridge": {"horizon": 0.0}}, r"bridge\.horizon must be above 0"),
        ({"bridge": {"steps": 1}}, r"bridge\.steps must be between 2"),
        ({"bridge": {"reference": "ou"}, "end": {"kind": "moons"}}, r"bridge\.reference must be brownian where"),
        ({"bridge": {"prediction": "x0"}}, r"bridge\.prediction must be one of drift, noise, mean, residual"),
        ({"start": {"kind": "moon"}}, r"start\.kind must be one of moons"),
        ({"start": {"kind": "coupled"}}, r'start\.kind must be anything but "coupled"'),
        ({"start": {"kind": "moons", "dim": 3}}, r"start\.dim must be at least 1; 2 for sets"),
        ({"start": {"dim": 3}}, r"end\.dim must be such that both ends have one shape"),
        ({"start": {"kind": "images"}}, r"start\.folder must be a folder"),
        (
            {"start": {"kind": "digits"}, "network": {"mlp": None}},
            r"network must be a U-Net that takes|network must be",
        ),
        ({"network": {"mlp": {"dim": 2}}}, r"network must be one table, \[network\.mlp\], without dim"),
        ({"network": {"width": 3}}, r"network must be one table"),
        ({"bridge": {"reference": "ou"}, "end": {"std": 0.1}}, r"bridge\.horizon must be less, or bridge\.steps more"),
        ({"end": {"mean": float("nan")}}, r"end\.mean must be a number below 1e6"),
        (
            {
                "start": {"kind": "images", "folder": "a", "size": 16, "dim": None},
                "network": {"mlp": None, "image_size": 32, "in_channels": 3, "out_channels": 3, "channel_mult": [1]},
            },
            r"network must be a network with image_size = 16",
        ),
        ({"model": {"nfe": 7}}, r"model\.nfe must be at most bridge\.steps, 6"),
        ({"train": {"ema": 1.0}}, r"train\.ema must be at least 0 and below 1"),
        ({"train": {"steps": 0}}, r"train\.steps must be at least 1"),
        ({"train": {"epochs": 3}}, r"unknown key train\.epochs"),
        ({"train": {"lr": None}}, r"missing key train\.lr"),
    ],
)
def test_what_cannot_be_is_refused_by_name(changes: dict[str, Any], right: str, make_dsb: MakeDsb) -> None:
    with pytest.raises(RecipeError, match=right):
        make_dsb(**changes)


def test_a_prior_is_a_centred_normal_end(make_dsb: MakeDsb) -> None:
    assert make_dsb(end={"std": 1.5}).prior == 1.5
    assert make_dsb(end={"mean": 0.1}).prior == 0
    assert make_dsb(start={"kind": "moons"}, end={"kind": "circles"}).prior == 0
    assert model_info(make_dsb(), "backward").prior == 1.0
