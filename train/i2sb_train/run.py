"""A training run from start to model file: folders, resuming, finishing."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import torch

from i2sb_rt import Schedule
from i2sb_rt.errors import ModelFileError, UsageError
from i2sb_rt.model_file import ModelInfo, load_weights, read_info, save_safetensors
from i2sb_train import checkpoint
from i2sb_train.loop import Pictures, Trainer
from i2sb_train.progress import Progress
from i2sb_train.recipe import Bridge, Recipe, network_multiple


def train_i2sb(recipe: Recipe, args: argparse.Namespace) -> int:
    """Train, resume or finish as the arguments say; 0 when the model is written, 130 when a signal stopped the run."""
    if args.threads:
        torch.set_num_threads(args.threads)
    device = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if args.device == "auto" else args.device)
    out: Path = args.out or Path("runs") / recipe.model.name
    folders = args.data or [args.recipe.parent / folder for folder in recipe.data.folders]
    model_info(recipe)
    start = checkpoint.latest(out)
    if args.finish is not None:
        if start is None:
            raise UsageError(f"{out}: there is no checkpoint to finish.")
        recipe, out = finishing(recipe, start, args.finish), out / start.stem.replace("step", "finish")
        start = (checkpoint.latest(out) if args.resume else None) or start
    elif start is not None and not args.resume:
        raise UsageError(f"{out}: already holds checkpoints; give --resume to go on, or another --out.")
    trainer = Trainer(recipe, Pictures.read(recipe, folders) if folders else Pictures([], []), out, device)
    if start is not None:
        checkpoint.load_state(start, trainer.state, recipe)
    elif args.init is not None:
        initialise(trainer, args.init)
    with Progress(trainer.state.step, recipe.train.steps, recipe.train.log_every) as progress:
        count = sum(p.numel() for p in trainer.state.network.parameters())
        progress.line(f"{recipe.model.name}: {count} parameters, {len(trainer.pairs.pictures)} pictures, {device}.")
        if not trainer.run(progress):
            return 130
        path = out / f"{recipe.model.name}.safetensors"
        write_model(path, trainer)
        progress.line(f"wrote {path}.")
    return 0


def initialise(trainer: Trainer, path: Path) -> None:
    """Start from the weights of a model file (.safetensors or .onnx), for the network and its mean.

    The network is the recipe's, but may lack input channels, as one without `cond_x1` does: the stem's weights for them
    begin at zero. Where the recipe's noise schedule is another one, the last layer is scaled by the ratio of the two
    std_fwd at the last step. So a restoration in one network call does not change at first (eq. 12: x0 = x1 - std_fwd
    out). UsageError for any other network.
    """
    info, bridge = read_info(path), trainer.recipe.bridge
    before, now = info.network, trainer.recipe.network
    if {**before, "in_channels": 0} != {**now, "in_channels": 0} or before["in_channels"] > now["in_channels"]:
        raise UsageError(f"{path}: holds another network than the recipe's: {before}, not {now}.")
    weights = load_weights(path)
    with torch.no_grad():
        for name, parameter in trainer.state.network.named_parameters():
            weight = torch.tensor(weights[name], dtype=torch.float32)
            if name.startswith("out.2."):
                weight *= _last_std(info) / _last_std(bridge)
            parameter.zero_()[tuple(slice(side) for side in weight.shape)] = weight
            trainer.state.ema[name].copy_(parameter)


def _last_std(bridge: ModelInfo | Bridge) -> float:
    schedule = Schedule(interval=bridge.interval, beta_max=bridge.beta_max, t0=bridge.t0, T=bridge.T)
    return float(schedule.std_fwd[-1])


def finishing(recipe: Recipe, start: Path, extra: int) -> Recipe:
    """Make the recipe of a branch that ends `extra` steps after a checkpoint, its rate falling all the way.

    On a branch of 200 steps or more the mean of the weights spans about a quarter of it, so that it follows the fall;
    a shorter one could not replace the mean it starts with.
    """
    if extra < 0:
        raise UsageError(f"--finish must be 0 or more steps, not {extra}.")
    step = int(start.stem.split("-")[1])
    ema = min(recipe.train.ema, 1 - 4 / extra) if extra >= 200 else recipe.train.ema
    train = dataclasses.replace(recipe.train, steps=step + extra, decay=extra, ema=ema)
    return dataclasses.replace(recipe, train=train)


def write_model(path: Path, trainer: Trainer) -> None:
    """Write the EMA weights, fp32, as a self-describing model file."""
    recipe = trainer.recipe
    weights = {name: tensor.detach().cpu().contiguous().numpy() for name, tensor in trainer.state.ema.items()}
    save_safetensors(path, weights, model_info(recipe))


def model_info(recipe: Recipe) -> ModelInfo:
    """Say what the model file of a recipe says of itself; UsageError names a key of [model] that cannot be.

    The smallest side is four pixels at the coarsest level: the statistics of a norm need more than one.
    """
    model, bridge, network = recipe.model, recipe.bridge, recipe.network
    multiple = network_multiple(network)
    try:
        return ModelInfo(
            name=model.name, task=model.task, license=model.license, trained_on=model.trained_on,
            sampler=model.sampler, nfe=model.nfe, clip=model.clip, tile=model.tile, overlap=model.overlap,
            batch=model.batch, multiple=multiple, minimum=4 * multiple, channels=network["out_channels"],
            upscale=recipe.degradation.upscale, network=network, **dataclasses.asdict(bridge),
        )  # fmt: skip
    except ModelFileError as error:
        raise UsageError(f"[model] cannot be written to a model file: {error}") from error
