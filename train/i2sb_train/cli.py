"""`i2sb-rt train i2sb RECIPE.toml`: the training command; PyTorch is imported when it runs."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from i2sb_train.recipe import Recipe


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register `train` and its methods; each sets `run`, a function of the arguments that returns an exit code."""
    parser = subparsers.add_parser("train", help="train a bridge from a recipe (needs the extra `train`)")
    methods = parser.add_subparsers(dest="method", required=True, metavar="METHOD")
    i2sb = methods.add_parser("i2sb", help="paired diffusion bridge (I2SB)")
    i2sb.add_argument("recipe", type=Path, metavar="RECIPE.toml")
    i2sb.add_argument("--out", type=Path, metavar="DIR", help="checkpoints and the model (default: runs/NAME)")
    i2sb.add_argument("--data", type=Path, action="append", metavar="DIR", help="in place of the recipe's data.folders")
    i2sb.add_argument("--resume", action="store_true", help="go on from the last checkpoint of --out")
    i2sb.add_argument("--init", type=Path, metavar="MODEL", help="start from the weights of a model file")
    i2sb.add_argument("--steps", type=int, metavar="N", help="in place of train.steps")
    i2sb.add_argument(
        "--finish", type=int, metavar="N",
        help="branch off the last checkpoint of --out, let the rate fall over N more steps (0: none), write the model",
    )  # fmt: skip
    i2sb.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    i2sb.add_argument("--threads", type=int, metavar="N", help="CPU threads (default: all cores)")
    i2sb.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the command: 0 when the model is written, 130 when a signal stopped the run. Raises I2SBError."""
    from i2sb_train.recipe import load_recipe

    recipe = _with_options(load_recipe(args.recipe), args)
    from i2sb_train.run import train_i2sb

    return train_i2sb(recipe, args)


def _with_options(recipe: Recipe, args: argparse.Namespace) -> Recipe:
    if args.steps is None:
        return recipe
    if args.steps < 1:
        from i2sb_train.recipe import RecipeError

        raise RecipeError(f"--steps must be above 0, not {args.steps}.")
    return dataclasses.replace(recipe, train=dataclasses.replace(recipe.train, steps=args.steps))
