"""Recipes: the shipped ones are valid, and every mistake is named."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from i2sb_rt.networks import UNet
from i2sb_train.recipe import Recipe, RecipeError
from i2sb_train.recipe_file import load_recipe, recipe_from
from i2sb_train.run import model_info

MakeRecipe = Callable[..., Recipe]
RECIPES = Path(__file__).parents[2] / "train" / "recipes"


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.toml")), ids=lambda path: path.stem)
def test_shipped_recipes_are_valid(path: Path) -> None:
    recipe = load_recipe(path)
    info = model_info(recipe)
    assert info.name == path.stem
    assert info.multiple == UNet(**recipe.network).multiple
    assert not any(Path(folder).is_absolute() for folder in recipe.data.folders)


@pytest.mark.parametrize(("name", "mib"), [("jpeg", 7.8), ("sr4x", 4.8), ("deblur", 4.8), ("inpaint", 4.8)])
def test_the_models_stay_small_in_fp16(name: str, mib: float) -> None:
    network = UNet(**load_recipe(RECIPES / f"{name}.toml").network)
    assert 2 * sum(p.numel() for p in network.parameters()) < mib * 2**20


@pytest.mark.parametrize(
    ("where", "key", "value", "message"),
    [
        ("train", "sped", 1, "unknown key train.sped"),
        ("train", "steps", "many", "train.steps must be of type int, not 'many'"),
        ("train", "steps", True, "train.steps must be of type int"),
        ("train", "steps", 0, "train.steps must be at least 1, not 0"),
        ("train", "lr", -1.0, "train.lr must be above 0"),
        ("train", "lr", float("nan"), "train.lr must be above 0"),
        ("train", "ema", 1.0, "train.ema must be"),
        ("train", "decay", 1000, "train.decay must be between 0 and train.steps"),
        ("train", "precision", "fp8", "train.precision must be one of auto, fp32, bf16"),
        ("data", "crop", 18, "data.crop must be a multiple of 4"),
        ("data", "procedural", 1.5, "data.procedural must be between 0 and 1"),
        ("data", "procedural", 0.5, "data.folders must be"),
        ("data", "folders", "photos", "data.folders must be a list"),
        ("data", "folders", [1], "data.folders must be of type str"),
        ("degradation", "kind", "snow", "degradation.kind must be"),
        ("degradation", "quality", [60, 5], "degradation.quality must be"),
        ("degradation", "quality", [5], "degradation.quality must be"),
        ("degradation", "subsampling", [0, 0, 0], "degradation.subsampling must be"),
        ("degradation", "kind", "operators", "degradation.operators must be a list of names"),
        ("degradation", "operators", ["sr4x-bicubic"], "degradation.operators must be .* left out for the others"),
        ("degradation", "sigma", [0.0, 1.0], "degradation.sigma must be"),
        ("degradation", "noise", [2.0, 1.0], "degradation.noise must be"),
        ("degradation", "kind", "inpaint", 'model.task must be a word that begins with "inpaint"'),
        ("model", "task", "inpaint", "model.task must be .* where the degradation makes holes, and nowhere else"),
        ("model", "task", "sr4x-bicubic", "model.task must be another word"),
        ("degradation", "strokes", [0.0, 0.2], "degradation.strokes must be"),
        ("degradation", "strokes", [0.2], "degradation.strokes must be"),
        ("degradation", "box", [0.5, 1.5], "degradation.box must be"),
        ("degradation", "zoom", 0.5, "degradation.zoom must be between 1 and 16"),
        ("degradation", "boxes", 2.0, "degradation.boxes must be between 0 and 1"),
        ("validation", "qualities", [0], "validation.qualities must be"),
        ("network", "channel_mult", 3, "network.channel_mult"),
    ],
)
def test_a_wrong_value_is_named(table: dict[str, Any], where: str, key: str, value: object, message: str) -> None:
    table.setdefault(where, {})[key] = value
    with pytest.raises(RecipeError, match=message):
        recipe_from(table)


@pytest.mark.parametrize("name", ["snow", "jpeg-0", "mixture", "mixture:blur-uni-exact", "inpaint-center", "blur-uni"])
def test_an_operator_that_cannot_be_trained_on_crops_is_refused(make_recipe: MakeRecipe, name: str) -> None:
    with pytest.raises(RecipeError, match=r"degradation.operators must be names among .*sr4x-bicubic.*gaussian-blur"):
        make_recipe(degradation={"kind": "operators", "operators": ["sr4x-bicubic", name]})


def test_crops_fit_the_grid_of_sr4x_and_holes(make_recipe: MakeRecipe) -> None:
    network, sr4x = {"channel_mult": [1]}, {"kind": "operators", "operators": ["sr4x-pool", "gaussian-blur"]}
    with pytest.raises(RecipeError, match=r"data\.crop must be a multiple of 4 for sr4x"):
        make_recipe(network=network, data={"crop": 18}, degradation=sr4x)
    with pytest.raises(RecipeError, match=r"data\.crop must be at least 16"):
        make_recipe(model={"task": "inpaint"}, data={"crop": 12}, degradation={"kind": "inpaint"})


def test_a_bridge_without_noise_hides_nothing_behind_x1(make_recipe: MakeRecipe) -> None:
    with pytest.raises(RecipeError, match=r"bridge\.cond_x1 must be false with bridge\.ot_ode"):
        make_recipe(bridge={"ot_ode": True, "cond_x1": True})


def test_a_mask_is_shown_and_a_hole_filled_where_there_is_one(make_recipe: MakeRecipe) -> None:
    with pytest.raises(RecipeError, match=r"bridge\.cond_mask must be false where nothing makes holes"):
        make_recipe(bridge={"cond_mask": True})
    inpaint = {"model": {"task": "inpaint"}, "degradation": {"kind": "inpaint"}}
    with pytest.raises(RecipeError, match=r"bridge\.cond_mask must be false with bridge\.cond_x1"):
        make_recipe(bridge={"cond_mask": True, "cond_x1": True}, **inpaint)
    with pytest.raises(RecipeError, match=r'bridge\.fill must be noise but for kind "inpaint"'):
        make_recipe(bridge={"fill": "smooth"})
    with pytest.raises(RecipeError, match=r"bridge\.fill must be noise or smooth"):
        make_recipe(bridge={"fill": "grey"}, **inpaint)
    assert make_recipe(bridge={"cond_mask": True, "ot_ode": True}, network={"in_channels": 7}, **inpaint)


@pytest.mark.parametrize(
    ("names", "upscale"),
    [
        (["sr4x-bicubic"], 4),
        (["sr4x-pool", "sr4x-bicubic-exact"], 4),
        (["sr4x-pool", "gaussian-blur"], 1),
        (["blur-uni-exact"], 1),
    ],
)
def test_a_model_enlarges_where_all_its_operators_reduce(
    make_recipe: MakeRecipe, names: list[str], upscale: int
) -> None:
    assert model_info(make_recipe(degradation={"kind": "operators", "operators": names})).upscale == upscale
    assert model_info(make_recipe()).upscale == 1


@pytest.mark.parametrize(("where", "key"), [("train", "steps"), ("data", "crop"), ("model", "name")])
def test_a_missing_key_is_named(table: dict[str, Any], where: str, key: str) -> None:
    del table[where][key]
    with pytest.raises(RecipeError, match=f"missing key {where}.{key}"):
        recipe_from(table)


def test_a_missing_or_unknown_table_is_named(table: dict[str, Any]) -> None:
    with pytest.raises(RecipeError, match=r"unknown key trian; .*train"):
        recipe_from({**table, "trian": {}})
    with pytest.raises(RecipeError, match=r"\[train\] must be a table"):
        recipe_from({**table, "train": 3})
    del table["train"]
    with pytest.raises(RecipeError, match="missing key train"):
        recipe_from(table)


def test_an_integer_stands_for_a_decimal(make_recipe: MakeRecipe) -> None:
    lr = make_recipe(train={"lr": 1}).train.lr
    assert lr == 1.0
    assert isinstance(lr, float)


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"none\.toml: cannot be read"):
        load_recipe(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("[train\n")
    with pytest.raises(RecipeError, match=r"bad\.toml: not a TOML file"):
        load_recipe(tmp_path / "bad.toml")
    (tmp_path / "empty.toml").write_text("")
    with pytest.raises(RecipeError, match=r"empty\.toml: missing key model"):
        load_recipe(tmp_path / "empty.toml")


def test_a_conditional_network_needs_six_channels(make_recipe: MakeRecipe) -> None:
    with pytest.raises(ValueError, match="in_channels = 6"):
        model_info(make_recipe(bridge={"cond_x1": True}))
    assert model_info(make_recipe(bridge={"cond_x1": True}, network={"in_channels": 6})).cond_x1


def test_what_the_model_file_refuses_is_named(make_recipe: MakeRecipe) -> None:
    with pytest.raises(ValueError, match=r"\[model\] cannot be written.*i2sb\.tile"):
        model_info(make_recipe(model={"tile": 100}))
