"""What `convert` must not run, load or fall over: pickles as options.pkl and inside latest.pt, archives, damage."""

import argparse
import contextlib
import pickle
import struct
import sys
import time
import zipfile
from collections import OrderedDict
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import hostile_pickles
import numpy as np
import pytest
from hostile_pickles import NAMESPACE, in_archive, lying, running, stack_global, text
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from i2sb_rt.cli import main  # noqa: E402
from i2sb_rt.conversion import checkpoint  # noqa: E402
from i2sb_rt.conversion.checkpoint import load_checkpoint  # noqa: E402
from i2sb_rt.conversion.options import read_options  # noqa: E402
from i2sb_rt.errors import ModelFileError  # noqa: E402

GOLDEN = Path(__file__).parents[1] / "data" / "nvlabs_options.pkl"
RUNNING = sorted(running(Path("canary")))
LYING = sorted(lying())


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    return tmp_path / "canary"


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    """A sound .pt file."""
    path = tmp_path / "sound.pt"
    net = OrderedDict(weight=torch.arange(12.0).view(3, 4), bias=torch.ones(5))
    torch.save({"net": net, "ema": {"shadow_params": list(net.values())}, "step": 7}, path)
    return path


def untouched(canary: Path) -> bool:
    return not canary.exists() and not hostile_pickles.CALLED


@pytest.mark.parametrize("case", RUNNING)
def test_the_pickles_are_hostile(case: str, canary: Path) -> None:
    with contextlib.suppress(Exception):  # after it ran
        pickle.loads(running(canary)[case][0])
    end = time.monotonic() + 20
    while untouched(canary) and time.monotonic() < end:  # what Popen began may need a moment
        time.sleep(0.01)
    ran = not untouched(canary)
    hostile_pickles.CALLED.clear()
    assert ran


@pytest.mark.parametrize("case", RUNNING + LYING)
def test_a_hostile_options_file_is_refused_by_name(case: str, canary: Path, tmp_path: Path) -> None:
    data, words = {**running(canary), **lying()}[case]
    path = tmp_path / "options.pkl"
    path.write_bytes(data)
    with pytest.raises(ModelFileError) as caught:
        read_options(path)
    assert words in str(caught.value)
    assert str(path) in str(caught.value)
    assert len(str(caught.value)) < len(str(path)) + 300
    assert untouched(canary)


@pytest.mark.parametrize("case", RUNNING + LYING)
def test_a_hostile_pickle_in_an_archive_is_refused_by_name(case: str, canary: Path, sound: Path) -> None:
    data, words = {**running(canary), **lying()}[case]
    path = sound.with_name("latest.pt")
    path.write_bytes(in_archive(data, sound))
    with pytest.raises(ModelFileError) as caught:
        load_checkpoint(path)
    assert str(path) in str(caught.value)
    if case in RUNNING:  # what options may name is refused here as well
        assert any(word in str(caught.value) for word in (words, "argparse.Namespace", "pathlib.PurePosixPath"))
    assert untouched(canary)


@pytest.mark.parametrize("case", RUNNING)
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_pytorch_refuses_on_its_own(case: str, canary: Path, sound: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = sound.with_name("latest.pt")
    path.write_bytes(in_archive(running(canary)[case][0], sound))
    monkeypatch.setattr(checkpoint, "_check", lambda _: None)
    with pytest.raises(ModelFileError, match="refused by PyTorch") as caught:
        load_checkpoint(path)
    assert "weights_only" not in str(caught.value)  # its advice to open the file nevertheless is not passed on
    assert untouched(canary)


@pytest.mark.parametrize("case", RUNNING)
def test_a_hostile_pickle_in_place_of_an_archive_is_refused(case: str, canary: Path, tmp_path: Path) -> None:
    path = tmp_path / "latest.pt"
    path.write_bytes(running(canary)[case][0])
    with pytest.raises(ModelFileError, match="no zip archive"):
        load_checkpoint(path)
    assert untouched(canary)


def test_the_command_refuses_with_5_and_writes_nothing(
    canary: Path, tmp_path: Path, sound: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "results"
    folder.mkdir()
    hostile = running(canary)["system in protocol 4"][0]
    out = tmp_path / "out.safetensors"
    for options, latest in ((hostile, sound.read_bytes()), (GOLDEN.read_bytes(), in_archive(hostile, sound))):
        (folder / "options.pkl").write_bytes(options)
        (folder / "latest.pt").write_bytes(latest)
        assert main(["convert", str(folder), "-o", str(out)]) == 5
        assert "posix.system" in capsys.readouterr().err
    assert untouched(canary)
    assert not out.exists()


def test_options_over_64_kib_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "options.pkl"
    space = argparse.Namespace(note="")
    room = 64 * 1024 - len(pickle.dumps(argparse.Namespace(note="x" * 60000), 3)) + 60000
    path.write_bytes(pickle.dumps(argparse.Namespace(note="x" * room), 3))
    assert path.stat().st_size == 64 * 1024
    assert read_options(path) == {"note": "x" * room}
    space.note = "x" * (room + 1)
    path.write_bytes(pickle.dumps(space, 3))
    with pytest.raises(ModelFileError, match="more than 65536 bytes"):
        read_options(path)


def test_a_pipe_or_a_folder_is_no_file(tmp_path: Path) -> None:
    Path(tmp_path / "options.pkl").mkdir()
    Path(tmp_path / "latest.pt").mkdir()
    for read, name in ((read_options, "options.pkl"), (load_checkpoint, "latest.pt")):
        with pytest.raises(ModelFileError, match="no such file"):
            read(tmp_path / name)


def test_a_cut_options_file_is_damaged(tmp_path: Path) -> None:
    path, whole = tmp_path / "options.pkl", GOLDEN.read_bytes()
    for end in range(len(whole)):
        path.write_bytes(whole[:end])
        with pytest.raises(ModelFileError):
            read_options(path)


def test_a_changed_options_file_is_read_or_refused(tmp_path: Path) -> None:
    path, rng = tmp_path / "options.pkl", np.random.default_rng(0)
    for _ in range(1500):
        data = bytearray(GOLDEN.read_bytes())
        for place in rng.integers(0, len(data), rng.integers(1, 6)):
            data[place] = rng.integers(256)
        path.write_bytes(data)
        with contextlib.suppress(ModelFileError):
            assert isinstance(read_options(path), dict)


def test_a_changed_pickle_in_an_archive_is_read_or_refused(sound: Path) -> None:
    path, rng = sound.with_name("latest.pt"), np.random.default_rng(0)
    with zipfile.ZipFile(sound) as archive:
        whole = archive.read("sound/data.pkl")
    for number in range(300):
        data = bytearray(whole)
        for place in rng.integers(0, len(data), rng.integers(1, 4)):
            data[place] = rng.integers(256) if number % 2 else data[rng.integers(len(data))]
        path.write_bytes(in_archive(bytes(data), sound))
        with contextlib.suppress(ModelFileError):
            assert isinstance(load_checkpoint(path), dict)


def test_a_changed_archive_is_read_or_refused(sound: Path) -> None:
    path, rng, whole = sound.with_name("latest.pt"), np.random.default_rng(0), sound.read_bytes()
    for number in range(300):
        data = bytearray(whole)
        first = 0 if number % 2 else len(data) - 700  # where the table of contents is
        for place in rng.integers(first, len(data), rng.integers(1, 4)):
            data[place] = rng.integers(256)
        path.write_bytes(data)
        with contextlib.suppress(ModelFileError):
            assert isinstance(load_checkpoint(path), dict)


def test_a_cut_archive_is_damaged(sound: Path) -> None:
    path, whole = sound.with_name("latest.pt"), sound.read_bytes()
    for end in range(0, len(whole), 37):
        path.write_bytes(whole[:end])
        with pytest.raises(ModelFileError, match=r"damaged|no zip archive"):
            load_checkpoint(path)


PLAIN = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**200), 2**200), st.floats(), st.text(),
    st.builds(PurePosixPath, st.text(min_size=1)), st.builds(PureWindowsPath, st.text("abC:\\/", min_size=1)),
)  # fmt: skip
VALUES = PLAIN | st.lists(PLAIN) | st.lists(PLAIN).map(tuple)


@given(st.dictionaries(st.text().filter(lambda key: not key.startswith("__")), VALUES), st.integers(2, 5))
def test_every_namespace_of_argparse_and_pathlib_is_read(options: dict[str, Any], protocol: int) -> None:
    from i2sb_rt.conversion.options import _NAMES
    from i2sb_rt.conversion.pickles import read_pickle

    namespace = argparse.Namespace()
    vars(namespace).update(options)
    data = pickle.dumps(namespace, protocol)
    wanted = vars(pickle.loads(data))  # not `options`: pathlib itself does not bring back every Windows path
    found = read_pickle(data, "options.pkl", _NAMES, "only these").attributes
    assert repr(found) == repr(wanted)  # as nan is not equal to itself


def test_a_namespace_that_argparse_made_is_read(tmp_path: Path) -> None:
    parser = argparse.ArgumentParser("i2sb-rt")
    parser.add_argument("--log-dir", type=Path, default=Path(".log"))
    parser.add_argument("--lr", type=float, default=5e-5)
    parser.add_argument("--steps", type=int, nargs="*")
    parser.add_argument("--ot-ode", action="store_true")
    parser.add_argument("--name")
    options = parser.parse_args(["--steps", "1", "70000", "--ot-ode", "--name", "é"])
    for protocol in range(2, 6):
        (tmp_path / "options.pkl").write_bytes(pickle.dumps(options, protocol))
        wanted = {**vars(options), "log_dir": PurePosixPath(".log")}
        assert read_options(tmp_path / "options.pkl") == wanted


@pytest.mark.parametrize("module", ["pathlib", "pathlib._local"])
@pytest.mark.parametrize(
    ("name", "wanted"), [("PosixPath", PurePosixPath("/a", "b")), ("WindowsPath", PureWindowsPath("/a", "b"))]
)
def test_paths_of_other_systems_and_releases_are_read(
    module: str, name: str, wanted: PurePosixPath, tmp_path: Path
) -> None:
    path = b"\x8c\x01p" + stack_global(module, name) + text("/a") + text("b") + b"\x86R"
    (tmp_path / "options.pkl").write_bytes(b"\x80\x04" + NAMESPACE + b"}(" + path + b"ub.")
    assert read_options(tmp_path / "options.pkl") == {"p": wanted}


def test_a_large_place_in_the_memo_takes_no_memory(tmp_path: Path) -> None:
    far = struct.pack("<I", 2**32 - 1)
    data = b"\x80\x02" + text("lr") + b"r" + far + b"0"  # LONG_BINPUT, POP
    (tmp_path / "options.pkl").write_bytes(data + NAMESPACE + b".")
    with pytest.raises(ModelFileError, match="opcode POP"):
        read_options(tmp_path / "options.pkl")
    (tmp_path / "options.pkl").write_bytes(
        b"\x80\x02" + NAMESPACE + b"r" + far + b"}" + text("a") + b"j" + far + b"sb."
    )
    found = read_options(tmp_path / "options.pkl")
    assert found["a"].attributes is found  # itself, without an end; nothing walks into it


def pack(path: Path, records: dict[str, bytes], **how: Any) -> Path:
    with zipfile.ZipFile(path, "w", **how) as archive:
        for name, data in records.items():
            archive.writestr(name, data)
    return path


def unpack(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_archives_that_are_not_as_torch_writes_them(sound: Path, tmp_path: Path) -> None:
    records, path = unpack(sound), tmp_path / "latest.pt"
    assert load_checkpoint(pack(path, records))["step"] == 7

    def refused(match: str) -> None:
        with pytest.raises(ModelFileError, match=match):
            load_checkpoint(path)

    pack(path, records, compression=zipfile.ZIP_DEFLATED)
    refused("is compressed or encrypted")
    pack(path, {"sound/data/9": b"\0" * 10**6, **records}, compression=zipfile.ZIP_DEFLATED)
    refused("is compressed or encrypted")
    pack(path, {**records, "other/data.pkl": records["sound/data.pkl"]})
    refused("not one that torch.save wrote")
    pack(path, {**records, "sound/constants.pkl": b""})
    refused("not one that torch.save wrote")
    pack(path, {name: data for name, data in records.items() if "data.pkl" not in name})
    refused("not one that torch.save wrote")
    pack(path, {})
    refused("no zip archive")
    pack(path, {**records, "sound/data.pkl": records["sound/data.pkl"] + b"\0" * 2**22})
    refused("at most 4194304")
    pack(path, {name: data for name, data in records.items() if name != "sound/data/0"})
    refused("48 bytes of the record data/0, which is missing")
    pack(path, {**records, "sound/data/0": records["sound/data/0"][:-4]})
    refused("48 bytes of the record data/0, which has 44 bytes")
    with zipfile.ZipFile(pack(path, records), "a") as archive:
        archive.comment = b"more"
    refused("a comment")
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(pack(path, records), "a") as archive:
        archive.writestr("sound/data.pkl", b"N.")
    refused("stands in it twice")
    pack(path, {**records, "sound/DATA.PKL": b"N."})  # PyTorch takes it for the other
    refused("stands in it twice")
    torch.save(torch.load(sound), path, _use_new_zipfile_serialization=False)
    refused("no zip archive, as torch.save writes it since PyTorch 1.6")


def test_records_said_to_be_larger_than_the_file(sound: Path) -> None:
    data = bytearray(sound.read_bytes())
    entry = data.index(b"sound/data/0", data.index(b"PK\1\2")) - 46
    data[entry + 20 : entry + 28] = struct.pack("<II", 2**31, 2**31)
    sound.write_bytes(data)
    with pytest.raises(ModelFileError, match="larger than the file"):
        load_checkpoint(sound)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"K\x03K\x04\x86", b"K\x03K\x7f\x86"),  # a shape beyond the storage
        (b"K\x04K\x01\x86", b"K\x7fK\x01\x86"),  # a stride
        (b"K\x00K\x03K\x04\x86", b"K\x7fK\x03K\x04\x86"),  # an offset
    ],
)
def test_a_tensor_beyond_its_record_is_refused(sound: Path, old: bytes, new: bytes) -> None:
    records = unpack(sound)
    assert old in records["sound/data.pkl"]
    pack(sound, {**records, "sound/data.pkl": records["sound/data.pkl"].replace(old, new)})
    with pytest.raises(ModelFileError, match="refused by PyTorch"):
        load_checkpoint(sound)


def test_a_dictionary_whose_methods_come_from_the_file(tmp_path: Path) -> None:
    path, net = tmp_path / "latest.pt", OrderedDict(weight=torch.ones(2))
    vars(net).update(xtems=3, xeys=None, xet=1, xalues="x")
    torch.save(OrderedDict(net=net), path)
    records = unpack(path)
    for name in (b"items", b"keys", b"get", b"values"):
        records["latest/data.pkl"] = records["latest/data.pkl"].replace(b"x" + name[1:], name)
    pack(path, records)
    assert vars(torch.load(path)["net"])["items"] == 3
    assert list(checkpoint.plain(load_checkpoint(path)["net"], "net")) == ["weight"]


def test_what_is_no_dictionary_by_text(tmp_path: Path) -> None:
    path = tmp_path / "latest.pt"
    for value, words in (([torch.ones(1)], "of type list"), (torch.ones(1), "type Tensor"), ({3: 1}, "the key 3")):
        torch.save(value, path)
        with pytest.raises(ModelFileError, match=words):
            load_checkpoint(path)


def test_tensors_of_other_kinds_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "latest.pt"
    kinds = {
        "sparse": torch.ones(2, 2).to_sparse(),
        "meta": torch.ones(2, device="meta"),
        "a module": torch.nn.Linear(2, 2),
        "an array": np.ones(2),
    }
    for value in kinds.values():
        torch.save({"net": value}, path)
        with pytest.raises(ModelFileError, match="the pickle inside names"):
            load_checkpoint(path)


def test_an_older_pytorch_reads_nothing(sound: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for version in ("2.9.1", "2.10.0a0+git1234", "1.13.1"):
        monkeypatch.setattr(torch, "__version__", version)
        with pytest.raises(ModelFileError, match=r"2\.10 or newer"):
            load_checkpoint(sound)
    for version in ("2.10.0+cu130", "2.10.1", "3.0.0"):
        monkeypatch.setattr(torch, "__version__", version)
        assert load_checkpoint(sound)["step"] == 7
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ModelFileError, match=r"i2sb-rt\[torch\]"):
        load_checkpoint(sound)


def test_nothing_else_opens_a_pickle() -> None:
    root = Path(__file__).parents[2]
    folders = [root / name for name in ("i2sb_rt", "kernels/i2sb_kernels", "export/i2sb_export", "train/i2sb_train")]
    words = ("import pickle\n", "from pickle ", "torch.load(", "pickle.load", "marshal", "shelve", "joblib")
    found = {
        path.name
        for folder in folders
        for path in folder.rglob("*.py")
        if any(word in path.read_text() for word in words)
    }
    assert found == {"checkpoint.py"}
    assert "weights_only=True" in (root / "i2sb_rt" / "conversion" / "checkpoint.py").read_text()
