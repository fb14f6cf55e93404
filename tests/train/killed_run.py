"""Trains the tiny recipe to its end while it is killed again and again. Usage: killed_run.py OUT KILLS STEPS.

A run is a fork, killed with SIGKILL some moment after its next checkpoints, or, every other time, while one is being
written; the next one goes on with what is there. Prints how many died in the middle of a write.
"""

import os
import signal
import sys
import time
import tomllib
from pathlib import Path

import numpy as np
import torch

from i2sb_train import checkpoint
from i2sb_train.loop import Pictures, Trainer
from i2sb_train.progress import Progress
from i2sb_train.recipe_file import recipe_from
from i2sb_train.run import begin

TINY = Path(__file__).parents[2] / "train" / "recipes" / "tiny.toml"


def train(out: Path, steps: int) -> None:
    """Train from the last checkpoint of a folder to the end, with a checkpoint after every step."""
    torch.set_num_threads(1)
    tables = tomllib.loads(TINY.read_text())
    tables["train"].update({"steps": steps, "save_minutes": 0.0, "log_every": steps, "precision": "fp32"})
    tables["data"]["workers"] = 0
    trainer = Trainer(recipe_from(tables), Pictures([], []), out)
    begin(trainer, checkpoint.checkpoints(out), None)
    with Progress(trainer.state.step, steps, steps, quiet=True) as progress:
        assert trainer.run(progress)


def last_step(out: Path) -> int:
    found = checkpoint.checkpoints(out)
    return int(found[-1].stem.split("-")[1]) if found else 0


def main(out: Path, kills: int, steps: int) -> None:
    rng, torn = np.random.default_rng(0), 0
    for number in range(kills):
        for path in out.glob(checkpoint.UNFINISHED):
            path.unlink()
        wanted, moment = last_step(out) + rng.integers(3), rng.uniform(0, 0.05)
        child = os.fork()
        if not child:
            train(out, steps)
            os._exit(0)
        reached = False
        while not (reached and (number % 2 == 0 or any(out.glob(checkpoint.UNFINISHED)))):
            if os.waitpid(child, os.WNOHANG) != (0, 0):
                sys.exit(f"run {number} ended before it was killed")
            if not reached and last_step(out) >= wanted:
                time.sleep(moment)
                reached = True
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        torn += any(out.glob(checkpoint.UNFINISHED))
    train(out, steps)
    print(torn)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
