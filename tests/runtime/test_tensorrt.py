"""Engines of TensorRT in the loop: on a CPU with a stand-in for the library, on a GPU with the library itself."""

import importlib.util
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import standin_tensorrt
import torch
from numpy.typing import NDArray

from i2sb_rt import Restorer, load, models
from i2sb_rt.cli import main
from i2sb_rt.engines import tensorrt
from i2sb_rt.engines.engine_file import MODULES, EngineFile, Profile, note_of, write_engine
from i2sb_rt.engines.tensorrt import TensorRTEngine
from i2sb_rt.errors import DeviceError, ModelFileError, UsageError
from i2sb_rt.model_file import file_sha256, read_info

U8 = NDArray[np.uint8]
JPEG = models.find("jpeg")
PROFILE = Profile(min=(1, 32, 32), opt=(2, 64, 64), max=(2, 64, 96))


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine with a GPU and TensorRT-RTX, as far as is seen from here."""
    monkeypatch.setenv("I2SB_RT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(standin_tensorrt, "__name__", "tensorrt_rtx")
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", standin_tensorrt)
    monkeypatch.setattr(tensorrt, "architecture_here", lambda: "sm89")
    monkeypatch.setattr(tensorrt, "gpu_here", lambda: "a GPU")


def built(path: Path, model: Path = JPEG, **changes: Any) -> Path:
    """Write an engine of a model as the stand-in reads it."""
    about = EngineFile(
        info=read_info(model), library="tensorrt_rtx", version=standin_tensorrt.__version__, architectures=("sm89",),
        precision="fp16", profile=PROFILE, source_sha256=file_sha256(model),
    )  # fmt: skip
    write_engine(path, str(model).encode(), replace(about, **changes))
    return path


def pair(engine: Path, model: Path = JPEG) -> tuple[Restorer, Restorer]:
    """A model in the native loop with PyTorch, and its engine."""
    plain, ours = load(model, engine="torch"), load(model, engine="torch")
    ours.engine = TensorRTEngine(engine, model, device="cpu")
    return plain, ours


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    "options",
    [{"nfe": 1}, {"nfe": 3, "seed": 7}, {"nfe": 2, "tile": 48, "overlap": 16}, {"nfe": 9, "sampler": "dbim2"}],
)
def test_restores_as_the_native_loop(tmp_path: Path, photo: U8, options: dict[str, Any]) -> None:
    plain, ours = pair(built(tmp_path / "jpeg.engine"))
    wanted, found = (each.restore(photo, **options) for each in (plain, ours))
    assert (wanted != photo).mean() > 0.3
    assert np.abs(found.astype(int) - wanted).max() <= 1
    assert (ours.engine_name, ours.precision) == ("tensorrt", "fp16")


@pytest.mark.usefixtures("here")
def test_a_network_that_sees_x1_and_sizes_that_follow_each_other(tmp_path: Path, photo: U8) -> None:
    model = models.find("deblur")
    plain, ours = pair(built(tmp_path / "deblur.engine", model), model)
    for nfe, image in ((2, photo), (5, photo[:20]), (2, photo), (1, photo[:, :40])):
        wanted, found = (each.restore(image, nfe=nfe) for each in (plain, ours))
        assert np.abs(found.astype(int) - wanted).max() <= 1


@pytest.mark.usefixtures("here")
def test_a_size_outside_of_the_profile_is_refused_and_tiles_help(tmp_path: Path, photo: U8) -> None:
    _, ours = pair(built(tmp_path / "jpeg.engine"))
    large = np.tile(photo, (3, 3, 1))
    with pytest.raises(UsageError, match=r"takes 1x32x32 to 2x64x96 .* not 1x112x160; choose another tile"):
        ours.restore(large, nfe=1)
    assert ours.restore(large, nfe=1, tile=64, overlap=16).shape == large.shape


@pytest.mark.usefixtures("here")
def test_one_image_is_not_filled_up_to_the_batch_of_tiles(tmp_path: Path, photo: U8) -> None:
    seen: list[tuple[int, ...]] = []
    shape_of = standin_tensorrt.Context.set_input_shape
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            standin_tensorrt.Context, "set_input_shape",
            lambda self, name, shape: seen.append(shape) or shape_of(self, name, shape),
        )  # fmt: skip
        _, ours = pair(built(tmp_path / "jpeg.engine"))
        ours.restore(photo, nfe=1)
        ours.restore(np.tile(photo, (3, 3, 1)), nfe=1, tile=64, overlap=16)
    assert [shape[0] for shape in seen if len(shape) == 4] == [1, 2]


@pytest.mark.usefixtures("here")
def test_compiled_kernels_are_kept_for_the_next_process(tmp_path: Path, photo: U8) -> None:
    for runs in (1, 2):
        _, ours = pair(built(tmp_path / "jpeg.engine"))
        ours.restore(photo, nfe=1)
        ours.restore(photo, nfe=1)
        (kept,) = (tmp_path / "cache" / "tensorrt").iterdir()
        assert kept.read_bytes().count(b"kernels") > runs - 1


@pytest.mark.usefixtures("here")
def test_compiled_kernels_that_were_damaged_are_not_let_in(
    tmp_path: Path, photo: U8, monkeypatch: pytest.MonkeyPatch
) -> None:
    let_in: list[bytes] = []
    monkeypatch.setattr(standin_tensorrt.RuntimeCache, "deserialize", lambda self, blob: let_in.append(blob))
    _, ours = pair(built(tmp_path / "jpeg.engine"))
    ours.restore(photo, nfe=1)
    (kept,) = (tmp_path / "cache" / "tensorrt").iterdir()
    sound = kept.read_bytes()
    for damaged in (sound[:-1], sound[:40] + b"K" + sound[41:], b"short", b""):
        kept.write_bytes(damaged)
        pair(tmp_path / "jpeg.engine")
    assert not let_in
    kept.write_bytes(sound)
    pair(tmp_path / "jpeg.engine")
    assert let_in == [b"kernels" * let_in[0].count(b"kernels")] != [b""]


@pytest.mark.usefixtures("here")
def test_what_the_library_refuses_is_an_error(tmp_path: Path, photo: U8, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("set_input_shape", "set_tensor_address", "execute_async_v3"):
        with monkeypatch.context() as patch:
            patch.setattr(standin_tensorrt.Context, name, lambda *_: False)
            _, ours = pair(built(tmp_path / "jpeg.engine"))
            with pytest.raises(DeviceError, match="TensorRT could not run the engine"):
                ours.restore(photo, nfe=1)

    def none(*_: object) -> None:  # as pybind11 says that a factory gave nothing
        raise TypeError("pybind11::init(): factory function returned nullptr")

    monkeypatch.setattr(standin_tensorrt.Runtime, "__init__", none)
    with pytest.raises(DeviceError, match=r"tensorrt_rtx 1\.2\.3 cannot start"):
        pair(built(tmp_path / "jpeg.engine"))


@pytest.mark.usefixtures("here")
def test_an_engine_is_checked_before_its_bytes_are_let_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = built(tmp_path / "jpeg.engine")
    with pytest.raises(ModelFileError, match="was built of another sr4x"):
        TensorRTEngine(engine, models.find("sr4x"), device="cpu")
    for change, words in (
        ({"version": "1.2.2"}, "built by tensorrt_rtx 1.2.2, which alone can read it"),
        ({"architectures": ("sm75",)}, "built for sm75, but this GPU is sm89"),
        ({"library": "os"}, "'os' is no release of TensorRT"),
        ({"library": "tensorrt"}, r"need tensorrt: pip install|built by tensorrt"),
    ):
        with pytest.raises(DeviceError, match=words):
            TensorRTEngine(built(tmp_path / "other.engine", **change), JPEG, device="cpu")
    for damaged in (engine.read_bytes()[:-1], b"x" + engine.read_bytes()[1:]):
        engine.write_bytes(damaged)
        with pytest.raises(ModelFileError, match=r"cut short|bytes were changed"):
            TensorRTEngine(engine, JPEG, device="cpu")
    write_engine(engine, b"/no/model", replace(tensorrt.read_note(built(engine))))
    with pytest.raises(DeviceError, match="cannot read the engine"):
        TensorRTEngine(engine, JPEG, device="cpu")
    monkeypatch.setattr(tensorrt, "architecture_here", lambda: None)
    with pytest.raises(DeviceError, match="no CUDA device"):
        TensorRTEngine(engine, JPEG, device="cpu")


def test_the_command_line_takes_engines(tmp_path: Path, photo: U8, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["restore", "x.png", "-o", "y.png", "--engine", "jpeg.plan"]) == 2
    assert "one of auto, native, torch, cuda, or FILE.engine" in capsys.readouterr().err
    with pytest.raises(UsageError, match="precision is a choice at the building"):
        load(JPEG, engine=str(tmp_path / "jpeg.engine"), precision="fp32")
    if not torch.cuda.is_available():
        with pytest.raises(DeviceError, match="no CUDA device"):
            load(JPEG, engine=str(tmp_path / "jpeg.engine"))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_built_engine_restores(tmp_path: Path, photo: U8, precision: str, capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnx")
    if not any(importlib.util.find_spec(name) for name in MODULES):
        pytest.skip("neither TensorRT nor TensorRT-RTX is installed")
    from i2sb_export.tensorrt import build_engine

    about = build_engine(JPEG, tmp_path / "jpeg.engine", precision, "32:64:512")
    assert json.loads(note_of(tmp_path / "jpeg.engine").read_text())["precision"] == about.precision == precision
    plain = load(JPEG, engine="torch", precision="fp32")
    restorer = load(JPEG, engine=str(tmp_path / "jpeg.engine"))
    for image, nfe in ((photo, 1), (photo[:32], 3), (photo, 12), (photo[:32], 1)):
        wanted, found = (each.restore(image, nfe=nfe) for each in (plain, restorer))
        assert np.abs(found.astype(int) - wanted).mean() <= (0.02 if precision == "fp32" else 0.5)
        np.testing.assert_array_equal(restorer.restore(image, nfe=nfe), found)
    images = [np.roll(photo, shift, axis=1) for shift in range(7)]
    for image, found in zip(images, restorer.restore(images, nfe=3), strict=True):
        np.testing.assert_array_equal(restorer.restore(image, nfe=3), found)
    assert capfd.readouterr().out == ""
