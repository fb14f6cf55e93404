"""`i2sb-rt train i2sb RECIPE.toml`: the training command; PyTorch is imported when it runs."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from i2sb_train import nvlabs

if TYPE_CHECKING:
    from i2sb_train.recipe import Recipe

LOG_WRITERS = ("none", "tensorboard", "wandb")


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register `train` and its methods; each sets `run`, a function of the arguments that returns an exit code."""
    parser = subparsers.add_parser("train", help="train a bridge from a recipe (needs the extra `train`)")
    methods = parser.add_subparsers(dest="method", required=True, metavar="METHOD")
    i2sb = methods.add_parser("i2sb", help="paired diffusion bridge (I2SB)")
    i2sb.add_argument("recipe", type=Path, nargs="?", metavar="RECIPE.toml")
    i2sb.add_argument("--out", type=Path, metavar="DIR", help="checkpoints and the model (default: runs/NAME)")
    i2sb.add_argument("--data", type=Path, action="append", metavar="DIR", help="in place of the recipe's data.folders")
    i2sb.add_argument("--damaged", type=Path, action="append", metavar="DIR", help="in place of data.damaged")
    i2sb.add_argument(
        "--resume", nargs="?", const="auto", metavar="auto|FILE",
        help="go on from the last checkpoint of --out that can be read (auto: begin where there is none), or from FILE",
    )  # fmt: skip
    i2sb.add_argument(
        "--init", type=Path, metavar="MODEL",
        help="begin with weights of a model file or NAME, a guided-diffusion .pt, or a results folder of NVlabs/I2SB",
    )  # fmt: skip
    i2sb.add_argument("--steps", type=int, metavar="N", help="in place of train.steps")
    i2sb.add_argument(
        "--finish", type=int, metavar="N",
        help="branch off the last checkpoint of --out, let the rate fall over N more steps (0: none), write the model",
    )  # fmt: skip
    i2sb.add_argument(
        "--dry-run", action="store_true", help="take 20 steps and tell what the run will need; write nothing"
    )
    i2sb.add_argument("--log-writer", choices=LOG_WRITERS, default="none", help="where losses and pictures are shown")
    i2sb.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    i2sb.add_argument("--threads", type=int, metavar="N", help="CPU threads (default: all cores)")
    nvlabs.add_options(i2sb)
    i2sb.set_defaults(run=run, extra="train")
    dsb = methods.add_parser("dsb", help="unpaired bridge: diffusion Schrodinger bridge (DSB)")
    dsb.add_argument("recipe", type=Path, metavar="RECIPE.toml")
    dsb.add_argument("--out", type=Path, metavar="DIR", help="checkpoints, measures and models (default: runs/NAME)")
    dsb.add_argument(
        "--data", type=Path, action="append", metavar="DIR", help="in place of the folders of ends of images, in order"
    )
    dsb.add_argument(
        "--resume", nargs="?", const="auto", metavar="auto|FILE",
        help="go on from the last checkpoint of --out that can be read (auto: begin where there is none), or from FILE",
    )  # fmt: skip
    dsb.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    dsb.add_argument("--threads", type=int, metavar="N", help="CPU threads (default: all cores)")
    dsb.set_defaults(run=run_dsb, extra="train")


def run(args: argparse.Namespace) -> int:
    """Run the command: 0 when the model is written, 130 when a signal stopped the run. Raises I2SBError."""
    found = recipe(args)
    code = nvlabs.launch(args)
    if code is not None:
        return code
    from i2sb_train.run import train_i2sb

    return train_i2sb(found, args)


def run_dsb(args: argparse.Namespace) -> int:
    """Run `train dsb`: 0 when the models are written, 130 when a signal stopped the run. Raises I2SBError."""
    from i2sb_train.dsb.recipe import DsbRecipe, dsb_rules
    from i2sb_train.recipe import RecipeError
    from i2sb_train.recipe_file import checked, read_tables

    try:
        found = checked(DsbRecipe, read_tables(args.recipe), dsb_rules)
    except RecipeError as error:
        raise RecipeError(f"{args.recipe}: {error}") from error
    from i2sb_train.dsb.run import train_dsb

    return train_dsb(found, args)


def recipe(args: argparse.Namespace) -> Recipe:
    """Read the recipe, or make the one that the options stand for, with what they set in it."""
    from i2sb_train.recipe import RecipeError
    from i2sb_train.recipe_file import read_tables, recipe_from

    if args.recipe is None and (args.resume or "").endswith(".toml"):  # `--resume RECIPE` takes it for a checkpoint
        args.recipe, args.resume = Path(args.resume), "auto"
    if args.steps is not None and args.steps < 1:
        raise RecipeError(f"--steps must be above 0, not {args.steps}.")
    args.num_itr = args.num_itr if args.steps is None else args.steps
    tables = nvlabs.default_tables(args.corrupt) if args.recipe is None else read_tables(args.recipe)
    nvlabs.apply(tables, args)
    if args.recipe is None:
        folders = args.data or ([args.dataset_dir] if args.dataset_dir else [])
        tables["data"]["folders"] = [str(folder) for folder in folders]
    try:
        return recipe_from(tables)
    except RecipeError as error:
        raise RecipeError(f"{args.recipe or 'the options'}: {error}") from error
