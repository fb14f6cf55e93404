import inspect
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import openvino
import pytest
import torch
from numpy.typing import NDArray
from onnx import numpy_helper

from i2sb_export import onnx as exporter
from i2sb_export.lowering import TRANSLATIONS
from i2sb_rt.errors import ModelFileError, UsageError
from i2sb_rt.model_file import load_weights, read_info, weights_sha256
from i2sb_rt.networks.loading import load_network

Exported = Any
# Never freed: the second of two that overlap leaves the thread a signal stack that is unmapped.
CORE = openvino.Core()
Network = Callable[[NDArray[np.float32], NDArray[np.float32]], NDArray[np.float32]]

# Largest relative error of a float32 forward pass against PyTorch.
TOLERANCE = 1e-5
# Batch, height and width in units of the model's multiple. Smaller ones leave the lowest level one or two pixels, whose
# norm is a sign: PyTorch itself is then 1e-3 away from float64.
SIZES = [(1, 2, 3), (1, 4, 6), (3, 9, 2)]


def _initializers(path: Path) -> dict[str, NDArray[Any]]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer}


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            assert not attribute.HasField("g"), "a nested graph; look into it too"


def test_initializers_are_the_parameters_in_half_precision(exported: Exported) -> None:
    found, source = _initializers(exported.path), load_weights(exported.source)
    assert found.keys() == source.keys()
    for name, array in source.items():
        assert found[name].dtype == np.float16
        assert found[name].tobytes() == array.astype(np.float16).tobytes(), name


def test_equal_tensors_keep_their_names(exported: Exported) -> None:
    found = _initializers(exported.path)
    contents = [(array.shape, array.tobytes()) for array in found.values()]
    assert len(set(contents)) < len(contents) - 5


def test_weights_load_back_bit_for_bit(exported: Exported) -> None:
    loaded, source = load_weights(exported.path), load_weights(exported.source)
    assert weights_sha256(loaded) == read_info(exported.path).weights_sha256
    network = load_network(exported.path)
    assert network.state_dict().keys() == source.keys()
    for name, tensor in network.state_dict().items():
        assert tensor.dtype == torch.float32
        assert tensor.numpy().tobytes() == source[name].astype(np.float16).astype(np.float32).tobytes(), name


def test_metadata_are_those_of_the_source(exported: Exported) -> None:
    info, source = read_info(exported.path), read_info(exported.source)
    assert info == exported.info
    assert info == replace(source, dtype="fp16", weights_sha256=info.weights_sha256)
    assert info.weights_sha256 != source.weights_sha256
    flat = {entry.key: entry.value for entry in onnx.load(exported.path).metadata_props}
    assert flat == info.to_metadata()


def test_the_file_is_plain_onnx(exported: Exported) -> None:
    model = onnx.load(exported.path)
    onnx.checker.check_model(model, full_check=True)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 18)]
    ports = {port.name: port.type.tensor_type for port in [*model.graph.input, *model.graph.output]}
    shapes = {name: [dim.dim_param or dim.dim_value for dim in port.shape.dim] for name, port in ports.items()}
    assert shapes == {
        "x": ["batch", exported.info.in_channels, "height", "width"],
        "t": ["batch"],
        "out": ["batch", 3, "height", "width"],
    }
    assert {port.elem_type for port in ports.values()} == {onnx.TensorProto.FLOAT}


def test_nothing_of_the_machine_is_left(exported: Exported) -> None:
    model = onnx.load(exported.path)
    data = exported.path.read_bytes()
    traces = [str(Path.cwd()), sys.prefix, str(exported.path.parent), os.sep + "home", "site-packages", ".py", "torch"]
    assert [trace for trace in traces if trace.encode() in data] == []
    assert model.producer_name == "i2sb-rt"
    assert not model.doc_string
    assert not model.functions
    assert not model.graph.doc_string
    assert not model.graph.value_info
    assert not model.graph.metadata_props
    for node in _nodes(model.graph):
        assert not node.doc_string
        assert not node.metadata_props
        assert not any(attribute.doc_string for attribute in node.attribute)


def test_nodes_are_named_after_their_modules(patched: Exported) -> None:
    names = [node.name for node in _nodes(onnx.load(patched.path).graph)]
    assert len(set(names)) == len(names)
    assert {"time_embed.0/Gemm", "input_blocks.1.0.in_layers.2/Conv", "out.1/Sigmoid"} <= set(names)


def test_no_operator_asks_a_cpu_to_reorder(patched: Exported) -> None:
    """GroupNormalization and InstanceNormalization cost OpenVINO two layout changes each."""
    kinds = {node.op_type for node in _nodes(onnx.load(patched.path).graph)}
    assert {"ReduceMean", "SpaceToDepth", "DepthToSpace"} <= kinds
    assert kinds.isdisjoint({"GroupNormalization", "InstanceNormalization", "Gather", "SequenceAt"})


@pytest.mark.parametrize("operator", TRANSLATIONS, ids=str)
def test_translations_are_called_as_their_operators_are(operator: Any) -> None:
    """PyTorch 2.10 passes over others without a word, and writes slow graphs."""
    named = list(inspect.signature(TRANSLATIONS[operator]).parameters)
    assert named == [argument.name for argument in operator._schema.arguments]


def _onnxruntime(path: Path) -> Network:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda x, t: np.asarray(session.run(["out"], {"x": x, "t": t})[0])


def _openvino(path: Path, static: bool) -> Network:
    def run(x: NDArray[np.float32], t: NDArray[np.float32]) -> NDArray[np.float32]:
        model = CORE.read_model(path)
        if static:
            model.reshape({"x": list(x.shape), "t": list(t.shape)})
        compiled = CORE.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        return np.array(compiled({"x": x, "t": t})["out"])

    return run


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino", "openvino dynamic"])
def test_any_batch_and_size_equals_pytorch(exported: Exported, engine: str) -> None:
    path = exported.path
    run = _onnxruntime(path) if engine == "onnxruntime" else _openvino(path, static=engine == "openvino")
    network, info = load_network(path), exported.info
    draw = np.random.default_rng(1)
    for batch, rows, columns in SIZES:
        size = (batch, info.in_channels, rows * info.multiple, columns * info.multiple)
        x = draw.standard_normal(size, dtype=np.float32)
        t = draw.uniform(0, 1000, batch).astype(np.float32)
        with torch.inference_mode():
            wanted = network(torch.from_numpy(x), torch.from_numpy(t)).numpy()
        found = run(x, t)
        assert found.shape == wanted.shape
        assert np.abs(found - wanted).max() <= TOLERANCE * np.abs(wanted).max(), size


def test_large_offsets_keep_the_norm_exact(patched: Exported) -> None:
    """A mean a thousand times the spread: E[x^2] - E[x]^2 in float32 would be noise."""
    network = load_network(patched.path)
    x = np.random.default_rng(2).standard_normal((1, 3, 32, 32), dtype=np.float32) + 1000
    t = np.array([500], np.float32)
    with torch.inference_mode():
        wanted = network.double()(torch.from_numpy(x).double(), torch.from_numpy(t)).numpy()
        single = network.float()(torch.from_numpy(x), torch.from_numpy(t)).numpy()
    error = np.abs(_onnxruntime(patched.path)(x, t) - wanted).max()
    assert error <= 4 * np.abs(single - wanted).max() + TOLERANCE * np.abs(wanted).max()


def test_threads_and_the_past_change_no_byte(exported: Exported, tmp_path: Path) -> None:
    info = exported.info
    x = np.random.default_rng(3).standard_normal((1, info.in_channels, 64, 48), dtype=np.float32)
    t = np.array([321], np.float32)
    outs = set()
    for threads, cache in ((1, None), (2, None), (1, tmp_path), (2, tmp_path)):
        model = CORE.read_model(exported.path)
        model.reshape({"x": list(x.shape), "t": [1]})
        options = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1}
        options |= {"CACHE_DIR": str(cache)} if cache else {}
        compiled = CORE.compile_model(model, "CPU", options)
        outs |= {compiled({"x": x, "t": t})["out"].tobytes() for _ in range(2)}
    assert len(outs) == 1


def test_fp32_keeps_every_bit_and_exports_are_reproducible(bare: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first.onnx", tmp_path / "second.onnx"
    info = exporter.export_onnx(bare, first, dtype="fp32")
    exporter.export_onnx(bare, second, dtype="fp32")
    assert first.read_bytes() == second.read_bytes()
    assert info == read_info(bare)
    source = load_weights(bare)
    assert {n: a.tobytes() for n, a in load_weights(first).items()} == {n: a.tobytes() for n, a in source.items()}


def test_weights_too_large_for_one_file_go_beside_it(
    bare: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporter, "_LARGEST", 1000)
    folder = tmp_path / "out"
    folder.mkdir()
    path = folder / "big.onnx"
    (folder / "big.onnx.data").write_bytes(b"old")
    exporter.export_onnx(bare, path)
    assert sorted(p.name for p in folder.iterdir()) == ["big.onnx", "big.onnx.data"]
    assert (folder / "big.onnx.data").stat().st_mode == (folder / "big.onnx").stat().st_mode
    network = load_network(path)
    x = np.random.default_rng(4).standard_normal((1, 3, 8, 8), dtype=np.float32)
    with torch.inference_mode():
        wanted = network(torch.from_numpy(x), torch.tensor([7.0])).numpy()
    assert np.abs(_onnxruntime(path)(x, np.array([7], np.float32)) - wanted).max() <= TOLERANCE * np.abs(wanted).max()
    (folder / "big.onnx.data").unlink()
    with pytest.raises(ModelFileError, match=r"big\.onnx: the second file"):
        load_weights(path)


@pytest.mark.parametrize(
    ("target", "dtype", "right"), [("m.onnx", "int8", "fp16 or fp32"), ("m.safetensors", "fp16", r"ends in \.onnx")]
)
def test_wrong_demands_are_refused(bare: Path, tmp_path: Path, target: str, dtype: str, right: str) -> None:
    with pytest.raises(UsageError, match=right):
        exporter.export_onnx(bare, tmp_path / target, dtype)
    assert [p.name for p in tmp_path.iterdir()] == [bare.name]
