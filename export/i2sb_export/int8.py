"""An exported network whose residual blocks convolve in 8 bits, for CPUs: NNCF finds the scales, the graph is kept.

Their convolutions take bytes, with one scale and zero for the input and one scale a channel for the weights. In
float32 stay the first and the last convolution, those that read what the blocks add up (skips, changes of size,
attention), the path of the time, norms and sums.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from i2sb_export.typed import retyped
from i2sb_rt import _core, operators
from i2sb_rt.errors import DeviceError, ModelFileError, UsageError, from_core
from i2sb_rt.image import Picture, read
from i2sb_rt.model_file import ModelInfo, read_info, weights_sha256
from i2sb_rt.model_info import QUANTIZED
from i2sb_rt.operators import Operator
from i2sb_rt.operators.base import Draws
from i2sb_rt.operators.pictures import degrade
from i2sb_rt.restorer import Restorer

# Convolutions that read a norm's output. What the blocks add up has a few large values: in int8 it costs far more.
_INNER: Final = (".in_layers.", ".out_layers.")
_SIDE: Final = 256  # pixels of the crops that are restored
_CALLS: Final = 5  # of every other restoration; the others make as many as the model does by itself
_CROPS: Final = 3  # the purpose of draws that choose where to cut, beside those of `operators.base`
_LARGEST: Final = 2_000_000_000  # bytes of a network that NNCF takes

Arrays = dict[str, NDArray[Any]]


def quantized(
    source: Path, pictures: Sequence[Path], tasks: Sequence[str] = (), samples: int = 28, seed: int = 0
) -> onnx.ModelProto:
    """Return the .onnx model `source` with residual blocks in int8, for the engine `native`; its metadata say so.

    pictures: clean ones, not those that it will be judged by. `samples` crops of them are damaged by `tasks`, names of
    operators, by default what the model's task stands for, and restored in float32, half of them in several calls: what
    the network sees on the way sets the scales. The same arguments give the same bytes.
    Raises UsageError for what cannot be calibrated with, ModelFileError for a model that cannot be read or has nothing
    to quantize, ImageError for a picture that cannot be read, DeviceError where NNCF is missing or fails.
    Source: arXiv 1712.05877, section 2.1; the ranges are the means over restorations of smallest and largest values.
    """
    if source.suffix != ".onnx":
        raise UsageError(f"{source}: an .onnx file is quantized; `i2sb-rt export` makes one of a trained model.")
    info, model = read_info(source), onnx.load(str(source))
    if info.is_quantized:
        raise UsageError(f"{source} is quantized already; give the model that it was made of.")
    floats = retyped(model, "fp32")
    if floats.ByteSize() > _LARGEST:
        raise ModelFileError(f"{source}: a network above {_LARGEST} bytes in float32 cannot be quantized.")
    others = [node.name for node in floats.graph.node if not _is_inner(node)]
    if len(others) == len(floats.graph.node):
        raise ModelFileError(f"{source}: the network has no residual blocks, so there is nothing to quantize.")
    nncf = _library()
    seen = list(recordings(source, info, pictures, _operators(source, info, tasks), samples, seed))
    layers = dict(_layers(_measured(nncf, source, floats, others, seen)))
    made = _rewritten(model, layers)
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in made.graph.initializer}
    extra = {**info.extra, QUANTIZED: "int8", "i2sb.quantized_from": info.weights_sha256}
    helper.set_model_props(made, replace(info, weights_sha256=weights_sha256(weights), extra=extra).to_metadata())
    return made


def _measured(
    nncf: Any, source: Path, floats: onnx.ModelProto, others: Sequence[str], seen: Sequence[Arrays]
) -> onnx.ModelProto:
    """Return what NNCF makes of a network in float32, all but the nodes `others` quantized."""
    # Weights of 7 bits, for CPUs without VNNI add up pairs of products in 16; and a correction of biases gains nothing.
    settings = nncf.AdvancedQuantizationParameters(overflow_fix=nncf.OverflowFix.ENABLE, disable_bias_correction=True)
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # where it draws bars
            return nncf.quantize(  # type: ignore[no-any-return]
                floats,
                nncf.Dataset(seen),
                subset_size=len(seen),
                preset=nncf.QuantizationPreset.MIXED,
                target_device=nncf.TargetDevice.CPU,
                ignored_scope=nncf.IgnoredScope(list(others)),
                advanced_parameters=settings,
            )
    except Exception as error:  # whatever it says
        raise DeviceError(f"{source}: NNCF cannot quantize the network: {error}") from error


def _is_inner(node: onnx.NodeProto) -> bool:
    return node.op_type == "Conv" and any(part in node.name for part in _INNER)


def _library() -> Any:
    """Import NNCF without the package by which it would report every use of it to its makers."""
    reporter = sys.modules.get("openvino_telemetry")
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # makes an import of it fail
    try:
        nncf = importlib.import_module("nncf")
    except ImportError:
        raise DeviceError("quantizing needs NNCF: pip install 'i2sb-rt[int8]'.") from None
    finally:
        del sys.modules["openvino_telemetry"]
        if reporter is not None:
            sys.modules["openvino_telemetry"] = reporter
    nncf.set_log_level(logging.ERROR)
    return nncf


def _operators(source: Path, info: ModelInfo, tasks: Sequence[str]) -> Sequence[Operator]:
    found = tuple(operators.get(name) for name in tasks) or operators.of_task(info.task)
    if not found:
        raise UsageError(f"{source}: there is no operator for the task {info.task}; name those to calibrate with.")
    return found


def recordings(
    source: Path, info: ModelInfo, pictures: Sequence[Path], tasks: Sequence[Operator], samples: int, seed: int = 0
) -> Iterator[Arrays]:
    """Damage and restore crops of pictures; yield for each what the network is given: x [calls, C, H, W], t [calls].

    The calls of one restoration stay together, so that a range spans all its steps.
    """
    if info.is_dsb:
        raise UsageError(f"{source}: a DSB model restores no pictures, so there is nothing to calibrate it with.")
    if not pictures or samples < 1:
        raise UsageError("quantizing needs clean pictures to calibrate with, at least one.")
    recorder = _Recorder(source)
    with from_core():
        restorer = Restorer(source, info, _core.Model(str(source)), recorder)
    plans = [restorer.plan(calls) for calls in (None, min(_CALLS, info.interval - 1))]
    draws, side = Draws(seed, _CROPS), max(min(_SIDE, info.tile), info.minimum)
    for number in range(samples):
        operator = tasks[number // 2 % len(tasks)]
        clean = _crop(read(pictures[number * len(pictures) // samples]), side, operator.factor, draws)
        mask = operator.mask(clean.height, clean.width, number)
        damaged = degrade(clean, operator, number, mask, full_size=info.upscale == 1)
        recorder.seen.clear()
        restorer.restore_picture(damaged, plans[number % 2], number, mask, tile=0)
        x, t = zip(*recorder.seen, strict=True)
        yield {"x": np.concatenate(x), "t": np.concatenate(t)}


class _Recorder:
    """The network in float32, as an engine that keeps what it is given."""

    name, precision = "onnxruntime", "fp32"

    def __init__(self, path: Path) -> None:
        onnxruntime = importlib.import_module("onnxruntime")
        self._session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        self.seen: list[tuple[NDArray[np.float32], NDArray[np.float32]]] = []
        self.core = _core.Engine.callback(self._predict)

    def _predict(self, x: NDArray[np.float32], t: NDArray[np.float32]) -> NDArray[np.float32]:
        self.seen.append((x.copy(), t.copy()))
        out: NDArray[np.float32] = self._session.run(["out"], {"x": x, "t": t})[0]
        return out


def _crop(picture: Picture, side: int, factor: int, draws: Draws) -> Picture:
    """Cut a square out of a picture, or what it has of one, with sides that are multiples of a factor."""
    height, width = (min(side, whole) // factor * factor for whole in (picture.height, picture.width))
    top, left = draws.below(picture.height - height + 1), draws.below(picture.width - width + 1)
    return Picture(picture.colour[top : top + height, left : left + width])


def _layers(model: onnx.ModelProto) -> Iterator[tuple[str, Arrays]]:
    """Read the convolutions between quantized values out of what NNCF made, each with the name of its module.

    Its input stands for input_scale (q - input_zero_point), channel k of its weights for weight_scale[k] weight[k].
    """
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    makers = {name: node for node in model.graph.node for name in node.output}
    for node in model.graph.node:
        if node.op_type == "Conv" and node.input[1] in makers:
            (_, scale, zero), (weight, weight_scale, *_) = (makers[name].input for name in node.input[:2])
            names = {"weight": weight, "weight_scale": weight_scale, "input_scale": scale, "input_zero_point": zero}
            yield node.name.removesuffix("/Conv"), {key: arrays[name] for key, name in names.items()}


def _rewritten(model: onnx.ModelProto, layers: Mapping[str, Arrays]) -> onnx.ModelProto:
    """Return the exported model with these layers in the place of its own; every other node and weight is kept."""
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    weights = {f"{scope}.weight" for scope in layers}
    made = onnx.ModelProto()
    made.CopyFrom(model)
    del made.graph.node[:], made.graph.initializer[:]
    for node in model.graph.node:
        scope = node.name.removesuffix("/Conv")
        if scope in layers:
            stored |= {f"{scope}.{key}": array for key, array in layers[scope].items()}
            made.graph.node.extend(_in_int8(node, scope))
        elif node.op_type != "Cast" or node.input[0] not in weights:
            made.graph.node.append(node)
    made.graph.initializer.extend(numpy_helper.from_array(stored[name], name) for name in sorted(stored))
    return made


def _in_int8(node: onnx.NodeProto, scope: str) -> list[onnx.NodeProto]:
    """Return a convolution behind what quantizes its input and what reads its weights, stored by `_rewritten`."""
    range_ = [f"{scope}.input_scale", f"{scope}.input_zero_point"]
    low, given = f"{scope}/QuantizeLinear", f"{scope}/DequantizeLinear"
    weight, real = f"{scope}.weight", f"{scope}.weight/fp32"
    convolution = onnx.NodeProto()
    convolution.CopyFrom(node)
    convolution.input[:2] = [given, real]
    return [
        helper.make_node("QuantizeLinear", [node.input[0], *range_], [low], name=low),
        helper.make_node("DequantizeLinear", [low, *range_], [given], name=given),
        helper.make_node("DequantizeLinear", [weight, f"{weight}_scale"], [real], name=real, axis=0),
        convolution,
    ]
