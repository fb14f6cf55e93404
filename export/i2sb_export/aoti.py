"""A trained model as an AOTInductor package: the network compiled, its metadata inside, for programs without Python."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import torch

from i2sb_rt.errors import DeviceError, ModelFileError, OutputError, UsageError
from i2sb_rt.model_file import ModelInfo, read_info
from i2sb_rt.networks.loading import load_network

_MOST = 1 << 16  # the largest side and batch that a package takes


def export_package(source: Path, target: Path, device: str = "cpu") -> ModelInfo:
    """Compile the network of a model file into the package `target` (.pt2), whole or not at all; returns its info.

    device: cpu or cuda, where it will run; its inputs are x float32 [batch, channels, height, width] and t float32
    [batch] there, any batch and any height and width that `multiple` divides. Needs a C++ compiler, and for cuda a GPU.
    Raises UsageError for another ending or device, ModelFileError for a model that cannot be read, DeviceError where it
    cannot be compiled here, OutputError where target cannot be written.
    """
    if target.suffix != ".pt2":
        raise UsageError(f"{target}: the name of a package ends in .pt2.")
    if device not in ("cpu", "cuda"):
        raise UsageError(f"a package is for cpu or cuda, not {device!r}.")
    if device == "cuda" and not torch.cuda.is_available():
        raise DeviceError("PyTorch finds no CUDA device to compile for.")
    info, network = read_info(source), load_network(source).to(device)
    if info.holds_points:
        raise UsageError(f"{source}: packages are for images; points run from .onnx files.")
    multiple = info.multiple
    batch = torch.export.Dim("batch", max=_MOST)
    rows, columns = (torch.export.Dim(name, max=_MOST // multiple) for name in ("rows", "columns"))
    height, width = (multiple * side if multiple > 1 else side for side in (rows, columns))
    x = torch.zeros(2, info.in_channels, 4 * multiple, 6 * multiple, device=device)
    if not target.parent.is_dir():
        raise OutputError(f"{target} cannot be written: {target.parent} is not a folder.")
    with warnings.catch_warnings(), torch.no_grad(), tempfile.TemporaryDirectory(dir=target.parent) as folder:
        warnings.simplefilter("ignore")
        shapes = ({0: batch, 2: height, 3: width}, {0: batch})
        program = torch.export.export(network, (x, torch.zeros(2, device=device)), dynamic_shapes=shapes)
        made = Path(folder) / target.name
        try:
            torch._inductor.aoti_compile_and_package(
                program,
                package_path=str(made),
                inductor_configs={"aot_inductor.metadata": info.to_metadata()},
            )
        except Exception as error:  # whatever the compiler says
            raise DeviceError(f"{source}: PyTorch cannot compile the network here: {error}") from error
        made.replace(target)
    return info


def open_package(path: Path) -> tuple[ModelInfo, Callable[[torch.Tensor, torch.Tensor], torch.Tensor], str]:
    """Return what a package says of itself, its network, and the device that it is for.

    Raises ModelFileError for a file that is none.
    """
    if not path.is_file():
        raise ModelFileError(f"{path}: there is no such package.")
    try:
        network = torch._inductor.aoti_load_package(str(path))
        metadata = network.get_metadata()
    except Exception as error:
        raise ModelFileError(f"{path}: cannot be loaded as a package ({error}).") from None
    return ModelInfo.from_metadata(metadata, str(path)), network, metadata["AOTI_DEVICE_KEY"]
