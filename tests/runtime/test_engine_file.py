"""Built engines on disk: nothing reaches an engine's own loader but the bytes that its note tells of."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from i2sb_rt.engines.engine_file import EngineFile, Profile, load_engine, note_of, read_note, write_engine
from i2sb_rt.errors import DeviceError, ModelFileError, OutputError
from i2sb_rt.model_file import ModelInfo

DATA = bytes(range(256)) * 5
HERE = ("tensorrt_rtx", "1.7.1", "sm89", "a GPU")


@pytest.fixture
def engine(tmp_path: Path, toy_info: ModelInfo) -> Path:
    profile = Profile(min=(1, 64, 64), opt=(1, 64, 128), max=(4, 256, 256))
    about = EngineFile(
        info=toy_info, library="tensorrt_rtx", version="1.7.1", architectures=("sm89", "sm120"), precision="fp16",
        profile=profile, source_sha256="0" * 64,
    )  # fmt: skip
    write_engine(tmp_path / "é toy.engine", DATA, about)
    return tmp_path / "é toy.engine"


def test_an_engine_comes_back_with_all_that_is_known_of_it(engine: Path, toy_info: ModelInfo) -> None:
    about, data = load_engine(engine, *HERE)
    assert (data, about.info, about.size) == (DATA, toy_info, len(DATA))
    assert about.profile == Profile(min=(1, 64, 64), opt=(1, 64, 128), max=(4, 256, 256))
    assert sorted(path.name for path in engine.parent.iterdir()) == ["é toy.engine", "é toy.engine.json"]


@pytest.mark.parametrize(
    ("here", "words"),
    [
        (("tensorrt_rtx", "1.7.2", "sm89", "a GPU"), "was built by tensorrt_rtx 1.7.1, which alone can read it"),
        (("tensorrt", "1.7.1", "sm89", "a GPU"), "but tensorrt 1.7.1 is here"),
        (("tensorrt_rtx", "1.7.1", "sm90", "a GPU"), "was built for sm89, sm120, but this GPU is sm90"),
    ],
)
def test_another_library_or_gpu_is_refused(engine: Path, here: tuple[str, str, str, str], words: str) -> None:
    with pytest.raises(DeviceError, match=words):
        load_engine(engine, *here)


def test_an_engine_of_one_gpu_alone_is_refused_on_its_like(engine: Path) -> None:
    write_engine(engine, DATA, replace(read_note(engine), gpu="NVIDIA H100 80GB HBM3"))
    with pytest.raises(DeviceError, match="was built for NVIDIA H100 80GB HBM3, but this GPU is a GPU; build it again"):
        load_engine(engine, *HERE)
    assert load_engine(engine, *HERE[:3], "NVIDIA H100 80GB HBM3")[1] == DATA


@pytest.mark.parametrize("kept", [0, 1, 640, 1279])
def test_a_truncated_engine_is_refused(engine: Path, kept: int) -> None:
    engine.write_bytes(DATA[:kept])
    with pytest.raises(ModelFileError, match=f"is {kept} bytes long, not 1280: it was cut short"):
        load_engine(engine, *HERE)


def test_an_altered_engine_is_refused(engine: Path) -> None:
    engine.write_bytes(DATA[:-1] + b"\0")
    with pytest.raises(ModelFileError, match="its bytes were changed"):
        load_engine(engine, *HERE)


def test_an_engine_without_its_note_or_a_note_without_its_engine_is_refused(engine: Path) -> None:
    whole = note_of(engine).read_bytes()
    note_of(engine).unlink()
    with pytest.raises(ModelFileError, match=r"what stands beside an engine cannot be read: .*\.engine\.json"):
        load_engine(engine, *HERE)
    note_of(engine).write_bytes(whole)
    engine.unlink()
    with pytest.raises(ModelFileError, match="cannot be read"):
        load_engine(engine, *HERE)


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"sha256": "0"},
        {"sha256": 7},
        {"size": "1280"},
        {"architectures": "sm89"},
        {"architectures": [89]},
        {"library": None},
        {"gpu": None},
        {"profile": {"min": [1, 64, 64], "opt": [1, 64, 64]}},
        {"profile": {"min": [1, 64], "opt": [1, 64, 64], "max": [1, 64, 64]}},
        {"profile": {"min": [1, 64, -64], "opt": [1, 64, 64], "max": [1, 64, 64]}},
        {"info": []},
        {"info": {"i2sb.name": 3}},
    ],
)
def test_a_note_that_is_none_is_refused(engine: Path, change: dict[str, Any]) -> None:
    facts = json.loads(note_of(engine).read_text())
    note_of(engine).write_text(json.dumps(facts | change))
    with pytest.raises(ModelFileError, match=r"not the note of an engine of this release"):
        read_note(engine)


@pytest.mark.parametrize("text", ["", "[1]", "{", "[" * 100_000, "nonsense", "null"])
def test_notes_that_are_no_json_object_are_refused(engine: Path, text: str) -> None:
    note_of(engine).write_text(text)
    with pytest.raises(ModelFileError):
        read_note(engine)


def test_metadata_of_no_model_are_refused(engine: Path) -> None:
    facts = json.loads(note_of(engine).read_text())
    del facts["info"]["i2sb.tile"]
    note_of(engine).write_text(json.dumps(facts))
    with pytest.raises(ModelFileError, match=r"lack the key i2sb\.tile"):
        read_note(engine)


def test_a_failed_write_leaves_no_note_beside_another_engine(engine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    about = read_note(engine)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OutputError, match="No space left"):
        write_engine(engine, b"another", about)
    assert engine.read_bytes() == DATA
    assert not note_of(engine).exists()
