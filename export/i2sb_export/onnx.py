"""A trained model as one ONNX file: graph, weights and metadata."""

import contextlib
import gc
import logging
import os
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import onnx
import onnx_ir as ir
import torch
from onnx import helper

from i2sb_export.graph import name_nodes, simplify, to_proto
from i2sb_export.lowering import OPSET, TRANSLATIONS
from i2sb_rt.errors import UsageError
from i2sb_rt.model_file import ModelInfo, read_info, replacing, stored_weights, weights_sha256
from i2sb_rt.networks.loading import load_network

DTYPES = ("fp16", "fp32")
_LARGEST = 2_000_000_000  # bytes of weights in one file: protobuf ends at 2 GiB


def export_onnx(source: str | os.PathLike[str], target: str | os.PathLike[str], dtype: str = "fp16") -> ModelInfo:
    """Write the .safetensors model `source` as the ONNX file `target`, whole or not at all; returns its new info.

    dtype: how the weights are stored, fp16 or fp32; the graph computes in float32. Inputs are x float32
    [batch, channels, height, width] and t float32 [batch], the output is out; batch, height and width are free
    (multiples of `multiple`). Above 2 GB the weights go to a second file, TARGET.data, which must stay beside it.
    Raises UsageError for another dtype or ending, ModelFileError for a model that cannot be read or stored in dtype.
    """
    source, target = Path(source), Path(target)
    if dtype not in DTYPES:
        raise UsageError(f"weights are stored as {' or '.join(DTYPES)}, not {dtype!r}.")
    if target.suffix != ".onnx":
        raise UsageError(f"{target}: the name of an exported model ends in .onnx.")
    info, network = read_info(source), load_network(source)
    traced = _trace(network, info)
    simplify(traced)
    name_nodes(traced.graph)
    stored = stored_weights({name: tensor.numpy() for name, tensor in network.state_dict().items()}, dtype)
    del network  # gigabytes, which the exporter's cycles would keep
    gc.collect()
    info = replace(info, dtype=dtype, weights_sha256=weights_sha256(stored))
    size = sum(array.nbytes for array in stored.values())
    sides: list[str | int] = [1, 1] if info.holds_points else ["height", "width"]
    ports: dict[str, list[str | int]] = {
        "x": ["batch", info.in_channels, *sides],
        "t": ["batch"],
        "out": ["batch", info.channels, *sides],
    }
    model = to_proto(traced.graph, info.name, stored, ports)
    helper.set_model_props(model, info.to_metadata())
    _write(model, target, size)
    return info


def _trace(network: torch.nn.Module, info: ModelInfo) -> ir.Model:
    """Export with PyTorch, nothing optimized, for any batch and any height and width that `multiple` divides."""
    batch, rows, columns = (torch.export.Dim(name) for name in ("batch", "rows", "columns"))
    free = {0: batch}
    if info.holds_points:
        x = torch.zeros(2, info.in_channels, 1, 1)
    else:
        x = torch.zeros(2, info.in_channels, 4 * info.multiple, 6 * info.multiple)
        height, width = (info.multiple * side if info.multiple > 1 else side for side in (rows, columns))
        free |= {2: height, 3: width}
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            network,
            (x, torch.zeros(2)),
            dynamo=True,
            optimize=False,
            verbose=False,
            opset_version=OPSET,
            input_names=["x", "t"],
            output_names=["out"],
            dynamic_shapes=(free, {0: batch}),
            custom_translation_table=TRANSLATIONS,
        )
    if program is None:
        raise RuntimeError("PyTorch's exporter returned nothing")
    return program.model


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter from warning of packages that are not needed here."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _write(model: onnx.ModelProto, target: Path, weight_bytes: int) -> None:
    if weight_bytes <= _LARGEST:
        with replacing(target) as temporary:
            temporary.write_bytes(model.SerializeToString(deterministic=True))
        return
    data = target.with_name(target.name + ".data")
    with replacing(target) as temporary, replacing(data) as temporary_data:
        temporary_data.unlink()  # onnx appends to what is there
        onnx.external_data_helper.convert_model_to_external_data(model, location=temporary_data.name)
        onnx.save_model(model, temporary)
        temporary_data.chmod(temporary.stat().st_mode)  # onnx lets its owner alone read it
        for tensor in model.graph.initializer:
            for entry in tensor.external_data:
                entry.value = data.name if entry.key == "location" else entry.value
        temporary.write_bytes(model.SerializeToString(deterministic=True))
