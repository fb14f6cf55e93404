"""The reader of model files: what it reads, and how it refuses what it should not trust."""

import random
from pathlib import Path

import numpy as np
import pytest
from onnx_files import METADATA, make_onnx

from i2sb_rt import _core


def test_reads_metadata_and_tensors(tmp_path: Path) -> None:
    model = _core.Model(str(make_onnx(tmp_path / "größe.onnx", author="später")))
    assert model.metadata["i2sb.name"] == "tiny"
    assert model.metadata["i2sb.author"] == "später"
    kind, shape, data = model.tensors()["mix.weight"]
    assert (kind, shape) == (1, (3, 3, 1, 1))
    assert np.frombuffer(data, "<f4").sum() == np.float32(0.875)
    assert model.tensors()["shape"][:2] == (7, (4,))


@pytest.mark.parametrize("key", METADATA)
def test_a_missing_key_is_refused_by_name(tmp_path: Path, key: str) -> None:
    path = make_onnx(tmp_path / "model.onnx", drop=key)
    with pytest.raises(_core.ModelError, match=rf"model\.onnx.*i2sb\.{key}$"):
        _core.Model(str(path))


def test_dsb_keys_replace_the_schedule(tmp_path: Path) -> None:
    with pytest.raises(_core.ModelError, match=r"i2sb\.gammas"):
        _core.Model(str(make_onnx(tmp_path / "a.onnx", sampler="dsb")))
    facts = {"sampler": "dsb", "gammas": "0.1,0.1", "direction": "backward", "prediction": "drift"}
    model = _core.Model(str(make_onnx(tmp_path / "b.onnx", drop="interval", **facts)))
    assert model.metadata["i2sb.direction"] == "backward"
    rows, steps, clip, _ = _core.plan(None, 2, model=model)
    assert (rows[:, 0].tolist(), steps.tolist(), clip) == ([1000, 500], [0, 1, 2], False)
    with pytest.raises(ValueError, match="is one of DSB, so it takes the sampler dsb, not sde"):
        _core.plan("sde", 1, model=model)
    with pytest.raises(ValueError, match="has a schedule, so it takes any sampler but dsb"):
        _core.plan("dsb", 1, model=_core.Model(str(make_onnx(tmp_path / "c.onnx"))), direction="forward")


@pytest.mark.parametrize(
    ("key", "value"),
    [("gammas", ""), ("gammas", "0.1,"), ("gammas", ",0.1"), ("gammas", "0.1;0.2"), ("gammas", "0.1,-1"),
     ("gammas", "0"), ("gammas", "inf"), ("gammas", "nan"), ("direction", "up"), ("prediction", "x0"),
     ("clip", "1")],
)  # fmt: skip
def test_a_wrong_value_of_dsb_is_refused_by_name(tmp_path: Path, key: str, value: str) -> None:
    facts = {"sampler": "dsb", "gammas": "0.1,0.1", "direction": "backward", "prediction": "mean", key: value}
    with pytest.raises(_core.ModelError, match=rf"i2sb\.{key}"):
        _core.Model(str(make_onnx(tmp_path / "model.onnx", **facts)))


@pytest.mark.parametrize(
    ("key", "value"),
    [("format", "2"), ("channels", "three"), ("channels", "0"), ("batch", "1.5"), ("multiple", "-4"), ("cond_x1", "2"),
     ("cond_mask", "yes"), ("fill", "grey"), ("tile", "40"), ("overlap", "32"), ("overlap", "8"),
     ("tile", "99999999999999999999"), ("minimum", ""), ("minimum", "11314")],
)  # fmt: skip
def test_a_wrong_value_is_refused_by_name(tmp_path: Path, key: str, value: str) -> None:
    with pytest.raises(_core.ModelError, match=rf"i2sb\.{key}"):
        _core.Model(str(make_onnx(tmp_path / "model.onnx", **{key: value})))


def test_what_is_not_a_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(_core.ModelError, match="no such file"):
        _core.Model(str(tmp_path / "none.onnx"))
    with pytest.raises(_core.ModelError, match="not a file"):
        _core.Model(str(tmp_path))
    (tmp_path / "empty.onnx").touch()
    with pytest.raises(_core.ModelError, match="no graph"):
        _core.Model(str(tmp_path / "empty.onnx"))


def test_every_truncation_is_an_error_or_a_smaller_model(tmp_path: Path) -> None:
    whole = make_onnx(tmp_path / "model.onnx").read_bytes()
    cut = tmp_path / "cut.onnx"
    for length in range(len(whole)):
        cut.write_bytes(whole[:length])
        # Cut between two fields it is still protobuf; then keys are missing.
        with pytest.raises(_core.ModelError):
            _core.Model(str(cut))


def test_mutations_never_crash(tmp_path: Path) -> None:
    whole = make_onnx(tmp_path / "model.onnx").read_bytes()
    rng = random.Random(0)
    path = tmp_path / "mutated.onnx"
    opened = 0
    for _ in range(2000):
        data = bytearray(whole)
        for _ in range(rng.randint(1, 8)):
            data[rng.randrange(len(data))] = rng.choice((0, 0x7F, 0x80, 0xFF, rng.randrange(256)))
        path.write_bytes(data)
        try:
            model = _core.Model(str(path))
        except (_core.ModelError, MemoryError):
            continue
        opened += 1
        assert all(isinstance(value, str) for value in model.metadata.values())
        assert all(isinstance(data, bytes) for _, _, data in model.tensors().values())
    assert 0 < opened < 2000
