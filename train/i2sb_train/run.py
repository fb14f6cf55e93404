"""A training run from start to model file: folders, resuming, finishing."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from i2sb_rt import Schedule
from i2sb_rt.conversion.convert import INITIALISATION, Request, convert
from i2sb_rt.errors import ModelFileError, UsageError
from i2sb_rt.model_file import ModelInfo, load_weights, read_info, save_safetensors
from i2sb_rt.models import find, names
from i2sb_train import checkpoint
from i2sb_train.loop import Pictures, Trainer
from i2sb_train.probe import probe
from i2sb_train.processes import Processes, processes
from i2sb_train.progress import Progress
from i2sb_train.recipe import Bridge, Recipe, network_multiple
from i2sb_train.watch import watching


def train_i2sb(recipe: Recipe, args: argparse.Namespace) -> int:
    """Train, resume or finish as the arguments say; 0 when the model is written, 130 when a signal stopped the run."""
    if args.threads:
        torch.set_num_threads(args.threads)
    if args.wandb_user:
        os.environ["WANDB_ENTITY"] = args.wandb_user
    with processes(args.device, args.gpu) as here:
        return _train(recipe, args, here)


def _train(recipe: Recipe, args: argparse.Namespace, here: Processes) -> int:
    model_info(recipe)
    out: Path = args.out or Path("runs") / recipe.model.name
    starts: list[Path] = []

    def find_starts() -> int:
        starts.extend(_starts(args, out))
        return checkpoint.step_of(starts[-1]) if args.finish is not None else 0

    step = here.led(find_starts)
    if args.finish is not None:
        recipe, out = finishing(recipe, step, args.finish), out / f"finish-{step:08d}"
        starts = (checkpoint.checkpoints(out) if args.resume else []) or starts[-1:]
    pictures = _pictures(recipe, args)
    here.require_equal(pictures.fingerprint(), "pictures")
    writer = args.log_writer if here.leads and not args.dry_run else "none"
    watch = watching(writer, args.log_dir or out, recipe.model.name, recipe.bridge.interval, recipe.train.log_every)
    trainer = Trainer(recipe, pictures, out, here, watch)
    here.led(lambda: begin(trainer, starts, args.init or _foreign(args.ckpt)))
    checkpoint.share_state(trainer.state, here)
    if args.dry_run:
        return probe(trainer)
    with Progress(trainer.state.step, recipe.train.steps, recipe.train.log_every, quiet=not here.leads) as progress:
        count = sum(p.numel() for p in trainer.state.network.parameters())
        many = "" if here.count == 1 else f", {here.count} processes"
        about = f"{count} parameters, {len(trainer.samples.pictures)} pictures, {here.device}{many}"
        progress.line(f"{recipe.model.name}: {about}.")
        if not trainer.run(progress):
            return 130
        if here.leads:
            path = out / f"{recipe.model.name}.safetensors"
            write_model(path, trainer)
            progress.line(f"wrote {path}.")
    return 0


def _pictures(recipe: Recipe, args: argparse.Namespace) -> Pictures:
    """Find the recipe's pictures where the arguments say, or beside the recipe."""
    beside = args.recipe.parent if args.recipe else Path()
    given = args.data or ([args.dataset_dir] if args.dataset_dir else None)
    folders = given or [beside / folder for folder in recipe.data.folders]
    damaged = args.damaged or ([] if given else [beside / folder for folder in recipe.data.damaged])
    return Pictures.read(recipe, folders, damaged) if folders else Pictures([], [])


def _starts(args: argparse.Namespace, out: Path) -> list[Path]:
    """List the checkpoints that the arguments let a run go on from, the best last.

    Raises UsageError where there are none to go on from, or some in the way of a new run.
    """
    there = checkpoint.checkpoints(out)
    found = there if args.resume in (None, "auto") else [Path(args.resume)]
    goes_on = args.resume is not None
    if args.ckpt and not _foreign(args.ckpt):
        named = _found(args.ckpt)
        found = checkpoint.checkpoints(named) if named.is_dir() else [named]
        goes_on |= out.resolve() in (named.resolve(), named.resolve().parent)
        if not found:
            raise UsageError(f"--ckpt {args.ckpt}: {named} holds no checkpoints.")
    if args.finish is not None and not found:
        raise UsageError(f"{out}: there is no checkpoint to finish.")
    if there and not goes_on and args.finish is None and not args.dry_run:
        raise UsageError(f"{out}: already holds checkpoints; give --resume to go on, or another --out.")
    return found


def _foreign(name: str | None) -> Path | None:
    """Return what --ckpt names if that is no checkpoint of ours but one of NVlabs/I2SB, by its latest.pt."""
    if not name:
        return None
    path = _found(name)
    return path if path.suffix == ".pt" or (path / "latest.pt").exists() else None


def _found(name: str) -> Path:
    tried = [Path(name), Path("runs") / name, Path("results") / name]
    for path in tried:
        if path.exists():
            return path
    raise UsageError(f"--ckpt {name}: there is neither {', '.join(map(str, tried[:-1]))} nor {tried[-1]}.")


def begin(trainer: Trainer, starts: list[Path], init: Path | None) -> int:
    """Load the last checkpoint that can be read, or else the weights to begin with; returns the step.

    Checkpoints in the trainer's folder that lie beyond are set aside.
    """
    loaded = checkpoint.load_last(starts, lambda path: checkpoint.load_state(path, trainer.state, trainer.recipe))
    if not loaded and init is not None:
        initialise(trainer, init)
    checkpoint.set_aside(trainer.folder, trainer.state.step)
    return trainer.state.step


def initialise(trainer: Trainer, path: Path) -> None:
    """Start from the weights of a model file or shipped model, or of a .pt or results folder that `convert` reads.

    The network is the recipe's, but may lack input channels, as one without `cond_x1` does: the stem's weights for them
    begin at zero. Where the recipe's noise schedule is another one, the last layer is scaled by the ratio of the two
    std_fwd at the last step. So a restoration in one network call does not change at first (eq. 12: x0 = x1 - std_fwd
    out). A diffusion model, which is no bridge yet, stays as it is. UsageError for any other network.
    """
    with _as_model_file(path, trainer.recipe) as model:
        info, weights = read_info(model), load_weights(model)
    before, now, bridge = info.network, trainer.recipe.network, trainer.recipe.bridge
    if {**before, "in_channels": 0} != {**now, "in_channels": 0} or before["in_channels"] > now["in_channels"]:
        raise UsageError(f"{path}: holds another network than the recipe's: {before}, not {now}.")
    if info.task != INITIALISATION and info.prediction != bridge.prediction:
        raise UsageError(f"{path}: predicts the {info.prediction}, the recipe's network the {bridge.prediction}.")
    same = info.task == INITIALISATION or bridge.prediction == "mean"  # neither is scaled by std_fwd
    scale = 1.0 if same else _last_std(info) / _last_std(bridge)
    with torch.no_grad():
        for name, parameter in trainer.state.network.named_parameters():
            weight = torch.tensor(weights[name], dtype=torch.float32)
            if name.startswith("out.2."):
                weight *= scale
            parameter.zero_()[tuple(slice(side) for side in weight.shape)] = weight
            trainer.state.ema[name].copy_(parameter)


@contextmanager
def _as_model_file(path: Path, recipe: Recipe) -> Iterator[Path]:
    """Give a model file, or the shipped one of that name, as it is, and else a converted one that is removed again."""
    if path.suffix in (".safetensors", ".onnx") or (str(path) in names() and not path.exists()):
        yield find(path)
        return
    with tempfile.TemporaryDirectory() as folder:
        target, network = Path(folder) / "init.safetensors", Path(folder) / "network.json"
        before = recipe.network
        if not path.is_dir():  # a diffusion model sees the state alone
            before = {**before, "in_channels": before["out_channels"]}
        network.write_text(json.dumps(before))
        convert(path, target, Request(network=str(network)))
        yield target


def _last_std(bridge: ModelInfo | Bridge) -> float:
    schedule = Schedule(interval=bridge.interval, beta_max=bridge.beta_max, t0=bridge.t0, T=bridge.T)
    return float(schedule.std_fwd[-1])


def finishing(recipe: Recipe, step: int, extra: int) -> Recipe:
    """Make the recipe of a branch that ends `extra` steps after a step, its rate falling all the way.

    On a branch of 200 steps or more the mean of the weights spans about a quarter of it, so that it follows the fall;
    a shorter one could not replace the mean it starts with.
    """
    if extra < 0:
        raise UsageError(f"--finish must be 0 or more steps, not {extra}.")
    ema = min(recipe.train.ema, 1 - 4 / extra) if extra >= 200 else recipe.train.ema
    train = dataclasses.replace(recipe.train, steps=step + extra, decay=extra, ema=ema)
    return dataclasses.replace(recipe, train=train)


def write_model(path: Path, trainer: Trainer) -> None:
    """Write the EMA weights, fp32, as a self-describing model file."""
    recipe = trainer.recipe
    weights = {name: tensor.detach().float().cpu().contiguous().numpy() for name, tensor in trainer.state.ema.items()}
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
