"""The network that a checkpoint's weights belong to: a preset, or a JSON file of UNet's keyword arguments."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from i2sb_rt.errors import ModelFileError, UsageError
from i2sb_rt.networks.limits import check_config
from i2sb_rt.networks.presets import PRESETS

if TYPE_CHECKING:
    from i2sb_rt.networks import UNet

_LARGEST: Final = 64 * 1024  # bytes of a JSON file


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
    check_config(config, path)
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
