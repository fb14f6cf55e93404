"""The options of NVlabs/I2SB's train.py, so that its command lines run: each sets a key of a recipe.

Without a recipe they build one: the network, the schedule and the optimisation that train.py takes by default.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any, Final

from i2sb_rt.errors import UsageError
from i2sb_rt.networks.presets import PRESETS

KEYS: Final[dict[str, str]] = {
    "name": "model.name",
    "clip_denoise": "model.clip",
    "seed": "train.seed",
    "t0": "bridge.t0",
    "T": "bridge.T",
    "interval": "bridge.interval",
    "beta_max": "bridge.beta_max",
    "ot_ode": "bridge.ot_ode",
    "cond_x1": "bridge.cond_x1",
    "add_x1_noise": "bridge.add_x1_noise",
    "image_size": "data.crop",
    "batch_size": "train.batch",
    "microbatch": "train.micro",
    "num_itr": "train.steps",
    "lr": "train.lr",
    "lr_gamma": "train.lr_gamma",
    "lr_step": "train.lr_step",
    "l2_norm": "train.weight_decay",
    "ema": "train.ema",
}
"""The recipe's key of each option that stands for exactly one."""

_SWITCHES: Final = ("clip_denoise", "ot_ode", "cond_x1", "add_x1_noise")
_WHOLE: Final = ("seed", "interval", "image_size", "batch_size", "microbatch", "num_itr", "lr_step")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Register the options; all are None unless given."""
    group = parser.add_argument_group("options of NVlabs/I2SB", "in place of a recipe, or of some of its keys")
    for option, key in KEYS.items():
        flag, text = "--" + option.replace("_", "-"), f"in place of {key}"
        if option in _SWITCHES:
            group.add_argument(flag, action="store_true", default=None, help=text)
        elif option == "name":
            group.add_argument(flag, help=text)
        else:
            group.add_argument(flag, type=int if option in _WHOLE else float, metavar="N", help=text)
    group.add_argument(
        "--corrupt", metavar="TASK", help="degrade as the published checkpoints were: jpeg-10, blur-uni, ..."
    )
    group.add_argument("--use-fp16", action="store_true", help='in place of train.precision "fp16"')
    group.add_argument("--dataset-dir", type=Path, metavar="DIR", help="the same as --data")
    group.add_argument("--log-dir", type=Path, metavar="DIR", help="where to write what is watched (default: OUT)")
    group.add_argument(
        "--ckpt", metavar="NAME", help="go on from a run's folder, or begin with a results folder of NVlabs/I2SB"
    )
    group.add_argument("--gpu", type=int, metavar="N", help="the number of the GPU")
    group.add_argument("--n-gpu-per-node", type=int, metavar="N", default=1, help="start so many processes here")
    group.add_argument("--num-proc-node", type=int, metavar="N", default=1, help="how many machines take part")
    group.add_argument("--node-rank", type=int, metavar="N", default=0, help="which of them this is")
    group.add_argument("--master-address", metavar="HOST", default="localhost", help="the first of them")
    group.add_argument(
        "--port", type=int, metavar="N", help="where it listens (default: on one machine any, else 6020)"
    )
    group.add_argument("--wandb-user", metavar="NAME", help="whose project Weights & Biases puts the run into")
    group.add_argument("--wandb-api-key", help=argparse.SUPPRESS)


def default_tables(corrupt: str | None) -> dict[str, Any]:
    """Return the recipe that train.py stands for without options, as parsed tables; UsageError without a task."""
    if corrupt is None:
        raise UsageError("give a RECIPE.toml, or --corrupt with the task that a network is to learn.")
    return {
        "model": {
            "name": corrupt, "task": corrupt, "license": "not stated", "trained_on": "not stated",
            "nfe": 10, "clip": False, "overlap": 64, "batch": 1,
        },
        "network": dict(PRESETS["adm256"]),
        "bridge": {},
        "data": {"crop": 256, "fit": True, "turns": False, "workers": 4},
        "degradation": {"kind": "nvlabs", "operators": [corrupt]},
        "train": {
            "steps": 1_000_000, "batch": 256, "micro": 2, "lr": 5e-5, "lr_gamma": 0.99, "lr_step": 1000, "ema": 0.99,
        },
    }  # fmt: skip


def apply(tables: dict[str, Any], args: argparse.Namespace) -> None:
    """Set in the tables what the options say; UsageError for what cannot be followed."""
    if args.wandb_api_key is not None:
        raise UsageError("--wandb-api-key would show the key to everybody on this machine; set WANDB_API_KEY instead.")
    for option, key in KEYS.items():
        value = getattr(args, option)
        if value is not None:
            table, name = key.split(".")
            tables.setdefault(table, {})[name] = value
    if args.corrupt is not None:
        tables["degradation"] = {"kind": "nvlabs", "operators": [args.corrupt]}
        tables.setdefault("model", {})["task"] = args.corrupt.replace(":", "-").replace(",", "-")
    if args.cond_x1:
        network = tables.setdefault("network", {})
        network["in_channels"] = 2 * network.get("out_channels", 3)
    if args.image_size is not None:
        tables.setdefault("network", {})["image_size"] = args.image_size
    if args.use_fp16:
        tables.setdefault("train", {})["precision"] = "fp16"
    if args.ot_ode:
        tables.setdefault("model", {})["sampler"] = "ode"


def launch(args: argparse.Namespace) -> int | None:
    """Start as many processes as the options ask for, as `torchrun` does; return their exit code, or None for one."""
    if args.n_gpu_per_node * args.num_proc_node == 1 or "LOCAL_RANK" in os.environ:
        return None
    from torch.distributed import run as torchrun
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", "600")  # seconds that a large checkpoint may take
    where = ["--standalone"]
    if args.num_proc_node > 1 or args.port is not None:
        where = [
            f"--nnodes={args.num_proc_node}", f"--node-rank={args.node_rank}",
            f"--master-addr={args.master_address}", f"--master-port={args.port or 6020}",
        ]  # fmt: skip
    try:
        torchrun.main([f"--nproc-per-node={args.n_gpu_per_node}", *where, "-m", "i2sb_rt.cli", *sys.argv[1:]])
    except ChildFailedError as error:
        _, failure = error.get_first_failure()
        return failure.exitcode if failure.exitcode > 0 else 128 - failure.exitcode
    except SignalException:  # every process has saved its state
        return 130
    return 0
