"""What the tests of training share: the tiny recipe, and recipes that differ from it in a few keys."""

import copy
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from i2sb_train.recipe import Recipe
from i2sb_train.recipe_file import recipe_from

sys.path.insert(0, str(Path(__file__).parent))  # modules that tests and the processes they start share

RECIPES = Path(__file__).parents[2] / "train" / "recipes"

MakeRecipe = Callable[..., Recipe]


@pytest.fixture
def table() -> dict[str, Any]:
    """The tiny recipe as parsed tables, to be changed by a test."""
    return tomllib.loads((RECIPES / "tiny.toml").read_text())


@pytest.fixture
def make_recipe(table: dict[str, Any]) -> MakeRecipe:
    """The tiny recipe with changes: make_recipe(train={"steps": 3})."""

    def make(**changes: dict[str, Any]) -> Recipe:
        tables = copy.deepcopy(table)
        for name, values in changes.items():
            tables.setdefault(name, {}).update(values)
        return recipe_from(tables)

    return make
