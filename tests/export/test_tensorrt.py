"""Engines of TensorRT-RTX, which builds without a GPU; what cannot be built is said."""

import importlib.util
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch

from i2sb_export import tensorrt
from i2sb_export.onnx import export_onnx
from i2sb_export.tensorrt import build_engine, layers_of, parse_shapes
from i2sb_export.typed import retyped
from i2sb_rt import models
from i2sb_rt.cli import main
from i2sb_rt.engines.engine_file import (
    MODULES,
    Profile,
    architecture_here,
    library,
    load_engine,
    note_of,
    require_source,
)
from i2sb_rt.errors import DeviceError, ModelFileError, UsageError
from i2sb_rt.model_file import read_info, save_safetensors
from i2sb_rt.networks import UNet
from i2sb_rt.networks.presets import PRESETS

Exported = Any
HERE = [name for name in MODULES if importlib.util.find_spec(name)]
if not HERE:
    pytest.skip("neither TensorRT nor TensorRT-RTX is installed", allow_module_level=True)
rtx = pytest.mark.skipif(HERE[0] != "tensorrt_rtx", reason="TensorRT builds for the GPU that is here alone")


@rtx
@pytest.mark.parametrize(("precision", "kind"), [("fp32", "FLOAT"), ("fp16", "HALF"), ("bf16", "BF16")])
def test_a_parsed_network_computes_in_the_types_asked_for(exported: Exported, precision: str, kind: str) -> None:
    layers = layers_of(retyped(onnx.load(exported.path), precision))
    assert {found for (layer, found) in layers.counts if layer == "CONVOLUTION"} == {kind}
    assert {found for (layer, found) in layers.counts if layer == "REDUCE"} == {"FLOAT"}
    assert layers.ports == {"x": "FLOAT", "t": "FLOAT", "out": "FLOAT"}


@rtx
def test_the_jpeg_model_becomes_an_engine_for_two_gpus(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "jpeg.engine"
    options = ["--shapes", "64:512:1024", "--arch", "sm89,sm120", "--precision", "fp16"]
    assert main(["export", "jpeg", "-o", str(target), *options]) == 0
    told = capsys.readouterr().out
    assert "sm89, sm120, 1x64x64, 1x512x512, 1x1024x1024 pixels" in told
    assert "35 in HALF" in told
    assert "not run here" in told or architecture_here() in ("sm89", "sm120")
    version = library().__version__
    about, data = load_engine(target, "tensorrt_rtx", version, "sm120", "a GPU")
    assert (about.info, about.precision) == (read_info(models.find("jpeg")), "fp16")
    assert about.profile == Profile(min=(1, 64, 64), opt=(1, 512, 512), max=(1, 1024, 1024))
    assert len(data) == target.stat().st_size
    require_source(target, about, models.find("jpeg"))
    with pytest.raises(ModelFileError, match="it is stale, build it again"):
        require_source(target, about, models.find("sr4x"))
    with pytest.raises(DeviceError, match="was built for sm89, sm120, but this GPU is sm90"):
        load_engine(target, "tensorrt_rtx", version, "sm90", "a GPU")


@rtx
@pytest.mark.slow  # 552.8 million parameters: minutes, and 10 GiB of memory
def test_i2sb_s_own_network_becomes_an_engine_for_two_gpus(tmp_path: Path) -> None:
    config = PRESETS["adm256"]
    torch.manual_seed(0)
    network = UNet(**config)
    for parameter in network.parameters():
        if not parameter.any():  # what training starts at zero would be folded away
            torch.nn.init.normal_(parameter, 0, 0.02)
    weights = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    jpeg = read_info(models.find("jpeg"))
    info = replace(jpeg, network=config, cond_x1=False, multiple=32, minimum=256, tile=256, overlap=0)
    save_safetensors(tmp_path / "adm.safetensors", weights, info)
    del weights, network
    export_onnx(tmp_path / "adm.safetensors", tmp_path / "adm.onnx", "fp16")
    about = build_engine(tmp_path / "adm.onnx", tmp_path / "adm.engine", "fp16", architectures=["sm89", "sm120"])
    assert about.profile == Profile(min=(1, 256, 256), opt=(1, 256, 256), max=(1, 256, 256))
    assert about.architectures == ("sm89", "sm120")
    assert about.size > 10**9
    layers = layers_of(retyped(onnx.load(tmp_path / "adm.onnx"), "fp16"))
    assert {found for (layer, found) in layers.counts if layer == "CONVOLUTION"} == {"HALF"}


@rtx
def test_progress_is_told(exported: Exported, tmp_path: Path) -> None:
    told: list[tuple[str, float]] = []
    build_engine(exported.path, tmp_path / "m.engine", "fp16", "16:32:32", ["sm89"], lambda *x: told.append(x))
    assert all(0 <= share <= 1 for _, share in told)
    assert len({phase for phase, _ in told}) > 3
    assert told[-1][1] == 1


@pytest.mark.parametrize(
    ("text", "profile"),
    [
        ("64:512:1024", [(1, 64, 64), (1, 512, 512), (1, 1024, 1024)]),
        ("64x128:2x64x128:4x128x256", [(1, 64, 128), (2, 64, 128), (4, 128, 256)]),
        ("8x256x256", [(8, 256, 256)] * 3),
        (None, [(1, 32, 32), (1, 768, 768), (1, 768, 768)]),
    ],
)
def test_shapes_are_read(text: str | None, profile: list[tuple[int, int, int]]) -> None:
    read = parse_shapes(text, read_info(models.find("jpeg")))
    assert [read.min, read.opt, read.max] == profile


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--shapes", "64:32:128"], "each number of MIN is at most"),
        (["--shapes", "64:128"], "is MIN:OPT:MAX"),
        (["--shapes", "0"], "'0' is not a side"),
        (["--shapes", "60"], "multiples of 8, at least 32"),
        (["--shapes", "8"], "multiples of 8, at least 32"),
        (["--arch", "sm90"], "--arch sm90: tensorrt_rtx"),
        (["--arch", "turing"], "builds for sm"),
        ([], "there is no GPU to build for; name one with --arch"),
    ],
)
def test_what_cannot_be_built_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], words: str
) -> None:
    if not options and architecture_here() is not None:
        pytest.skip("there is a GPU")
    assert main(["export", "jpeg", "-o", str(tmp_path / "m.engine"), *options]) in (2, 6)
    assert words in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_name_that_is_no_engine_s_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "jpeg", "--to", "tensorrt", "-o", str(tmp_path / "m.plan"), "--arch", "sm89"]) == 2
    assert "the name of an engine ends in .engine" in capsys.readouterr().err


def test_a_machine_without_tensorrt_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in MODULES:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(DeviceError, match=r"pip install 'i2sb-rt\[tensorrt\]'"):
        build_engine(models.find("jpeg"), tmp_path / "m.engine", architectures=["sm89"])


@rtx
def test_the_gpu_that_is_here_is_the_default_and_may_be_one_that_cannot_be_built_for(
    exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tensorrt, "gpu_here", lambda: "a GPU")
    monkeypatch.setattr(tensorrt, "cache_folder", lambda _: None)
    monkeypatch.setattr(tensorrt, "architecture_here", lambda: "sm86")
    about = build_engine(exported.path, tmp_path / "m.engine", "fp16", "16:32:32")
    assert (about.architectures, about.gpu) == (("sm86",), "")
    monkeypatch.setattr(tensorrt, "architecture_here", lambda: "sm90")
    with pytest.raises(UsageError, match=r"this GPU is sm90: tensorrt_rtx .* pip install tensorrt"):
        build_engine(exported.path, tmp_path / "n.engine", "fp16", "16:32:32")
    assert not (tmp_path / "n.engine").exists()


@rtx
def test_a_builder_says_nothing_on_stdout(exported: Exported, capfd: pytest.CaptureFixture[str]) -> None:
    broken = onnx.load(exported.path)
    broken.graph.node[0].op_type = "NoSuchOperator"
    with pytest.raises(ModelFileError, match="cannot read the network"):
        layers_of(broken)
    out, err = capfd.readouterr()
    assert out == ""
    assert "tensorrt_rtx: " in err


@rtx
def test_a_model_of_one_size_has_one_shape(exported: Exported, tmp_path: Path) -> None:
    info = read_info(exported.path)
    fixed = type(info)(**{**vars(info), "minimum": 64, "tile": 64, "overlap": 16})
    assert parse_shapes(None, fixed).min == (1, 64, 64)
    with pytest.raises(UsageError, match="takes 64 x 64 pixels and no other size"):
        parse_shapes("64:64:128", fixed)


@rtx
def test_a_note_says_all_that_the_model_file_says(exported: Exported, tmp_path: Path) -> None:
    target = tmp_path / "m.engine"
    about = build_engine(exported.path, target, "fp32", "16:32:32", ["sm89"])
    facts = json.loads(note_of(target).read_text())
    assert facts["info"] == read_info(exported.path).to_metadata()
    assert about.info == read_info(exported.path)
