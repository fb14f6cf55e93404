"""Reading recipes: every key known, of its type, and possible, or refused by its full name."""

from __future__ import annotations

import dataclasses
import tomllib
import types
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from i2sb_train.recipe import Recipe, RecipeError, Rule, value_of
from i2sb_train.rules import rules

Kind = TypeVar("Kind")


def load_recipe(path: Path) -> Recipe:
    """Read and check a recipe; RecipeError names the file and the key at fault."""
    tables = read_tables(path)
    try:
        return recipe_from(tables)
    except RecipeError as error:
        raise RecipeError(f"{path}: {error}") from error


def read_tables(path: Path) -> dict[str, Any]:
    """Read a recipe's tables without checking them; RecipeError where that is no TOML."""
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read ({error.strerror}).") from error
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"{path}: not a TOML file ({error}).") from error


def recipe_from(table: dict[str, Any]) -> Recipe:
    """Build a recipe from parsed tables; RecipeError for unknown or missing keys, wrong types and impossible values."""
    return checked(Recipe, table, rules)


def checked(cls: type[Kind], table: dict[str, Any], rules: Callable[[Kind], Iterator[Rule]]) -> Kind:
    """Build the dataclass of a recipe from parsed tables, by rules of its own; raises as `recipe_from`."""
    recipe: Kind = _build(cls, table, "")
    for key, holds, right in rules(recipe):
        if not holds:
            raise RecipeError(f"{key} must be {right}, not {value_of(recipe, key)!r}.")
    return recipe


def _build(cls: type[Any], table: Any, where: str) -> Any:
    if not isinstance(table, dict):
        raise RecipeError(f"[{where.rstrip('.')}] must be a table.")
    hints = typing.get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls)}
    for key in table:
        if key not in fields:
            raise RecipeError(f"unknown key {where}{key}; known here: {', '.join(fields)}.")
    values = {}
    for name, f in fields.items():
        if name in table:
            values[name] = _convert(hints[name], table[name], f"{where}{name}")
        elif f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING:
            raise RecipeError(f"missing key {where}{name}.")
    return cls(**values)


def _convert(hint: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return _build(hint, value, where + ".")
    if isinstance(hint, types.GenericAlias) and hint.__origin__ is list:
        if not isinstance(value, list):
            raise RecipeError(f"{where} must be a list, not {value!r}.")
        return [_convert(hint.__args__[0], item, where) for item in value]
    plain = dict if isinstance(hint, types.GenericAlias) else hint
    if plain is float and type(value) is int:
        return float(value)
    if type(value) is not plain:
        raise RecipeError(f"{where} must be of type {plain.__name__}, not {value!r}.")
    return value
