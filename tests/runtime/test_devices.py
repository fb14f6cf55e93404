import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from i2sb_kernels import _native
from i2sb_rt import inventory, load
from i2sb_rt.cli import main

ROOT = Path(__file__).parents[2]


def listed(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert main(["devices", "--json"]) == 0
    facts: dict[str, Any] = json.loads(capsys.readouterr().out)
    return facts


def test_every_engine_is_here_or_says_why_not(capsys: pytest.CaptureFixture[str]) -> None:
    facts = listed(capsys)
    assert (facts["schema"], facts["cpu"]["isa"]) == (1, _native.isa_best())
    assert facts["cpu"]["cores"] >= 1
    assert facts["cpu"]["name"]
    engines = {one["engine"]: one for one in facts["engines"]}
    assert list(engines) == ["native", "torch", "cuda", "tensorrt"]
    assert all(bool(one["missing"]) != bool(one["library"]) for one in engines.values())
    assert re.fullmatch(r"OpenVINO 20\d\d\.\d+\.\d+", engines["native"]["library"])
    assert facts["auto"] == load("jpeg").engine_name
    for name in ("native", "torch"):
        assert engines[name]["precision"] == load("jpeg", name).precision


def test_the_lines_say_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    facts = listed(capsys)
    assert main(["devices"]) == 0
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert facts["cpu"]["name"] in lines["cpu"]
    for one in facts["engines"]:
        wanted = f"not here: {one['missing']}" if one["missing"] else one["library"]
        assert lines[one["engine"]].startswith(wanted)
    assert lines["auto"] == facts["auto"]


def test_an_engine_that_cannot_run_says_why(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("I2SB_RT_OPENVINO", str(tmp_path / "none.so"))
    facts = listed(capsys)
    assert "I2SB_RT_OPENVINO" in facts["engines"][0]["missing"]
    assert facts["engines"][1]["library"].startswith("PyTorch ")
    assert facts["auto"] == ""
    assert main(["devices"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].split() == ["auto", "none"]


def test_gpus_are_those_of_pytorch(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    card = SimpleNamespace(name="A Card\x1b[2J", major=9, minor=0, total_memory=80 << 30)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda index: card)
    monkeypatch.setattr(inventory, "offers", list)
    assert listed(capsys)["gpus"] == [{"name": card.name, "architecture": "sm90", "memory": 80 << 30}] * 2
    assert main(["devices"]) == 0
    assert capsys.readouterr().out.splitlines()[2] == "gpu 1     A Card\N{REPLACEMENT CHARACTER}[2J, sm90, 80.0 GiB"


def test_without_pytorch_there_are_no_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    assert inventory.gpus() == []


def test_what_is_broken_is_told_like_what_is_missing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> Any:
        raise RuntimeError("the driver is too old\nand more")

    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    monkeypatch.setattr("torch.cuda.get_device_properties", broken)
    monkeypatch.setattr(inventory, "load", broken)
    facts = listed(capsys)
    assert facts["gpus"] == []
    assert [one["missing"] for one in facts["engines"][:3]] == ["RuntimeError: the driver is too old"] * 3
    assert facts["auto"] == ""


def test_tensorrt_needs_a_library_and_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    found = SimpleNamespace(__name__="tensorrt_rtx", __version__="1.2.3")
    monkeypatch.setattr("i2sb_rt.engines.engine_file.library", lambda: found)
    monkeypatch.setattr("i2sb_rt.engines.engine_file.architecture_here", lambda: None)
    assert "PyTorch finds no CUDA device here" in inventory.offer("tensorrt").missing
    monkeypatch.setattr("i2sb_rt.engines.engine_file.architecture_here", lambda: "sm90")
    assert inventory.offer("tensorrt") == inventory.Offer("tensorrt", "tensorrt_rtx 1.2.3")


def test_every_command_has_a_section() -> None:
    from i2sb_rt.cli import _COMMANDS

    sections = re.findall(r"^## i2sb-rt (\w+)$", (ROOT / "docs" / "cli.md").read_text(), re.MULTILINE)
    assert sorted(sections) == sorted(_COMMANDS)
