"""Run by torchrun or alone: trains each case for some steps, and the leading process writes what came of it.

Usage: shared_batch.py OUT. For each case of CASES, OUT/NAME.pt holds its losses and, in float64, its mean weights.
"""

import copy
import sys
import tomllib
from pathlib import Path
from typing import Any

import torch

from i2sb_train.data import batches
from i2sb_train.loop import Pictures, Trainer
from i2sb_train.processes import processes
from i2sb_train.recipe_file import recipe_from

STEPS = 20
TINY = Path(__file__).parents[2] / "train" / "recipes" / "tiny.toml"
INPAINT = {"model": {"task": "inpaint"}, "degradation": {"kind": "inpaint", "zoom": 2.0}}
CASES: dict[str, dict[str, dict[str, Any]]] = {
    "fp64": {"train": {"precision": "fp64"}},
    "fp64, holes, parts": {"train": {"precision": "fp64", "micro": 3}, **INPAINT},
    "fp32": {},
    "fp32, holes": INPAINT,
}


def main(out: Path) -> None:
    torch.set_num_threads(1)
    table = tomllib.loads(TINY.read_text())
    with processes("cpu") as here:
        for name, changes in CASES.items():
            tables = copy.deepcopy(table)
            for key, values in changes.items():
                tables[key].update(values)
            tables["train"].update({"steps": STEPS, "batch": 8})
            tables["data"]["workers"] = 0
            trainer = Trainer(recipe_from(tables), Pictures([], []), out, here)
            losses = [trainer.step(batch) for batch in batches(trainer.samples, 0, STEPS, here.rank, here.count)]
            if here.leads:
                torch.save({"losses": losses, "ema": trainer.state.ema}, out / f"{name}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
