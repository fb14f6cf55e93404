import struct
from collections.abc import Callable
from dataclasses import fields, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from i2sb_rt.errors import ModelFileError
from i2sb_rt.model_file import (
    ModelInfo,
    as_values,
    load_weights,
    read_info,
    replacing,
    save_safetensors,
    stored_weights,
    weights_sha256,
)

BRIDGE: dict[str, Any] = {
    "name": "jpeg",
    "task": "jpeg",
    "interval": 1000,
    "beta_max": 0.3,
    "t0": 1e-4,
    "T": 1.0,
    "multiple": 4,
    "minimum": 16,
    "tile": 512,
    "overlap": 64,
    "nfe": 5,
    "network": {"in_channels": 3, "out_channels": 3, "channel_mult": (1, 2), "patch": 2, "attention": False},
    "trained_on": "free photos",
    "license": "Apache-2.0",
}
DSB: dict[str, Any] = {
    **{key: value for key, value in BRIDGE.items() if key not in ("interval", "beta_max", "t0", "T")},
    "sampler": "dsb",
    "prediction": "mean",
    "gammas": (0.01, 0.02, 1e-05, 0.1, 3.0),
    "direction": "backward",
}
KEYS = {f.name for f in fields(ModelInfo)} - {"extra", "cond_mask", "fill", "prior"}


def _weights() -> dict[str, np.ndarray[Any, Any]]:
    draw = np.random.default_rng(3)
    return {
        "out.weight": draw.standard_normal((4, 3)).astype(np.float32),
        "in.bias": draw.standard_normal(5).astype(np.float32),
        "scale": np.array(1.5, np.float32),
    }


@st.composite
def infos(draw: st.DrawFn) -> ModelInfo:
    positive = st.floats(1e-30, 1e30)
    number = st.integers(1, 6)
    multiple = draw(st.sampled_from([1, 2, 3, 8, 32]))
    grain = int(np.lcm(multiple, 16))
    overlap = grain * draw(st.integers(0, 3))
    cond = draw(st.booleans())
    channels = draw(number)
    label = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True)
    line = st.text(st.characters(categories=("L", "N", "P", "S")), min_size=1)
    facts: dict[str, Any] = {
        "name": draw(label),
        "task": draw(label),
        "cond_x1": cond,
        "add_x1_noise": draw(st.booleans()),
        "clip": draw(st.booleans()),
        "channels": channels,
        "upscale": draw(number),
        "multiple": multiple,
        "minimum": multiple * draw(number) if grain == multiple else multiple,
        "tile": overlap + grain * draw(st.integers(6, 20)),
        "overlap": overlap,
        "batch": draw(number),
        "dtype": draw(st.sampled_from(["fp32", "fp16", "bf16"])),
        "network": {"in_channels": channels * (1 + cond), "out_channels": channels, "channel_mult": (1,), "é": [0.1]},
        "trained_on": draw(line),
        "license": draw(line),
        "weights_sha256": draw(st.from_regex(r"[0-9a-f]{64}", fullmatch=True)),
        "extra": {"i2sb." + key: draw(st.text()) for key in draw(st.sets(label)) if key not in KEYS},
    }
    if draw(st.booleans()):
        gammas = draw(st.lists(st.floats(1e-12, 1e12), min_size=1, max_size=9))
        kinds = st.sampled_from(["drift", "noise", "mean", "residual"])
        facts |= {"sampler": "dsb", "prediction": draw(kinds), "gammas": gammas, "clip": False}
        facts |= {"prior": draw(st.sampled_from([0.0, 1.5]))}
        return ModelInfo(**facts, direction=draw(st.sampled_from(["forward", "backward"])), nfe=len(gammas))
    interval = 2 * draw(st.integers(1, 500_000))
    t0 = draw(st.floats(0, 10))
    facts |= {"interval": interval, "beta_max": draw(positive), "t0": t0, "T": t0 + draw(st.floats(1e-3, 10))}
    sampler = draw(st.sampled_from(["sde", "ode", "dbim1", "dbim2", "dbim3", "i3sb"]))
    return ModelInfo(
        **facts,
        sampler=sampler,
        ot_ode=sampler == "ode" and draw(st.booleans()),
        nfe=draw(st.integers(1, interval - 1)),
    )


def test_what_only_models_of_holes_say_may_be_missing(toy_info: ModelInfo) -> None:
    assert "i2sb.cond_mask" not in toy_info.to_metadata()
    network = {**toy_info.network, "in_channels": 7}
    info = replace(toy_info, task="inpaint", cond_mask=True, network=network)
    assert (info.in_channels, info.to_metadata()["i2sb.cond_mask"]) == (7, "1")
    assert ModelInfo.from_metadata(info.to_metadata(), "m") == info
    smooth = replace(info, fill="smooth")
    assert smooth.to_metadata() == {**info.to_metadata(), "i2sb.fill": "smooth"}
    assert ModelInfo.from_metadata(smooth.to_metadata(), "m") == smooth
    with pytest.raises(ModelFileError, match="in_channels = 7"):
        replace(info, network=toy_info.network)
    with pytest.raises(ModelFileError, match=r"cond_mask .*0 with cond_x1"):
        replace(info, cond_x1=True)


@given(infos())
def test_metadata_round_trip(info: ModelInfo) -> None:
    flat = info.to_metadata()
    assert all(isinstance(value, str) for value in flat.values())
    assert ModelInfo.from_metadata(flat, "m.onnx") == info
    assert ModelInfo.from_metadata(flat, "m.onnx").to_metadata() == flat


def test_keys_are_those_of_the_format() -> None:
    common = KEYS - {"interval", "beta_max", "t0", "T", "ot_ode", "gammas", "direction"}
    bridge = common | {"interval", "beta_max", "t0", "T", "ot_ode"}
    assert set(ModelInfo(**BRIDGE).to_metadata()) == {"i2sb." + key for key in bridge}
    assert set(ModelInfo(**DSB).to_metadata()) == {"i2sb." + key for key in common | {"gammas", "direction"}}


def test_values_are_plain_text() -> None:
    flat = ModelInfo(**BRIDGE).to_metadata()
    assert flat["i2sb.format"] == "1"
    assert flat["i2sb.t0"] == "0.0001"
    assert flat["i2sb.ot_ode"] == "0"
    assert flat["i2sb.network"].startswith('{"in_channels":3,')
    assert ModelInfo(**DSB).to_metadata()["i2sb.gammas"] == "0.01,0.02,1e-05,0.1,3.0"


@pytest.mark.parametrize("facts", [BRIDGE, DSB], ids=["bridge", "dsb"])
def test_each_missing_key_is_named(facts: dict[str, Any]) -> None:
    flat = ModelInfo(**facts).to_metadata()
    for key in flat:
        rest = {k: v for k, v in flat.items() if k != key}
        with pytest.raises(ModelFileError, match=rf"^some/m\.onnx: .*{key}"):
            ModelInfo.from_metadata(rest, "some/m.onnx")


def test_unknown_keys_are_kept_and_foreign_ones_dropped() -> None:
    flat = ModelInfo(**BRIDGE).to_metadata()
    info = ModelInfo.from_metadata({**flat, "i2sb.colour": "sRGB", "format": "pt"}, "m")
    assert info.extra == {"i2sb.colour": "sRGB"}
    assert info.to_metadata() == {**flat, "i2sb.colour": "sRGB"}


@pytest.mark.parametrize(
    ("key", "value", "right"),
    [
        ("format", "2", "1, the only format"),
        ("format", "one", "whole number"),
        ("name", "../x", "letters"),
        ("name", "", "letters"),
        ("task", "a b", "letters"),
        ("prediction", "residual", "noise or mean for every sampler"),
        ("prediction", "x0", "noise or mean for every sampler"),
        ("interval", "999", "even number"),
        ("interval", "-2", "whole number"),
        ("interval", "99999999999", "whole number"),
        ("interval", "1e3", "whole number"),
        ("interval", "٣٢", "whole number"),
        ("beta_max", "0", "above 0"),
        ("beta_max", "nan", "decimal number"),
        ("beta_max", "inf", "decimal number"),
        ("beta_max", "1e999", "above 0"),
        ("beta_max", "0,3", "decimal number"),
        ("T", "0.0001", "above t0"),
        ("ot_ode", "true", "0 or 1"),
        ("ot_ode", "1", "without noise"),
        ("channels", "0", "at least 1"),
        ("channels", "4", "in_channels = 4"),
        ("cond_x1", "1", "in_channels = 6"),
        ("cond_mask", "1", "whose task is not to fill holes"),
        ("cond_mask", "maybe", "0 or 1"),
        ("fill", "smooth", "whose task is not to fill holes"),
        ("fill", "grey", "noise or smooth"),
        ("multiple", "2", "multiple of 4"),
        ("minimum", "18", "multiple of i2sb.multiple"),
        ("minimum", "516", "at least i2sb.minimum"),
        ("minimum", "11316", "at most 11313"),
        ("tile", "500", "multiple of 16"),
        ("tile", "0", "at least 1"),
        ("overlap", "24", "multiple of 16"),
        ("overlap", "512", "at most i2sb.tile less 16, 496"),
        ("batch", "0", "at least 1"),
        ("sampler", "ddim", "one of sde, ode"),
        ("nfe", "0", "from 1 to 999"),
        ("nfe", "1000", "from 1 to 999"),
        ("dtype", "float16", "one of fp32"),
        ("network", "[]", "JSON object"),
        ("network", "{", "JSON object"),
        ("network", "[" * 100_000, "JSON object"),
        ("network", '{"in_channels":3,"out_channels":3,"channel_mult":7}', "channel_mult"),
        ("network", '{"in_channels":3,"out_channels":3,"patch":NaN}', "JSON object"),
        ("network", '{"mlp":3}', "mlp"),
        ("license", " ", "one line of text"),
        ("trained_on", "a\nb", "one line of text"),
        ("weights_sha256", "ABC", "64 hexadecimal digits"),
    ],
)
def test_wrong_values_are_refused_with_what_is_right(key: str, value: str, right: str) -> None:
    flat = {**ModelInfo(**BRIDGE).to_metadata(), "i2sb." + key: value}
    with pytest.raises(ModelFileError, match=right) as refusal:
        ModelInfo.from_metadata(flat, "m.onnx")
    message = str(refusal.value)
    assert message.startswith("m.onnx: i2sb.")
    assert len(message) < 300


@pytest.mark.parametrize(
    ("change", "right"),
    [
        ({"gammas": ()}, "decimals from 1e-12"),
        ({"gammas": (0.1, -1.0)}, "decimals from 1e-12"),
        ({"direction": "up"}, "forward or backward"),
        ({"prediction": "x0"}, "one of drift, noise, mean, residual"),
        ({"nfe": 6}, "number of gammas, 5"),
        ({"nfe": 4}, "5, the number of gammas, for a network that predicts the mean"),
        ({"clip": True}, "0 for the sampler dsb"),
        ({"prior": -1.0}, "0 or more"),
        ({"network": {"mlp": {"dim": 2}}}, "dim = 3, the channels"),
        ({"network": {"mlp": {"dim": 3}}}, "1, like i2sb.minimum, for points"),
        ({"interval": 1000}, "left out for the sampler dsb"),
        ({"sampler": "sde", "prediction": "residual"}, "noise or mean for every sampler"),
    ],
)
def test_dsb_has_its_own_rules(change: dict[str, Any], right: str) -> None:
    assert ModelInfo(**DSB).is_dsb
    with pytest.raises(ModelFileError, match=right):
        ModelInfo(**{**DSB, **change})


def test_a_prior_may_be_missing_and_drifts_may_be_followed_in_fewer_calls() -> None:
    info = ModelInfo(**{**DSB, "prediction": "drift", "nfe": 2, "prior": 1.5})
    assert info.to_metadata()["i2sb.prior"] == "1.5"
    assert "i2sb.prior" not in ModelInfo(**DSB).to_metadata()
    assert ModelInfo.from_metadata(info.to_metadata(), "m") == info


def test_fingerprint_is_the_documented_one() -> None:
    weights: dict[str, np.ndarray[Any, Any]] = {"b": np.array([1.0, -2.0], np.float32), "a": np.array([3], np.float16)}
    by_hand = b"a\0" + struct.pack("<e", 3) + b"b\0" + struct.pack("<ff", 1, -2)
    assert weights_sha256(weights) == sha256(by_hand).hexdigest()
    big_endian = {name: array.astype(array.dtype.newbyteorder(">")) for name, array in weights.items()}
    assert weights_sha256(big_endian) == sha256(by_hand).hexdigest()
    strided = {**weights, "b": np.array([1.0, 0.0, -2.0], np.float32)[::2]}
    assert weights_sha256(strided) == sha256(by_hand).hexdigest()


def test_bf16_rounds_as_pytorch_does() -> None:
    torch = pytest.importorskip("torch")
    bits = np.random.default_rng(0).integers(0, 2**32, 100_000, np.uint32)
    values = bits.view(np.float32)
    values = np.concatenate(
        [values[np.abs(values) < 3e38], np.array([0, -0.0, 1.00390625, 1.01171875, 1e-45], np.float32)]
    )
    wanted = torch.from_numpy(values).bfloat16().view(torch.int16).numpy()
    stored = stored_weights({"w": values}, "bf16")["w"]
    assert np.array_equal(stored.view(np.int16), wanted)
    assert np.array_equal(as_values(stored), torch.from_numpy(values).bfloat16().float().numpy())


@pytest.mark.parametrize(("value", "dtype"), [(1e5, "fp16"), (np.inf, "fp32"), (np.nan, "bf16"), (3.4e38, "bf16")])
def test_weights_that_the_type_cannot_hold_are_refused_by_name(value: float, dtype: str) -> None:
    with pytest.raises(ModelFileError, match=f"out.weight is not finite in {dtype}"):
        stored_weights({"out.weight": np.array([0, value], np.float32)}, dtype)


@pytest.mark.parametrize("dtype", ["fp32", "fp16", "bf16"])
def test_safetensors_round_trip(dtype: str, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    path, weights = tmp_path / "m.safetensors", _weights()
    info = save_safetensors(path, weights, ModelInfo(**BRIDGE, dtype=dtype))
    assert read_info(path) == info
    assert info == replace(ModelInfo(**BRIDGE, dtype=dtype), weights_sha256=info.weights_sha256)
    loaded, stored = load_weights(path), stored_weights(weights, dtype)
    assert weights_sha256(stored) == info.weights_sha256
    assert {name: array.tobytes() for name, array in loaded.items()} == {
        name: as_values(array).tobytes() for name, array in stored.items()
    }
    assert {name: array.shape for name, array in loaded.items()} == {n: a.shape for n, a in weights.items()}
    assert [p.name for p in tmp_path.iterdir()] == ["m.safetensors"]


def test_changed_weights_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    path = tmp_path / "m.safetensors"
    save_safetensors(path, _weights(), ModelInfo(**BRIDGE))
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    assert read_info(path).name == "jpeg"
    with pytest.raises(ModelFileError, match=r"m\.safetensors: the weights are damaged"):
        load_weights(path)


def _damage_nothing(path: Path) -> None:
    path.unlink(missing_ok=True)


def _damage_cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100])


def _damage_header(path: Path) -> None:
    path.write_bytes(struct.pack("<Q", 2**60) + b"{}")


def _damage_metadata(path: Path) -> None:
    path.write_bytes(struct.pack("<Q", 2) + b"{}")


@pytest.mark.parametrize(
    ("damage", "right"),
    [
        (_damage_nothing, "there is no such model file"),
        (_damage_cut, "not a readable"),
        (_damage_header, "not a readable"),
        (_damage_metadata, "lack the key i2sb.format"),
    ],
)
def test_unreadable_files_are_refused(damage: Callable[[Path], None], right: str, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    path = tmp_path / "m.safetensors"
    save_safetensors(path, _weights(), ModelInfo(**BRIDGE))
    damage(path)
    with pytest.raises(ModelFileError, match=right) as refusal:
        read_info(path)
    assert str(path) in str(refusal.value)


@pytest.mark.parametrize("name", ["m.pt", "m.pkl", "m"])
def test_other_kinds_of_files_are_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(ModelFileError, match=r"ends in \.onnx or \.safetensors"):
        read_info(tmp_path / name)


def _save_onnx(path: Path, tensors: list[TensorProto], info: ModelInfo) -> None:
    port = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["out"])], "g", [port], [port], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    helper.set_model_props(model, info.to_metadata())
    onnx.save(model, path)


@pytest.mark.parametrize("dtype", ["fp32", "fp16"])
def test_onnx_weights_are_its_initializers(dtype: str, tmp_path: Path) -> None:
    stored = stored_weights(_weights(), dtype)
    info = ModelInfo(**BRIDGE, dtype=dtype, weights_sha256=weights_sha256(stored))
    _save_onnx(tmp_path / "m.onnx", [numpy_helper.from_array(array, name) for name, array in stored.items()], info)
    assert read_info(tmp_path / "m.onnx") == info
    loaded = load_weights(tmp_path / "m.onnx")
    assert {n: (a.dtype, a.shape, a.tobytes()) for n, a in loaded.items()} == {
        n: (a.dtype, a.shape, a.tobytes()) for n, a in stored.items()
    }


def test_onnx_bf16_is_widened(tmp_path: Path) -> None:
    values = np.array([1.5, -0.0078125], np.float32)
    raw = (values.view(np.uint32) >> 16).astype("<u2")
    tensor = helper.make_tensor("w", TensorProto.BFLOAT16, [2], raw.tobytes(), raw=True)
    info = ModelInfo(**BRIDGE, dtype="bf16", weights_sha256=weights_sha256({"w": raw}))
    _save_onnx(tmp_path / "m.onnx", [tensor], info)
    assert load_weights(tmp_path / "m.onnx")["w"].tolist() == values.tolist()


def test_onnx_tensors_of_other_types_are_refused(tmp_path: Path) -> None:
    _save_onnx(tmp_path / "m.onnx", [numpy_helper.from_array(np.array([1], np.int64), "shape")], ModelInfo(**BRIDGE))
    with pytest.raises(ModelFileError, match="the tensor shape is of ONNX type 7"):
        load_weights(tmp_path / "m.onnx")


def test_replacing_keeps_the_old_file_on_failure(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_text("old")

    def fail() -> None:
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {"m.onnx": "old"}
    with replacing(path) as temporary:
        assert temporary.parent == tmp_path
        temporary.write_text("new")
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {"m.onnx": "new"}


def test_replacing_keeps_permissions_and_links(tmp_path: Path) -> None:
    private, link = tmp_path / "there" / "private", tmp_path / "link"
    private.parent.mkdir()
    private.write_text("old")
    private.chmod(0o600)
    link.symlink_to("there/private")
    with replacing(link) as temporary:
        assert temporary.parent == private.parent
        temporary.write_text("new")
    assert link.is_symlink()
    assert (private.read_text(), private.stat().st_mode & 0o777) == ("new", 0o600)
    (tmp_path / "dangling").symlink_to("there/later")
    with replacing(tmp_path / "dangling") as temporary:
        temporary.write_text("first")
    assert (tmp_path / "there" / "later").read_text() == "first"
