"""What the tests of diffusion Schrodinger bridges share: small recipes."""

import copy
from collections.abc import Callable
from typing import Any

import pytest

from i2sb_train.dsb.recipe import DsbRecipe, dsb_rules
from i2sb_train.recipe_file import checked

MakeDsb = Callable[..., DsbRecipe]

TABLES: dict[str, Any] = {
    "model": {"name": "small", "license": "Apache-2.0", "trained_on": "points", "batch": 8},
    "network": {"mlp": {"width": 16, "depth": 2}},
    "bridge": {"steps": 6, "horizon": 0.5},
    "start": {"kind": "normal", "dim": 2, "mean": -0.5},
    "end": {"kind": "normal", "dim": 2},
    "train": {"iterations": 2, "steps": 6, "batch": 32, "lr": 1e-3, "cache": 64, "refresh": 4, "log_every": 100},
    "validation": {"samples": 64, "projections": 16},
}


@pytest.fixture
def make_dsb() -> MakeDsb:
    """A recipe of seconds with changes: make_dsb(train={"steps": 3}); a value None takes a key away."""

    def make(**changes: dict[str, Any]) -> DsbRecipe:
        tables = copy.deepcopy(TABLES)
        for name, values in changes.items():
            table = tables.setdefault(name, {})
            table.update(values)
            tables[name] = {key: value for key, value in table.items() if value is not None}
        return checked(DsbRecipe, tables, dsb_rules)

    return make
