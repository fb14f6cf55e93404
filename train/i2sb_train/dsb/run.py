"""A fitting from start to model files: folders, resuming, measuring after each half."""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
from pathlib import Path
from typing import Any

import torch

from i2sb_rt.errors import ModelFileError, UsageError
from i2sb_rt.model_file import ModelInfo, replacing, save_safetensors
from i2sb_rt.parallel import cores
from i2sb_train import checkpoint
from i2sb_train.dsb.checkpoint import load_state
from i2sb_train.dsb.data import Ends
from i2sb_train.dsb.measures import cbw2_uvp, path_divergence, sinkhorn_cost, sliced_wasserstein, transport_cost
from i2sb_train.dsb.plots import draw_measures, draw_paths
from i2sb_train.dsb.process import DIRECTIONS, Direction
from i2sb_train.dsb.recipe import DsbRecipe
from i2sb_train.dsb.trainer import Fitter
from i2sb_train.processes import processes
from i2sb_train.progress import Progress
from i2sb_train.recipe import network_multiple

MEASURES = "measures.jsonl"


def train_dsb(recipe: DsbRecipe, args: argparse.Namespace) -> int:
    """Train or resume as the arguments say; 0 when the models are written, 130 when a signal stopped the run."""
    if args.threads is not None and args.threads < 1:
        raise UsageError(f"--threads is at least 1, not {args.threads}")
    for package in ("matplotlib", "ot"):
        if importlib.util.find_spec(package) is None:
            raise UsageError(f"train dsb needs the package {package}: pip install 'i2sb-rt[train]'")
    torch.set_num_threads(args.threads or cores())
    out: Path = args.out or Path("runs") / recipe.model.name
    model_info(recipe, "forward")
    with processes(args.device) as here:
        if here.count > 1:
            raise UsageError("train dsb runs in one process; start it without torchrun.")
        fitter = Fitter(recipe, Ends(recipe, args.data), out, here.device)
        _begin(fitter, args.resume)
        total = sum(map(recipe.steps_of, range(fitter.halves)))
        with Progress(fitter.fit.total, total, recipe.train.log_every) as progress:
            return 0 if _run(fitter, progress) else 130


def _begin(fitter: Fitter, resume: str | None) -> None:
    """Load the last checkpoint that can be read, where the run may go on; else it must be a new one."""
    found = checkpoint.checkpoints(fitter.folder) if resume in (None, "auto") else [Path(resume)]
    if found and resume is None:
        raise UsageError(f"{fitter.folder}: already holds checkpoints; give --resume to go on, or another --out.")
    checkpoint.load_last(found, lambda path: load_state(path, fitter.fit, fitter.recipe))
    checkpoint.set_aside(fitter.folder, fitter.fit.total)
    _forget_measures(fitter.folder / MEASURES, fitter.fit.half)


def _forget_measures(path: Path, half: int) -> None:
    """Drop the lines of halves that will be measured again."""
    if path.exists():
        kept = [line for line in path.read_text().splitlines() if _half_of(line) <= half]
        with replacing(path) as temporary:
            temporary.write_text("".join(line + "\n" for line in kept))


def _half_of(line: str) -> float:
    """Return the half that a line tells of; one that was not written to its end tells of none."""
    try:
        return float(json.loads(line)["half"])
    except (ValueError, KeyError, TypeError):
        return math.inf


def _run(fitter: Fitter, progress: Progress) -> bool:
    recipe, fit = fitter.recipe, fitter.fit
    count = sum(p.numel() for p in fit.sides["forward"].network.parameters())
    about = f"two networks of {count} parameters, {len(fitter.process)} steps, {fitter.device}"
    progress.line(f"{recipe.model.name}: {about}.")
    while not fitter.ended:
        direction = fit.direction
        loss = fitter.run_half(progress)
        if loss is None:
            progress.line(f"stopped after step {fit.total}; --resume goes on from there.")
            return False
        fitter.save()
        told = {"half": fit.half + 1, "direction": direction, "loss": loss, **measured(fitter, direction)}
        if fit.half == fitter.halves - 1:
            told |= compared(fitter)
        _tell(fitter, told, progress)
        write_model(fitter, direction, fitter.folder / "halves" / f"{fit.half + 1:02d}-{direction}.safetensors")
        fitter.next_half()
        fitter.save()
    for direction in DIRECTIONS:
        path = fitter.folder / f"{recipe.model.name}-{direction}.safetensors"
        write_model(fitter, direction, path)
        progress.line(f"wrote {path}.")
    return True


def _tell(fitter: Fitter, told: dict[str, Any], progress: Progress) -> None:
    fitter.folder.mkdir(parents=True, exist_ok=True)
    path, name = fitter.folder / MEASURES, fitter.recipe.model.name
    with path.open("a") as file:
        file.write(json.dumps(told) + "\n")
    measures = [json.loads(line) for line in path.read_text().splitlines()]
    draw_measures(measures, name, fitter.folder / "pictures" / "measures.png")
    iteration = (told["half"] + 1) // 2
    numbers = ", ".join(f"{key} {value:.4g}" for key, value in told.items() if key not in ("half", "direction"))
    progress.line(f"iteration {iteration}, {told['direction']}: {numbers}")


def measured(fitter: Fitter, direction: Direction) -> dict[str, float]:
    """Measure the direction that was just trained by what it makes of held-out states, and draw that.

    sliced_wasserstein to held-out states of the other end, and between two sets of those (`floor`); transport_cost and
    path_divergence of its coupling; cbw2_uvp of the forward coupling where the plan is known.
    """
    recipe, count = fitter.recipe, fitter.recipe.validation.samples
    begins, ends = ("start", "end") if direction == "forward" else ("end", "start")
    x = fitter.drawn(begins, count, 0, held_out=True)
    states = fitter.simulate(direction, x, 0)
    wanted, others = (fitter.drawn(ends, count, seed, held_out=True).flatten(1).cpu().numpy() for seed in (1, 2))
    made, projections = states[-1].flatten(1).cpu().numpy(), recipe.validation.projections
    found = {
        "sliced_wasserstein": sliced_wasserstein(made, wanted, projections),
        "floor": sliced_wasserstein(others, wanted, projections),
        "transport_cost": transport_cost(x, states[-1]),
    }
    if direction == "forward" or recipe.bridge.reference == "brownian":
        drift = fitter.drift(direction)
        found["path_divergence"] = path_divergence(fitter.process, drift, states, direction)
    name = fitter.folder / "pictures" / f"{fitter.fit.half + 1:02d}-{direction}.png"
    title = f"{recipe.model.name}, iteration {fitter.fit.half // 2 + 1}, {direction}"
    shown = [state.reshape(-1, *recipe.shown) for state in (*states, fitter.drawn(ends, count, 1, held_out=True))]
    draw_paths(shown[:-1], shown[-1], title, name)
    plan = fitter.ends.plan
    if plan is not None and direction == "forward":
        points, draws = fitter.drawn("start", min(300, count), 3), 300
        ended = fitter.carried("forward", points.repeat_interleave(draws, 0), 1)
        coupled = ended.flatten(1).double().cpu().numpy().reshape(len(points), draws, -1)
        found["cbw2_uvp"] = cbw2_uvp(plan, points.flatten(1).double().cpu().numpy(), coupled)
    return found


def compared(fitter: Fitter) -> dict[str, float]:
    """Return what Sinkhorn finds for held-out points, as `sinkhorn_cost`; nothing for images or another reference."""
    recipe, count = fitter.recipe, fitter.recipe.validation.samples
    if recipe.bridge.reference != "brownian" or recipe.shape[1:] != (1, 1):
        return {}
    x0, x1 = fitter.drawn("start", count, 0, held_out=True), fitter.drawn("end", count, 1, held_out=True)
    return {"sinkhorn_cost": sinkhorn_cost(x0, x1, 2 * fitter.process.horizon)}


def write_model(fitter: Fitter, direction: Direction, path: Path) -> None:
    """Write the mean of a network's weights, fp32, as a self-describing model file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    weights = fitter.fit.sides[direction].ema.state_dict()
    arrays = {name: tensor.float().cpu().contiguous().numpy() for name, tensor in weights.items()}
    save_safetensors(path, arrays, model_info(fitter.recipe, direction))


def model_info(recipe: DsbRecipe, direction: Direction) -> ModelInfo:
    """Say what a model file of a recipe says of itself; UsageError names a key that cannot be."""
    model, (channels, height, _) = recipe.model, recipe.shape
    if "mlp" in recipe.network:
        multiple, minimum, tile = 1, 1, 16
    else:
        multiple, minimum = network_multiple(recipe.network), height
        grain = math.lcm(multiple, 16)
        tile = -(-height // grain) * grain
    try:
        return ModelInfo(
            name=model.name, task="dsb", license=model.license, trained_on=model.trained_on, sampler="dsb",
            nfe=model.nfe or recipe.bridge.steps, prediction=recipe.bridge.prediction, batch=model.batch,
            gammas=tuple(recipe.bridge.gammas()), direction=direction, prior=recipe.prior, channels=channels,
            multiple=multiple, minimum=minimum, tile=tile, overlap=0, network=recipe.whole_network,
        )  # fmt: skip
    except ModelFileError as error:
        raise UsageError(f"[model] cannot be written to a model file: {error}") from error
