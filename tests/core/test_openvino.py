"""OpenVINO behind its C API: the right numbers, and clear refusals."""

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx_files import make_onnx

from i2sb_rt import _core

SPEC = importlib.util.find_spec("openvino")
if SPEC is None or SPEC.submodule_search_locations is None:
    pytest.skip("OpenVINO is not installed", allow_module_level=True)
LIBRARY = str(next(Path(SPEC.submodule_search_locations[0]).glob("libs/libopenvino_c.so*")))
ROWS = np.float32([[7, 0, 1, 0, 1, 0, 0, 0, 0, 0]])  # x' = network(x, 7)


def open_engine(path: Path, **options: object) -> _core.Engine:
    return _core.Engine.openvino(_core.Model(str(path)), library=LIBRARY, **options)  # type: ignore[arg-type]


def test_the_network_is_run(tmp_path: Path) -> None:
    engine = open_engine(make_onnx(tmp_path / "model.onnx"), precision="fp32", threads=2)
    assert engine.precision == "fp32"
    assert engine.release.startswith("2026.")
    for shape in ((1, 3, 4, 4), (2, 3, 8, 12), (1, 3, 64, 32)):
        x1 = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
        out = _core.sample(engine, ROWS, x1)
        expected = x1 * np.float32([0.5, 0.25, 0.125])[:, None, None] + np.float32(0.07)
        np.testing.assert_allclose(out, expected, atol=1e-6)


def test_compiled_networks_are_kept_in_the_cache_folder(tmp_path: Path) -> None:
    path, cache = make_onnx(tmp_path / "model.onnx"), tmp_path / "cache"
    x1 = np.random.default_rng(1).standard_normal((1, 3, 8, 8)).astype(np.float32)
    first = _core.sample(open_engine(path, cache_dir=str(cache)), ROWS, x1)
    (blob,) = cache.glob("*/*.blob")
    written = blob.stat().st_mtime_ns
    np.testing.assert_array_equal(_core.sample(open_engine(path, cache_dir=str(cache)), ROWS, x1), first)
    assert blob.stat().st_mtime_ns == written


@pytest.mark.parametrize("damage", ["zeroed", "cut", "empty", "without a digest"])
def test_a_damaged_network_in_the_cache_folder_is_compiled_again(tmp_path: Path, damage: str) -> None:
    path, cache = make_onnx(tmp_path / "model.onnx"), tmp_path / "cache"
    x1 = np.random.default_rng(1).standard_normal((1, 3, 8, 8)).astype(np.float32)
    first = _core.sample(open_engine(path, cache_dir=str(cache)), ROWS, x1)
    (blob,) = cache.glob("*/*.blob")
    note, whole = blob.with_name(blob.name + ".digest"), blob.read_bytes()
    weights = onnx.numpy_helper.to_array(onnx.load(path).graph.initializer[0]).tobytes()
    blob.chmod(0o600)
    if damage == "without a digest":
        note.unlink()
    else:
        assert weights in whole
        hurt = {"zeroed": whole.replace(weights, bytes(len(weights))), "cut": whole[:-40], "empty": b""}[damage]
        blob.write_bytes(hurt)
    before = blob.stat().st_mtime_ns
    np.testing.assert_array_equal(_core.sample(open_engine(path, cache_dir=str(cache)), ROWS, x1), first)
    assert blob.stat().st_mtime_ns > before
    assert len(blob.read_bytes()) == len(whole)
    assert note.exists()


def test_a_network_that_does_not_take_the_input_says_so(tmp_path: Path) -> None:
    engine = open_engine(make_onnx(tmp_path / "model.onnx", in_channels=6))
    with pytest.raises(_core.EngineError, match="OpenVINO failed to fix the size"):
        _core.sample(engine, ROWS, np.zeros((1, 3, 4, 4), np.float32))


def test_a_library_that_is_not_there_is_refused(tmp_path: Path) -> None:
    model = _core.Model(str(make_onnx(tmp_path / "model.onnx")))
    with pytest.raises(_core.EngineError, match="cannot be opened"):
        _core.Engine.openvino(model, library=str(tmp_path / "libopenvino_c.so"))


def test_a_precision_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="auto, fp32, bf16"):
        open_engine(make_onnx(tmp_path / "model.onnx"), precision="fp8")


@pytest.fixture
def apart(tmp_path: Path) -> Path:
    """A model with weights in a second file, which OpenVINO reads itself."""
    (tmp_path / "apart").mkdir()
    path = tmp_path / "apart" / "model.onnx"
    model = onnx.load(make_onnx(path))
    onnx.save_model(model, str(path), save_as_external_data=True, location="model.onnx.data", size_threshold=33)
    return path


def test_weights_in_a_second_file_are_found_beside_the_first(tmp_path: Path, apart: Path) -> None:
    whole = make_onnx(tmp_path / "whole.onnx")
    assert _core.Model(str(apart)).tensors()["mix.weight"][2] == b""
    x1 = np.random.default_rng(2).standard_normal((1, 3, 8, 8)).astype(np.float32)
    outs = [_core.sample(open_engine(path, precision="fp32"), ROWS, x1) for path in (whole, apart)]
    np.testing.assert_array_equal(outs[0], outs[1])


def test_a_file_that_is_read_later_is_found_from_another_folder(
    apart: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(apart.parent)
    engine = open_engine(Path("model.onnx"), precision="fp32")
    monkeypatch.chdir(tmp_path)
    x1 = np.ones((1, 3, 4, 4), np.float32)
    np.testing.assert_allclose(_core.sample(engine, ROWS, x1)[0, :, 0, 0], [0.57, 0.32, 0.195], atol=1e-6)


def test_a_file_that_is_read_later_must_be_the_same(apart: Path) -> None:
    engine = open_engine(apart)
    with apart.open("ab") as file:
        file.write(b"\n")
    for _ in range(2):
        with pytest.raises(_core.ModelError, match=r"model\.onnx: it has changed since it was loaded"):
            _core.sample(engine, ROWS, np.zeros((1, 3, 4, 4), np.float32))
        apart.unlink(missing_ok=True)


def test_the_python_package_of_openvino_may_be_in_use(tmp_path: Path) -> None:
    program = """
import os, sys
import numpy as np
from i2sb_rt import _core

sys.setdlopenflags(os.RTLD_NOW | os.RTLD_GLOBAL)
import openvino

ours = _core.sample(_core.Engine.openvino(_core.Model(sys.argv[1]), library=sys.argv[2], precision="fp32"),
                    np.float32([[7, 0, 1, 0, 1, 0, 0, 0, 0, 0]]), np.ones((1, 3, 4, 4), np.float32))
compiled = openvino.Core().compile_model(sys.argv[1], "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
theirs = compiled({"x": np.ones((1, 3, 4, 4), np.float32), "t": np.float32([7])})["out"]
np.testing.assert_allclose(ours, theirs, atol=1e-6)
"""
    command = [sys.executable, "-c", program, str(make_onnx(tmp_path / "model.onnx")), LIBRARY]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr


def test_another_openvino_in_the_program_is_refused(tmp_path: Path) -> None:
    """What a program is linked with would answer in place of the library that is opened."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("cc is not on the path")
    other = tmp_path / "libother.so"
    made = [compiler, "-shared", "-fPIC", "-x", "c", "-", "-o", str(other)]
    subprocess.run(made, input="void get_openvino_version(void) {}", text=True, check=True)
    program = """
import ctypes, sys
from i2sb_rt import _core

ctypes.CDLL(sys.argv[3], mode=ctypes.RTLD_GLOBAL)
try:
    _core.Engine.openvino(_core.Model(sys.argv[1]), library=sys.argv[2])
except _core.EngineError as error:
    print(error)
"""
    command = [sys.executable, "-c", program, str(make_onnx(tmp_path / "model.onnx")), LIBRARY, str(other)]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "linked with another OpenVINO: name its libopenvino_c.so in I2SB_RT_OPENVINO" in run.stdout


def test_signals_are_delivered_after_engines_are_gone(tmp_path: Path) -> None:
    """OpenVINO leaves a thread in which two engines overlapped a signal stack that it has unmapped."""
    path = make_onnx(tmp_path / "model.onnx")
    program = """
import faulthandler, os, signal, sys
import numpy as np
from i2sb_rt import _core

faulthandler.enable()
engines = []
for _ in range(2):
    engines.append(_core.Engine.openvino(_core.Model(sys.argv[1]), library=sys.argv[2]))
    _core.sample(engines[-1], np.float32([[7, 0, 1, 0, 1, 0, 0, 0, 0, 0]]), np.zeros((1, 3, 4, 4), np.float32))
while engines:
    del engines[0]
signal.signal(signal.SIGINT, lambda *_: print("delivered"))
os.kill(os.getpid(), signal.SIGINT)
"""
    run = subprocess.run([sys.executable, "-c", program, path, LIBRARY], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout) == (0, "delivered\n"), run.stderr
