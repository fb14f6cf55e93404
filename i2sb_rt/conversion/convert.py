"""Checkpoints of NVlabs/I2SB and guided-diffusion as model files."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from i2sb_rt.conversion.architecture import build, read_config
from i2sb_rt.conversion.checkpoint import load_checkpoint, require_torch
from i2sb_rt.conversion.options import read_options
from i2sb_rt.conversion.weights import as_arrays, check_times, keep_mean, match, mean_weights, state_dict
from i2sb_rt.errors import ModelFileError, OutOfMemoryError, OutputError, UsageError
from i2sb_rt.model_file import save_safetensors
from i2sb_rt.model_info import PREFIX, ModelInfo

if TYPE_CHECKING:
    from torch import Tensor

    from i2sb_rt.networks import UNet

# What a bridge is, by metadata key: the option's name in options.pkl, and its type.
BRIDGE: Final[dict[str, tuple[str, type[Any]]]] = {
    "interval": ("interval", int),
    "beta_max": ("beta_max", float),
    "t0": ("t0", float),
    "T": ("T", float),
    "ot_ode": ("ot_ode", bool),
    "cond_x1": ("cond_x1", bool),
    "add_x1_noise": ("add_x1_noise", bool),
    "clip": ("clip_denoise", bool),
}
PUBLISHED: Final[dict[str, Any]] = {
    "interval": 1000, "beta_max": 0.3, "t0": 1e-4, "T": 1.0,
    "ot_ode": False, "cond_x1": False, "add_x1_noise": False, "clip": False,
}  # fmt: skip
# How it was trained: kept for the reader, under i2sb.source.NAME. All other options are dropped.
FACTS: Final = (
    "corrupt", "image_size", "seed", "batch_size", "microbatch", "num_itr",
    "lr", "lr_gamma", "lr_step", "l2_norm", "ema", "use_fp16",
)  # fmt: skip
UNKNOWN: Final = "unknown: see where the checkpoint came from"
INITIALISATION: Final = "initialisation"
_NFE: Final = 10
_SOURCE: Final = f"{PREFIX}source."


@dataclass(frozen=True, kw_only=True)
class Request:
    """What the user asks for; None and empty: by default.

    bridge: keys of `BRIDGE` that the user gave. raw_weights: not the mean of the weights, but the last ones.
    """

    network: str | None = None
    dtype: str = "fp32"
    name: str | None = None
    task: str | None = None
    license: str | None = None
    trained_on: str | None = None
    nfe: int | None = None
    raw_weights: bool = False
    bridge: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class _Source:
    """What stands beside the weights. bridge: all keys of `BRIDGE`; is_bridge: else a plain diffusion model."""

    checkpoint: Path
    bridge: Mapping[str, Any]
    task: str | None
    facts: Mapping[str, str]
    is_folder: bool = False
    is_bridge: bool = True


def convert(source: Path, target: Path, request: Request) -> ModelInfo:
    """Write the model file `target` (.safetensors) of a checkpoint, whole or not at all; returns its info.

    source: a results folder of NVlabs/I2SB (latest.pt, options.pkl), or a .pt file: a state dict of guided-diffusion's
    network, or a latest.pt. A .pt file is a bridge where `request.bridge` has beta_max, and else an initialisation for
    training. Raises UsageError for options that do not fit, ModelFileError for what is refused, OutputError where
    target cannot be written.
    """
    try:
        name = _check_target(source, target, request)
        require_torch(source)
        found = _from_folder(source, request) if source.is_dir() else _from_file(source, request)
        config, network = _network(found, request)
        info = _info(found, config, network.multiple, name, request)
        weights, kind = _weights(found, network, info, request.raw_weights)
    except OSError as error:  # such as a folder that may not be entered
        raise ModelFileError(f"{error.filename or source} cannot be read: {error.strerror or error}.") from None
    if kind:
        info = replace(info, extra={**info.extra, _SOURCE + "weights": kind})
    try:
        return save_safetensors(target, as_arrays(weights), info)
    except OSError as error:
        raise OutputError(f"{target} cannot be written: {error.strerror or error}") from error
    except MemoryError:
        raise OutOfMemoryError(f"{source}: there is not enough memory to convert it.") from None


def _check_target(source: Path, target: Path, request: Request) -> str:
    """Check before anything is read where the result goes; returns the model's name."""
    if target.suffix != ".safetensors":
        raise UsageError(f"{target}: the name of a converted model ends in .safetensors.")
    if not target.parent.is_dir():
        raise OutputError(f"{target} cannot be written: {target.parent} is not a folder")
    inputs = [source, source / "latest.pt", source / "options.pkl", Path(request.network or source)]
    if target.exists() and any(path.exists() and path.samefile(target) for path in inputs):
        raise UsageError(f"{target} is what is to be read; give the result another name.")
    if not source.exists():
        raise ModelFileError(f"{source}: there is no such folder or file.")
    return request.name or target.stem


def _from_folder(folder: Path, request: Request) -> _Source:
    path = folder / "options.pkl"
    given = set(request.bridge) - {"clip"}  # clamping is a choice of whoever restores
    if given:
        raise UsageError(f"{path} says what the bridge is; leave out {', '.join(map(flag, sorted(given)))}.")
    options = read_options(path)
    bridge = {key: _option(options, *BRIDGE[key], path) for key in BRIDGE} | dict(request.bridge)
    facts = {_SOURCE + key: _text(options[key]) for key in FACTS if key in options}
    corrupt = options.get("corrupt")
    task = corrupt if isinstance(corrupt, str) else None
    return _Source(
        folder / "latest.pt", bridge, task, {key: text for key, text in facts.items() if text}, is_folder=True
    )


def _from_file(path: Path, request: Request) -> _Source:
    bridge = PUBLISHED | dict(request.bridge)
    if "beta_max" in request.bridge:
        return _Source(path, bridge, None, {})
    given = [flag(key) for key in sorted(request.bridge)] + ["--task"] * (request.task is not None)
    if given:
        raise UsageError(
            f"{path}: with {', '.join(given)} it is meant as a bridge, so give its --beta-max too; without all of them "
            "it becomes an initialisation for training."
        )
    note = {_SOURCE + "note": "a diffusion model, not a bridge: to start a training from"}
    return _Source(path, bridge, INITIALISATION, note, is_bridge=False)


def flag(key: str) -> str:
    """Return the option of the command line for a metadata key."""
    return "--" + key.replace("_", "-")


def _option(options: Mapping[str, Any], name: str, kind: type[Any], path: Path) -> Any:
    """Return an option of options.pkl, checked to be of its type; raises ModelFileError, naming it."""
    if name not in options:
        raise ModelFileError(f"{path} lacks the option {name}, which a bridge of NVlabs/I2SB has.")
    value = options[name]
    if kind is float and type(value) is int and abs(value) < 2**53:
        value = float(value)
    if type(value) is not kind:
        raise ModelFileError(
            f"{path}: the option {name} is of type {type(value).__name__}, but must be {kind.__name__}."
        )
    return value


def _text(value: object) -> str:
    """Return a fact as metadata text, empty for what is no number, boolean or short word."""
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, str):
        return value if len(value) <= 64 and value.isprintable() and not set(value) & set("/\\@:") else ""
    return repr(value) if isinstance(value, int | float) else ""


def _network(found: _Source, request: Request) -> "tuple[dict[str, Any], UNet]":
    """Return the configuration that is asked for, or that the bridge implies, and its network without weights."""
    wanted = "adm256-cond" if found.bridge["cond_x1"] else "adm256"
    size = found.facts.get(_SOURCE + "image_size", "256")
    if request.network is None and size != "256":
        raise UsageError(f"{found.checkpoint} was trained at {size} pixels, but {wanted} is of 256; give --network.")
    source = request.network or wanted
    config = read_config(source)
    network = build(config, source)
    channels = config["out_channels"] * (2 if found.bridge["cond_x1"] else 1)
    if config["in_channels"] != channels:
        raise UsageError(
            f"--network {source} takes {config['in_channels']} channels, but the bridge "
            f"{'sees' if found.bridge['cond_x1'] else 'does not see'} the degraded image beside the state (cond_x1), "
            f"so it has {channels}, as {wanted} does."
        )
    return config, network


def _info(found: _Source, config: dict[str, Any], multiple: int, name: str, request: Request) -> ModelInfo:
    """Say what the model is; the only size it is known for is the one it was trained at."""
    task = request.task or found.task
    if task is None:
        raise UsageError(f"{found.checkpoint} does not say what the bridge undoes; give --task, such as jpeg-10.")
    grain = math.lcm(multiple, 16)
    tile = -(-config["image_size"] // grain) * grain
    bridge = dict(found.bridge)
    try:
        return ModelInfo(
            name=name, task=task, **bridge, channels=config["out_channels"],
            upscale=4 if task.startswith("sr4x") else 1, multiple=multiple, minimum=tile, tile=tile,
            overlap=tile // 4 // grain * grain, sampler="ode" if bridge["ot_ode"] else "sde",
            nfe=min(_NFE, bridge["interval"] - 1) if request.nfe is None else request.nfe, dtype=request.dtype,
            network=config, trained_on=request.trained_on or UNKNOWN, license=request.license or UNKNOWN,
            extra=found.facts,
        )  # fmt: skip
    except ModelFileError as error:
        key = str(error).partition(" ")[0].removeprefix(PREFIX)
        if key in {"name", "task", "license", "trained_on", "nfe", *request.bridge}:
            raise UsageError(f"{flag(key)}: {error}") from None
        raise ModelFileError(f"{found.checkpoint} cannot be converted: {error}") from None


def _weights(found: _Source, network: "UNet", info: ModelInfo, raw: bool) -> "tuple[dict[str, Tensor], str]":
    """Return the network's weights, checked against its names, order and shapes, and which they are: ema, net or ''."""
    path = found.checkpoint
    checkpoint = load_checkpoint(path)
    is_results = "net" in checkpoint
    if found.is_folder and not is_results:
        raise ModelFileError(f"{path} lacks the key net, which the latest.pt of NVlabs/I2SB has.")
    if is_results and not found.is_bridge:
        raise UsageError(f"{path} holds a bridge; give the folder it lies in, or its --beta-max and the other options.")
    if raw and not is_results:
        raise UsageError(f"{path} holds one set of weights; --raw-weights is for a latest.pt, which holds two.")
    weights, times = state_dict(checkpoint["net"], f"{path}: net") if is_results else state_dict(checkpoint, str(path))
    if times is not None:
        check_times(times, info, path)
    if keep_mean(weights, network) and found.is_bridge:
        raise ModelFileError(
            f"{path}: the network predicts a variance too, so it is a diffusion model, not a bridge; as a .pt file "
            "without --beta-max it becomes an initialisation for training."
        )
    match(weights, network, path)
    if not is_results or raw:
        return weights, "net" if raw else ""
    return mean_weights(checkpoint.get("ema"), weights, network, path), "ema"
