"""Exports are proved by restoring with them: each engine in a process of its own, beside eager PyTorch."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from i2sb_export import proof
from i2sb_export.proof import Request, prove
from i2sb_export.restorations import Restored, Task, Way, restorations
from i2sb_rt import load, operators
from i2sb_rt.cli import main
from i2sb_rt.engines.engine_file import EngineFile, Profile, note_of, write_engine
from i2sb_rt.errors import DeviceError, ModelFileError, UsageError
from i2sb_rt.evaluation.metrics import psnr
from i2sb_rt.image import Picture
from i2sb_rt.model_file import file_sha256, read_info
from i2sb_rt.operators.pictures import degrade

Exported = Any


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two small pictures, one of them grey."""
    folder = tmp_path_factory.mktemp("pictures")
    y, x = np.mgrid[:33, :42]
    colour = np.stack([4 * x + y, 3 * y + 40, 200 - 2 * x], axis=2).astype(np.uint8)
    Image.fromarray(colour).save(folder / "a.png")
    Image.fromarray(colour[:24, :30, 0]).save(folder / "b.png")
    return folder


def test_every_engine_restores_what_pytorch_restores(
    patched: Exported, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--against", str(patched.source), "--images", str(pictures), "--task", "jpeg-10-exact"]
    assert main(["verify", str(patched.path), *options, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["ok"] is True
    assert [row["engine"] for row in told["restorations"]] == ["pytorch", "onnxruntime", "native"]
    first = told["restorations"][0]
    assert first["agreement"] is None  # the same pictures
    for row in told["restorations"]:
        assert (row["precision"], row["calls"]) == ("fp32", 2)
        assert row["seconds"] > 0
        assert 50 * 2**20 < row["peak_memory"] < 2**33
        assert row["psnr"] == pytest.approx(first["psnr"], abs=0.05)
    assert all(row["agreement"] > 50 for row in told["restorations"][1:])
    restorer, scores = load(patched.path, engine="torch"), []
    for seed, name in enumerate(("a.png", "b.png")):
        with Image.open(pictures / name) as file:
            clean = np.asarray(file.convert("RGB"))
        damaged = degrade(Picture(clean), operators.get("jpeg-10-exact"), seed, None, full_size=True).colour
        scores.append(psnr(clean, restorer.restore(damaged, seed=seed)))
    assert told["restorations"][2]["psnr"] == pytest.approx(np.mean(scores), abs=0.05)


def test_a_loss_of_quality_fails(
    patched: Exported, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def restored(model: Path, ways: list[Way], task: Task) -> list[Restored]:
        assert (len(task.clean), task.masks) == (1, [None])
        assert (task.damaged[0] != task.clean[0]).any()
        good = Restored("pytorch", "fp32", 30.0, math.inf, 1.0, 2, None)
        return [good, replace(good, engine="onnxruntime", psnr=29.95), replace(good, engine="native", psnr=29.8)]

    monkeypatch.setattr(proof, "restorations", restored)
    monkeypatch.setattr(proof.verify, "verify", lambda *_: [])
    found = prove(Request(patched.path, patched.source, task="jpeg-5-exact"))
    assert [(check.what, check.holds) for check in found.checks] == [
        ("jpeg-5-exact, onnxruntime", True),
        ("jpeg-5-exact, native", False),
    ]
    assert main(["verify", str(patched.path), "--against", str(patched.source), "--task", "jpeg-5-exact"]) == 1
    assert "FAIL jpeg-5-exact, native" in capsys.readouterr().out


def test_a_process_that_fails_is_told(patched: Exported, tmp_path: Path) -> None:
    clean = [np.full((16, 16, 3), 99, np.uint8)]
    task = Task.of(clean, operators.get("jpeg-10-exact"), 1)
    with pytest.raises(DeviceError, match=r"restoring with pytorch failed: .*there is no such model file"):
        restorations(patched.path, [Way("pytorch", str(tmp_path / "none.safetensors"))], task)


def test_an_engine_is_held_against_the_model_it_was_built_of(
    patched: Exported, attentive: Exported, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("tensorrt_rtx")
    about = EngineFile(
        info=read_info(patched.path), library="tensorrt_rtx", version="0", architectures=("sm89",), precision="fp16",
        profile=Profile(min=(1, 8, 8), opt=(1, 8, 8), max=(1, 8, 8)), source_sha256=file_sha256(patched.path),
    )  # fmt: skip
    engine = tmp_path / "m.engine"
    write_engine(engine, b"an engine", about)
    if proof.architecture_here() is None:
        for source in (patched.source, patched.path):
            assert main(["verify", str(engine), "--against", str(source)]) == 0
            told = capsys.readouterr().out
            assert "types of convolutions" in told
            assert told.rstrip().endswith("not run here: the engine itself; compare it on its GPU.")
    with pytest.raises(ModelFileError, match="it is stale"):
        prove(Request(engine, attentive.path))
    note_of(engine).unlink()
    with pytest.raises(ModelFileError, match="what stands beside an engine cannot be read"):
        prove(Request(engine, patched.path))


@pytest.mark.parametrize(
    ("request_of", "words"),
    [
        (lambda path: Request(path.with_suffix(".bin"), path), "exports end in .onnx, .engine, .pt2"),
        (lambda path: Request(path, path, path.parent / "empty", "jpeg-10-exact"), "holds no pictures"),
        (lambda path: Request(path, path, None, "jpeg-0"), "jpeg-0: the quality of a JPEG is from 1 to 100"),
    ],
)
def test_what_cannot_be_compared_is_said(
    patched: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request_of: Any, words: str
) -> None:
    monkeypatch.setattr(proof.verify, "verify", lambda *_: [])
    (tmp_path / "empty").mkdir()
    path = tmp_path / "m.onnx"
    path.write_bytes(patched.path.read_bytes())
    with pytest.raises(UsageError, match=words):
        prove(request_of(path))
