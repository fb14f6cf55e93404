"""A model file's network as a PyTorch module."""

import os
from collections.abc import Mapping
from typing import Any

import torch

from i2sb_rt.errors import ModelFileError
from i2sb_rt.model_file import load_weights, read_info
from i2sb_rt.networks.limits import check_config
from i2sb_rt.networks.mlp import MLP
from i2sb_rt.networks.unet import UNet


def build_network(config: Mapping[str, Any]) -> UNet | MLP:
    """Build the network of an `i2sb.network`: UNet's keyword arguments, or {"mlp": those of MLP}.

    Raises TypeError or ValueError for what is neither.
    """
    return MLP(**config["mlp"]) if "mlp" in config else UNet(**config)


def load_network(path: str | os.PathLike[str]) -> UNet | MLP:
    """Build the network of a model file (.safetensors or .onnx) with its weights, in float32, in evaluation mode.

    Raises ModelFileError for a file that `read_info` or `load_weights` refuses, and where its weights are not those
    of the network that its metadata describe.
    """
    config = read_info(path).network
    if "mlp" not in config:
        check_config(config, f"{path}: i2sb.network")
    weights = load_weights(path)
    try:
        with torch.device("meta"):  # Nothing is allocated or drawn: the file's own tensors take the places.
            network = build_network(config)
    except (TypeError, ValueError) as error:
        raise ModelFileError(f"{path}: i2sb.network describes no network that can be built: {error}") from None
    wanted = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    found = {name: array.shape for name, array in weights.items()}
    if wanted != found:
        name = min(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
        raise ModelFileError(
            f"{path}: the weights are not those of i2sb.network: {name} is {found.get(name, 'missing')} in the file, "
            f"but {wanted.get(name, 'not part')} of the network."
        )
    network.load_state_dict({name: torch.tensor(a, dtype=torch.float32) for name, a in weights.items()}, assign=True)
    return network.eval()
