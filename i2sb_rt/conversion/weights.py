"""The weights of a checkpoint under the names of our U-Net. Nothing is guessed: every name and shape is checked."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from i2sb_rt.conversion.checkpoint import plain
from i2sb_rt.errors import ModelFileError
from i2sb_rt.model_info import ModelInfo
from i2sb_rt.schedule import Schedule

if TYPE_CHECKING:
    from torch import Tensor

    from i2sb_rt.networks import UNet

    Weights = dict[str, Tensor]


def state_dict(value: object, what: str) -> "tuple[Weights, Tensor | None]":
    """Return named weights without their wrappers' prefixes, and noise_levels where they stand beside them.

    Raises ModelFileError, naming the first that is no dense tensor of a float type.
    """
    weights = plain(value, what)
    for name, weight in weights.items():
        _check_weight(weight, f"{what}: {name}")
    weights = _without("module.", weights)
    times = weights.pop("noise_levels", None)
    return _without("diffusion_model.", weights), times


def check_times(times: "Tensor", info: ModelInfo, path: Path) -> None:
    """Check that the network was trained with the times of the schedule; raises ModelFileError."""
    wanted = Schedule(info.interval, info.beta_max, info.t0, info.T).noise_levels
    if times.shape != wanted.shape or not np.allclose(times.float().numpy(), wanted, rtol=1e-2):
        raise ModelFileError(
            f"{path}: the network's noise_levels are not the times of its bridge, {info.interval} from "
            f"{info.t0 * info.interval:g} to {info.T * info.interval:g}; check interval, t0 and T."
        )


def keep_mean(weights: "Weights", network: "UNet") -> bool:
    """Drop the channels behind the first half of the last layer, if there are twice as many as the network has.

    There a diffusion model that learned its variance predicts it. Source: arXiv 2102.09672, section 3.1.
    """
    layers = [name for name in network.state_dict() if name.startswith("out.2.")]
    count = network.state_dict()[layers[0]].shape[0]
    if any(name not in weights or weights[name].shape[:1] != (2 * count,) for name in layers):
        return False
    weights.update({name: weights[name][:count] for name in layers})
    return True


def match(weights: "Weights", network: "UNet", path: Path) -> None:
    """Check that these are the network's weights, name by name and shape by shape; raises ModelFileError."""
    wanted = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    if wanted != found:
        name = min(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
        raise ModelFileError(
            f"{path}: the weights are not those of the network: {name} is {found.get(name, 'missing')} in the file, "
            f"but {wanted.get(name, 'not part')} of the network; give its --network."
        )


def mean_weights(ema: object, net: "Weights", network: "UNet", path: Path) -> "Weights":
    """Return the weights of `net` with the parameters replaced by their means in `ema`.

    ema: what torch_ema saves; its list shadow_params has no names, but the order of the parameters in the module. That
    order is known where `net`, which `match` accepts, is in the order of our module. Raises ModelFileError where it is
    not, or the list does not fit in number, kind or shapes.
    """
    names = [name for name, _ in network.named_parameters()]
    if [name for name in net if name in set(names)] != names:
        raise ModelFileError(
            f"{path}: net holds the parameters in another order than the network, so it cannot be told which is which "
            "in ema, which has no names; --raw-weights does without ema."
        )
    shadow = plain(ema, f"{path}: ema").get("shadow_params")
    if not isinstance(shadow, list):
        raise ModelFileError(f"{path}: ema has no list shadow_params, as torch_ema has; --raw-weights does without.")
    if len(shadow) != len(names):
        raise ModelFileError(
            f"{path}: ema.shadow_params holds {len(shadow)} tensors, but the network has {len(names)} parameters."
        )
    for number, (name, weight) in enumerate(zip(names, shadow, strict=True)):
        what = f"{path}: ema.shadow_params[{number}]"
        _check_weight(weight, what)
        if weight.shape != net[name].shape:
            found, wanted = tuple(weight.shape), tuple(net[name].shape)
            raise ModelFileError(f"{what} is {found}, but {name}, whose mean it must be, is {wanted}.")
    return {**net, **dict(zip(names, shadow, strict=True))}


def as_arrays(weights: "Weights") -> dict[str, NDArray[Any]]:
    """Return weights as float32 arrays in C order, in the file itself where it holds them so; no two share memory."""
    import torch

    arrays: dict[str, NDArray[Any]] = {}
    places = set()
    for name, weight in weights.items():
        values = weight.detach().to(torch.float32).contiguous()
        if values.data_ptr() in places:
            values = values.clone()
        places.add(values.data_ptr())
        arrays[name] = values.numpy()
    return arrays


def _check_weight(weight: object, what: str) -> None:
    import torch

    if not isinstance(weight, torch.Tensor):
        raise ModelFileError(f"{what} is of type {type(weight).__name__}, but must be a tensor.")
    if weight.layout != torch.strided or weight.device.type != "cpu":
        raise ModelFileError(f"{what} is {weight.layout} on {weight.device}, but must be a dense tensor.")
    if weight.dtype not in (torch.float32, torch.float16, torch.bfloat16):
        raise ModelFileError(f"{what} is of {weight.dtype}, but a weight is float32, float16 or bfloat16.")


def _without(prefix: str, weights: "Weights") -> "Weights":
    """Return weights without a prefix that all their names have."""
    if all(name.startswith(prefix) for name in weights):
        return {name.removeprefix(prefix): weight for name, weight in weights.items()}
    return weights
