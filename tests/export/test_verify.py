import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from i2sb_export.verify import verify
from i2sb_rt.cli import main
from i2sb_rt.errors import ModelFileError
from i2sb_rt.model_file import read_info, weights_sha256

Exported = Any


def _altered(
    source: Path, target: Path, change: Callable[[dict[str, np.ndarray[Any, Any]]], None], sign: bool = True
) -> Path:
    """Copy an export with other weights; with `sign` its fingerprint is made to match them."""
    model = onnx.load(source)
    weights = {tensor.name: numpy_helper.to_array(tensor).copy() for tensor in model.graph.initializer}
    change(weights)
    for tensor in model.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(weights[tensor.name], tensor.name))
    if sign:
        info = replace(read_info(source), weights_sha256=weights_sha256(weights))
        helper.set_model_props(model, info.to_metadata())
    onnx.save(model, target)
    return target


def _one_bit(weights: dict[str, np.ndarray[Any, Any]]) -> None:
    weights["out.2.bias"].view(np.uint16)[0] ^= 1


def test_an_export_holds(exported: Exported) -> None:
    checks = verify(exported.path, exported.source)
    assert [check for check in checks if not check.holds] == []
    judged = [check for check in checks if check.limit]
    assert len(judged) == 8  # three sizes and a restoration on two engines
    assert all(0 < check.error < 1e-5 for check in judged)
    rounding = [check for check in checks if check.limit is None]
    assert all(1e-6 < check.error < 1e-2 for check in rounding)


def test_one_changed_bit_is_found(patched: Exported, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = _altered(patched.path, tmp_path / "m.onnx", _one_bit)
    (wrong,) = (check for check in verify(path, patched.source) if not check.holds)
    assert (wrong.what, wrong.error, wrong.detail) == ("weights", 1, "out.2.bias")
    assert main(["verify", str(path), "--against", str(patched.source)]) == 1
    assert "FAIL weights" in capsys.readouterr().out
    assert main(["verify", str(path), "--against", str(patched.source), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["ok"] is False
    assert [check["ok"] for check in found["checks"]] == [True, False]
    assert {"what", "error", "limit", "unit", "detail", "ok"} == set(found["checks"][0])


def test_weights_without_their_fingerprint_are_refused(patched: Exported, tmp_path: Path) -> None:
    path = _altered(patched.path, tmp_path / "m.onnx", _one_bit, sign=False)
    with pytest.raises(ModelFileError, match="weights are damaged"):
        verify(path, patched.source)
    assert main(["verify", str(path), "--against", str(patched.source)]) == 5


def test_changed_metadata_are_found(patched: Exported, tmp_path: Path) -> None:
    model = onnx.load(patched.path)
    helper.set_model_props(model, replace(read_info(patched.path), beta_max=1.0).to_metadata())
    onnx.save(model, tmp_path / "m.onnx")
    (wrong,) = (check for check in verify(tmp_path / "m.onnx", patched.source) if not check.holds)
    assert (wrong.what, wrong.detail) == ("metadata", "i2sb.beta_max")


def test_another_graph_is_found(patched: Exported, tmp_path: Path) -> None:
    """The weights and metadata are right, but one activation is another."""
    model = onnx.load(patched.path)
    (node,) = (node for node in model.graph.node if node.name == "out.1/Sigmoid")
    node.op_type = "Tanh"
    onnx.save(model, tmp_path / "m.onnx")
    wrong = [check.what for check in verify(tmp_path / "m.onnx", patched.source) if not check.holds]
    assert len(wrong) == 8


def test_export_and_verify_in_one(bare: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "m.onnx"
    assert main(["export", str(bare), "-o", str(target)]) == 0
    table = capsys.readouterr().out
    assert "ok   weights" in table
    assert "FAIL" not in table
    assert "no operator is known for the task test" in table
    target.unlink()
    assert main(["export", str(bare), "-o", str(target), "--no-verify"]) == 0
    assert "weights" not in capsys.readouterr().out.split("\n", 1)[1]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere.safetensors", "-o", "m.onnx"], "nowhere.safetensors"),
        (
            ["nowhere.safetensors", "-o", "m.pt"],
            "m.pt: what is made follows from the ending, one of .onnx, .engine, .pt2",
        ),
        (["nowhere.safetensors"], "-o"),
        (["jpeg", "-o", "m.onnx"], "jpeg is shipped as an .onnx file"),
        (
            ["a.safetensors", "-o", "m.onnx", "--shapes", "64"],
            "--shapes is for an engine; m.onnx becomes an .onnx file",
        ),
        (["a.safetensors", "-o", "m.onnx", "--arch", "sm89"], "--arch is for an engine"),
        (["a.safetensors", "-o", "m.onnx", "--device", "cpu"], "--device is for a package"),
        (["a.safetensors", "-o", "m.onnx", "--task", "jpeg-10"], "--task is for an .onnx file in int8"),
        (["jpeg", "-o", "m.engine", "--dtype", "fp16"], "--dtype is for an .onnx file; m.engine becomes an engine"),
        (["jpeg", "-o", "m.pt2", "--precision", "fp16"], "or an engine; m.pt2 becomes a package"),
    ],
)
def test_what_cannot_be_exported_is_said(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", *arguments]) in (2, 5)
    printed = capsys.readouterr()
    assert not printed.out
    assert words in printed.err
    assert "Traceback" not in printed.err


def test_failures_are_sentences(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "nowhere.onnx", "--against", "nowhere.safetensors"]) == 5
    printed = capsys.readouterr()
    assert not printed.out
    assert "Traceback" not in printed.err
