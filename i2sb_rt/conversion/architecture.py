"""The network that a checkpoint's weights belong to: a preset, or a JSON file of UNet's keyword arguments."""

import inspect
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from i2sb_rt.errors import ModelFileError, UsageError
from i2sb_rt.networks.presets import PRESETS

if TYPE_CHECKING:
    from i2sb_rt.networks import UNet

_LARGEST: Final = 64 * 1024  # bytes of a JSON file, and any number in it
_MOST: Final = {"num_res_blocks": 64, "patch": 64}
_LONGEST: Final = 12  # lists: a level halves the sides


def read_config(network: str) -> dict[str, Any]:
    """Return UNet's keyword arguments for the name of a preset, or a path ending in .json.

    Raises UsageError for an unknown name, ModelFileError for a file that holds anything but these arguments.
    """
    if network in PRESETS:
        return dict(PRESETS[network])
    if not network.endswith(".json"):
        raise UsageError(f"--network is {', '.join(PRESETS)} or a .json file, not {network!r}.")
    path = Path(network)
    try:
        with path.open("rb") as file:
            data = file.read(_LARGEST + 1)
        config = json.loads(data)
    except OSError as error:
        raise ModelFileError(f"{path} cannot be read: {error.strerror}.") from None
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f"{path} is no JSON file ({error}).") from None
    if not isinstance(config, dict):
        raise ModelFileError(f"{path} must hold a JSON object of UNet's keyword arguments.")
    _check_config(config, path)
    return config


def build(config: dict[str, Any], source: str) -> "UNet":
    """Build the network on PyTorch's meta device: names, shapes and order, without memory; raises ModelFileError."""
    import torch

    from i2sb_rt.networks import UNet

    try:
        with torch.device("meta"):
            return UNet(**config)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ModelFileError(f"{source} describes no network that can be built: {error}") from None


def _check_config(config: dict[str, Any], path: Path) -> None:
    """Check every key and value, so that no network of absurd size is built; raises ModelFileError."""
    from i2sb_rt.networks import UNet

    known = inspect.signature(UNet).parameters
    for key, value in config.items():
        if key not in known:
            raise ModelFileError(f"{path}: {key} is no argument of UNet; its arguments are {', '.join(known)}.")
        if "bool" in str(known[key].annotation):
            holds, right = isinstance(value, bool), "true or false"
        elif "Sequence" in str(known[key].annotation):
            holds = isinstance(value, list) and len(value) <= _LONGEST and all(_is_count(v, _LARGEST) for v in value)
            right = f"a list of at most {_LONGEST} numbers from 1 to {_LARGEST}"
        else:
            most = _MOST.get(key, _LARGEST)
            holds, right = _is_count(value, most), f"a number from 1 to {most}"
        if not holds:
            raise ModelFileError(f"{path}: {key} must be {right}.")


def _is_count(value: object, most: int) -> bool:
    return type(value) is int and 1 <= value <= most
