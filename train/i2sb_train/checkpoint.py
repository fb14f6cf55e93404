"""Checkpoints: one safetensors file with all that a run needs to go on as if it had never stopped. No pickles.

Tensors: model/NAME, ema/NAME, adam/exp_avg/NAME, adam/exp_avg_sq/NAME. Metadata: step, updates (less than the steps
where fp16 left some out), the scaler of fp16, and the recipe as JSON. There is no generator state to keep: every random
draw is a function of (train.seed, number of the sample).
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from i2sb_rt.errors import UsageError
from i2sb_rt.model_file import replacing
from i2sb_train.processes import Processes
from i2sb_train.recipe import Bridge, Recipe

FORMAT = "i2sb-train-1"
MOMENTS = ("exp_avg", "exp_avg_sq")
UNFINISHED = ".step-*.part"
"""The names of checkpoints whose writing was killed."""


class CheckpointError(UsageError):
    """A checkpoint that is damaged, so that an older one may do, or was made by another network."""

    def __init__(self, text: str, damaged: bool = False) -> None:
        super().__init__(text)
        self.damaged = damaged


@dataclass
class State:
    """What changes while training: the network, the mean of its weights, the optimiser, and the steps already taken.

    scaler: what scales the loss of fp16; switched off in other precisions.
    """

    network: nn.Module
    ema: dict[str, Tensor]
    optimizer: torch.optim.AdamW
    scaler: torch.amp.GradScaler
    step: int = 0

    @property
    def updates(self) -> int:
        """How often the optimiser has changed the weights."""
        return next((int(moments["step"]) for moments in self.optimizer.state.values()), 0)

    def moments(self, parameter: Tensor, updates: int) -> dict[str, Tensor]:
        """Give a parameter moments of Adam after `updates` updates, still to be filled."""
        moments = {"step": torch.tensor(float(updates), device=parameter.device)}
        moments |= {key: torch.empty_like(parameter) for key in MOMENTS}
        self.optimizer.state[parameter] = moments
        return moments


def save_state(path: Path, state: State, recipe: Recipe) -> None:
    """Write a checkpoint; a reader sees the old file or the whole new one, never a part."""
    tensors: dict[str, Tensor] = {}
    for name, parameter in state.network.named_parameters():
        tensors[f"model/{name}"] = parameter.detach()
        tensors[f"ema/{name}"] = state.ema[name]
        moments = state.optimizer.state.get(parameter, {}) if state.updates else {}
        tensors |= {f"adam/{key}/{name}": moments[key] for key in MOMENTS if key in moments}
    flat = {name: tensor.contiguous().cpu() for name, tensor in tensors.items()}
    metadata = {
        "format": FORMAT,
        "step": str(state.step),
        "updates": str(state.updates),
        "scaler": json.dumps(state.scaler.state_dict()),
        "recipe": json.dumps(dataclasses.asdict(recipe), sort_keys=True),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path, UNFINISHED.partition("*")[0]) as temporary:
        save_file(flat, temporary, metadata=metadata)


def load_state(path: Path, state: State, recipe: Recipe) -> None:
    """Fill a state from a checkpoint of the same network and bridge; the rest of the recipe may have changed.

    Raises CheckpointError, naming the file and what does not fit.
    """
    metadata, tensors = read(path, FORMAT)
    before, now = json.loads(metadata["recipe"]), dataclasses.asdict(recipe)
    missing = {"network": {}, "bridge": dataclasses.asdict(Bridge())}  # what a checkpoint from before a key meant
    for table, meant in missing.items():
        if meant | before[table] != now[table]:
            raise CheckpointError(f"{path}: was trained with another [{table}]: {before[table]}.")
    step = int(metadata["step"])
    updates = int(metadata.get("updates", step))
    with torch.no_grad():
        for name, parameter in state.network.named_parameters():
            parameter.copy_(take(tensors, f"model/{name}", parameter, path))
            state.ema[name].copy_(take(tensors, f"ema/{name}", parameter, path))
            if updates:
                moments = state.moments(parameter, updates)
                for key in MOMENTS:
                    moments[key].copy_(take(tensors, f"adam/{key}/{name}", parameter, path))
    if tensors:
        raise CheckpointError(f"{path}: holds {min(tensors)!r}, which this recipe's network lacks.")
    scaler = json.loads(metadata.get("scaler", "{}"))
    if scaler and state.scaler.is_enabled():
        state.scaler.load_state_dict(scaler)
    state.step = step


def read(path: Path, wanted: str) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Read metadata and tensors of a checkpoint. Raises CheckpointError where it is damaged or of another format."""
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: not a readable checkpoint ({error}).", damaged=True) from error
    if metadata.get("format") != wanted:
        raise CheckpointError(f"{path}: not a training checkpoint of this kind.")
    return metadata, tensors


def load_last(paths: Sequence[Path], load: Callable[[Path], None]) -> bool:
    """Load the last checkpoint that is not damaged; False where there are none. Raises CheckpointError."""
    for path in reversed(paths):
        try:
            load(path)
        except CheckpointError as error:
            if path == paths[0] or not error.damaged:
                raise
            print(f"{error} Going on from the one before.")
        else:
            return True
    return False


def share_state(state: State, processes: Processes) -> None:
    """Give every process the leading one's state; only that one needs to see the file that it was loaded from."""
    if processes.count == 1:
        return
    state.step = processes.share_number(state.step)
    updates = processes.share_number(state.updates)
    for name, parameter in state.network.named_parameters():
        if updates and not processes.leads:
            state.moments(parameter, updates)
        moments = (
            [moment for key, moment in state.optimizer.state[parameter].items() if key in MOMENTS] if updates else []
        )
        processes.share([parameter.detach(), state.ema[name], *moments])
    if state.scaler.is_enabled():
        scaler = state.scaler.state_dict()
        held = torch.tensor([scaler["scale"], scaler["_growth_tracker"]], dtype=torch.float64, device=processes.device)
        processes.share([held])
        state.scaler.load_state_dict(scaler | {"scale": held[0].item(), "_growth_tracker": int(held[1])})


def take(tensors: dict[str, Tensor], name: str, like: Tensor, path: Path) -> Tensor:
    """Take a tensor of a checkpoint out of those read. Raises CheckpointError unless it is there, of this shape."""
    tensor = tensors.pop(name, None)
    if tensor is None or tensor.shape != like.shape:
        found = "missing" if tensor is None else f"of shape {list(tensor.shape)}"
        raise CheckpointError(f"{path}: {name} is {found}; this recipe's network needs {list(like.shape)}.")
    return tensor


def step_of(path: Path) -> int:
    """Tell the step of a checkpoint. Raises CheckpointError where that cannot be read."""
    try:
        with safe_open(path, "pt") as file:
            return int((file.metadata() or {})["step"])
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise CheckpointError(f"{path}: not a readable checkpoint ({error}).", damaged=True) from error


def set_aside(folder: Path, step: int) -> None:
    """Rename the checkpoints of a folder that lie beyond a step, where a run begins that takes another way from it."""
    for path in checkpoints(folder):
        if path > checkpoint_path(folder, step):
            path.replace(path.with_name(path.name + ".abandoned"))


def checkpoints(folder: Path) -> list[Path]:
    """List the checkpoints of a folder, oldest step first."""
    named = re.compile(r"step-\d{8}\.safetensors")
    return sorted(p for p in folder.glob("step-*.safetensors") if named.fullmatch(p.name))


def checkpoint_path(folder: Path, step: int) -> Path:
    """Name the file of a step's checkpoint."""
    return folder / f"step-{step:08d}.safetensors"


def prune(folder: Path, keep: int) -> None:
    """Remove all checkpoints of a folder but the last `keep`, and what writes have left that were killed."""
    for path in [*checkpoints(folder)[:-keep], *folder.glob(UNFINISHED)]:
        path.unlink(missing_ok=True)
