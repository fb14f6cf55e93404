"""Networks in int8: what computes in which type, what the file says of itself, how little it moves a picture."""

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from PIL import Image

from i2sb_export.int8 import quantized, recordings
from i2sb_export.tensorrt import build_engine
from i2sb_rt import load, models, operators
from i2sb_rt.cli import main
from i2sb_rt.errors import DeviceError, ImageError, ModelFileError, UsageError
from i2sb_rt.model_file import read_info, weights_sha256
from i2sb_rt.networks.loading import load_network

Exported = Any
TASKS = ("jpeg-10-exact", "jpeg-40-exact")
OPERATORS = tuple(map(operators.get, TASKS))


def picture(height: int, width: int) -> NDArray[np.uint8]:
    y, x = np.mgrid[:height, :width]
    planes = [np.sin(x / (5 + c) + y / 9) * 90 + np.where((x + (c + 2) * y) % 23 < 11, 30, -30) for c in range(3)]
    return np.asarray(np.stack(planes, -1) + 128).clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A picture, a narrow one, a grey one."""
    folder = tmp_path_factory.mktemp("pictures")
    arrays = {"a.png": picture(80, 96), "b.png": picture(70, 40), "c.png": picture(64, 64)[..., 0]}
    for name, array in arrays.items():
        Image.fromarray(array).save(folder / name)
    return [folder / name for name in arrays]


@pytest.fixture(scope="module")
def made(patched: Exported, pictures: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("nncf")
    path: Path = tmp_path_factory.mktemp("int8") / "patched.int8.onnx"
    path.write_bytes(quantized(patched.path, pictures, TASKS, 4).SerializeToString(deterministic=True))
    return path


def tensors(path: Path) -> dict[str, NDArray[Any]]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer}


def convolutions(model: onnx.ModelProto) -> dict[str, onnx.NodeProto]:
    return {node.name.removesuffix("/Conv"): node for node in model.graph.node if node.op_type == "Conv"}


def test_the_convolutions_of_residual_blocks_read_int8(made: Path, patched: Exported) -> None:
    model, before, stored = onnx.load(made), tensors(patched.path), tensors(made)
    makers = {name: node for node in model.graph.node for name in node.output}
    inner = {scope for scope in convolutions(model) if ".in_layers." in scope or ".out_layers." in scope}
    assert len(inner) == 16
    for scope, node in convolutions(model).items():
        given, weight = (makers[name] for name in node.input[:2])
        if scope not in inner:
            assert (given.op_type == "DequantizeLinear", weight.op_type) == (False, "Cast")
            continue
        assert (given.op_type, makers[given.input[0]].op_type) == ("DequantizeLinear", "QuantizeLinear")
        assert stored[given.input[2]].dtype == np.int8
        low, scale = (stored[name] for name in weight.input)
        assert (weight.op_type, low.dtype, scale.shape) == ("DequantizeLinear", np.int8, (len(low),))
        step = scale.reshape(-1, 1, 1, 1)
        assert (np.abs(low * step - before[weight.input[0]]) <= 0.51 * step).all()
    changed = {name for name in before if before[name].tobytes() != stored[name].tobytes()}
    assert changed == {f"{scope}.weight" for scope in inner}  # so nothing of the time, of norms, of the ends


def test_openvino_runs_them_in_int8_and_the_rest_in_float(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino_telemetry", None)
    openvino = pytest.importorskip("openvino")
    core, channels = openvino.Core(), read_info(made).in_channels
    model = core.read_model(str(made))
    model.reshape({"x": [1, channels, 32, 32], "t": [1]})
    compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    nodes = [node.get_rt_info() for node in compiled.get_runtime_model().get_ops()]
    types = Counter((node["layerType"].astype(str), node["runtimePrecision"].astype(str)) for node in nodes)
    found = {precision: types["Convolution", precision] for precision in ("u8", "i8", "f32")}
    assert found == {"u8": 16, "i8": 0, "f32": len(convolutions(onnx.load(made))) - 16}
    assert not [kind for kind in types if kind[0] == "FullyConnected" and kind[1] != "f32"]


def test_the_file_is_sound_and_says_what_it_is(made: Path, patched: Exported) -> None:
    model, source, info = onnx.load(made), onnx.load(patched.path), read_info(made)
    onnx.checker.check_model(model, full_check=True)
    assert (model.opset_import, model.ir_version) == (source.opset_import, source.ir_version)
    names = [node.name for node in model.graph.node]
    assert len(names) == len(set(names))
    assert {node.name for node in source.graph.node} <= set(names)
    assert {tensor.name for tensor in source.graph.initializer} <= tensors(made).keys()
    assert info.weights_sha256 == weights_sha256(tensors(made)) != patched.info.weights_sha256
    new = {"i2sb.quantized": "int8", "i2sb.quantized_from": patched.info.weights_sha256}
    assert info.extra == {**patched.info.extra, **new}
    kept = {**patched.info.to_metadata(), **new, "i2sb.weights_sha256": info.weights_sha256}
    assert {entry.key: entry.value for entry in model.metadata_props} == kept
    assert not [word for word in (str(made.parent), str(Path.cwd()), "nncf") if word.encode() in made.read_bytes()]
    assert made.stat().st_size < 0.8 * patched.path.stat().st_size


def test_restored_pictures_hardly_change(made: Path, patched: Exported) -> None:
    image = picture(90, 70)
    for calls in (1, 3):
        found, wanted = (
            load(path, engine="native", threads=1).restore(image, nfe=calls, seed=1).astype(float)
            for path in (made, patched.path)
        )
        assert 0 < np.square(found - wanted).mean() < 1e-2 * np.square(wanted - image).mean()


def test_pytorch_refuses_it(made: Path) -> None:
    with pytest.raises(ModelFileError, match=r"int8\.onnx: its weights are in int8, for the engine native alone"):
        load_network(made)


def test_the_same_arguments_give_the_same_bytes(made: Path, patched: Exported, pictures: list[Path]) -> None:
    again = quantized(patched.path, pictures, TASKS, 4)
    assert again.SerializeToString(deterministic=True) == made.read_bytes()


def test_networks_are_calibrated_over_pictures_and_steps(pictures: list[Path]) -> None:
    path = models.find("sr4x")
    info = read_info(path)
    one, several, other = recordings(
        path, info, [pictures[0], pictures[0], pictures[2]], operators.of_task("sr4x-bicubic"), 3
    )
    assert (one["x"].shape, several["x"].shape, other["x"].shape) == ((1, 6, 80, 96), (5, 6, 80, 96), (1, 6, 64, 64))
    np.testing.assert_array_equal(several["x"][:1], one["x"])  # they begin alike, and go on
    assert (np.diff(several["t"]) < 0).all()
    np.testing.assert_array_equal(several["x"][-1, 3:], one["x"][0, 3:])  # the damaged picture stays beside the state
    assert np.ptp(other["x"][0, :3], axis=0).max() == 0  # grey


def test_crops_follow_the_seed(pictures: list[Path], patched: Exported) -> None:
    first, again, other = (
        next(recordings(patched.path, patched.info, pictures, OPERATORS, 1, seed))["x"] for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert first.shape == (2, 3, 64, 64)
    assert not np.array_equal(first, other)


def test_the_library_reports_nothing(tmp_path: Path) -> None:
    pytest.importorskip("nncf")
    code = "from i2sb_export.int8 import _library as f; f(); from nncf.telemetry import telemetry as t; print(type(t))"
    environment = {**os.environ, "HOME": str(tmp_path)}
    told = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert "MagicMock" in told.stdout
    assert not list(tmp_path.iterdir())  # where an id of the user would be kept


def test_what_cannot_be_quantized_is_said(patched: Exported, pictures: list[Path], tmp_path: Path) -> None:
    pytest.importorskip("nncf")
    with pytest.raises(UsageError, match="at least one"):
        quantized(patched.path, [], TASKS)
    with pytest.raises(UsageError, match=r"patched\.onnx: there is no operator for the task test; name"):
        quantized(patched.path, pictures)
    with pytest.raises(UsageError, match="there is no operator 'blot'"):
        quantized(patched.path, pictures, ["blot"])
    (tmp_path / "broken.png").write_bytes(pictures[0].read_bytes()[:100])
    with pytest.raises(ImageError, match=r"broken\.png"):
        quantized(patched.path, [tmp_path / "broken.png"], TASKS)
    with pytest.raises(ModelFileError, match="there is no such model file"):
        quantized(tmp_path / "none.onnx", pictures, TASKS)
    with pytest.raises(UsageError, match=r"patched\.safetensors: an \.onnx file is quantized"):
        quantized(patched.source, pictures, TASKS)
    model = onnx.load(patched.path)
    helper.set_model_props(model, {**patched.info.to_metadata(), "i2sb.quantized": "int8"})
    onnx.save(model, tmp_path / "twice.onnx")
    with pytest.raises(UsageError, match=r"twice\.onnx is quantized already"):
        quantized(tmp_path / "twice.onnx", pictures, TASKS)
    del model.graph.node[:]
    model.graph.node.append(helper.make_node("Identity", ["x"], ["out"], name="out"))
    helper.set_model_props(model, patched.info.to_metadata())
    onnx.save(model, tmp_path / "empty.onnx")
    with pytest.raises(ModelFileError, match=r"empty\.onnx: the network has no residual blocks"):
        quantized(tmp_path / "empty.onnx", pictures, TASKS)


def test_without_the_library_it_is_named(
    patched: Exported, pictures: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "nncf", None)
    monkeypatch.delitem(sys.modules, "openvino_telemetry", raising=False)
    with pytest.raises(DeviceError, match=r"i2sb-rt\[int8\]"):
        quantized(patched.path, pictures, TASKS)
    assert "openvino_telemetry" not in sys.modules  # others may import it again


def test_the_library_s_failure_is_a_sentence(
    patched: Exported, pictures: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    nncf = pytest.importorskip("nncf")

    def fails(*_: object, **__: object) -> None:
        raise RuntimeError("no ranges")

    monkeypatch.setattr(nncf, "quantize", fails)
    with pytest.raises(DeviceError, match=r"patched\.onnx: NNCF cannot quantize the network: no ranges"):
        quantized(patched.path, pictures, TASKS, 1)


def test_the_command_line_quantizes_and_proves(
    patched: Exported, pictures: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    target, options = tmp_path / "m.onnx", ["--precision", "int8", "--calibrate", str(pictures[0].parent)]

    def fake(source: Path, found: list[Path], tasks: list[str]) -> onnx.ModelProto:
        assert (found, tasks) == (sorted(pictures), list(TASKS))
        model = onnx.load(source)
        facts = {**read_info(source).to_metadata(), "i2sb.quantized": "int8"}
        helper.set_model_props(model, facts)
        return model

    monkeypatch.setattr("i2sb_export.int8.quantized", fake)
    assert main(["export", str(patched.path), "-o", str(target), *options, "--task", ",".join(TASKS)]) == 0
    told = capsys.readouterr().out
    assert "patched in int8" in told
    assert "no operator is known for the task test" in told
    for arguments, words in (
        (["-o", "m.onnx", "--precision", "int8"], "needs clean pictures: --calibrate DIR"),
        (["-o", "m.onnx", *options[2:]], "--calibrate is for an .onnx file in int8"),
        (
            ["-o", "m.onnx", *options, "--dtype", "fp32"],
            "--dtype is for an .onnx file; m.onnx becomes an .onnx file in",
        ),
        (["-o", "m.engine", *options], "makes an .onnx file"),
        (
            ["-o", "m.onnx", "--precision", "fp16"],
            "--precision is for an .onnx file in int8 (--precision int8) or an engine",
        ),
        (["-o", "m.onnx", "--precision", "int8", "--calibrate", str(tmp_path / "none")], "no such file or folder"),
    ):
        assert main(["export", str(patched.path), *arguments]) == 2
        assert words in capsys.readouterr().err


def test_every_other_engine_refuses_it(made: Path, tmp_path: Path) -> None:
    assert load(made).precision == "int8"
    for engine in ("torch", "cuda"):
        with pytest.raises((ModelFileError, DeviceError), match=r"engine native alone|CUDA device"):
            load(made, engine=engine)
    with pytest.raises(UsageError, match="is in int8, for CPUs"):
        build_engine(made, tmp_path / "m.engine", architectures=["sm89"])


def test_it_is_judged_by_the_pictures_it_restores(
    made: Path, patched: Exported, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", str(made), "--against", str(patched.source), "--task", "jpeg-10-exact"]) == 0
    told = capsys.readouterr().out
    assert "ok   jpeg-10-exact, native int8" in told
