"""The U-Net against outputs and state dicts of the published implementation, and its two additions."""

import json
import lzma
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load

from i2sb_rt import models, networks
from i2sb_rt.errors import ModelFileError
from i2sb_rt.model_file import read_info, save_safetensors
from i2sb_rt.networks.fused import FusedUNet
from i2sb_rt.networks.loading import load_network
from i2sb_rt.networks.unet import UNet, time_features

DATA = Path(__file__).parents[1] / "data"
RELATIVE = 1e-5

SMALL: dict[str, Any] = {
    "image_size": 16,
    "in_channels": 3,
    "model_channels": 32,
    "out_channels": 3,
    "num_res_blocks": 1,
    "channel_mult": [1, 2],
    "num_head_channels": 16,
}


def configuration(name: str) -> tuple[UNet, dict[str, Any]]:
    """The network of a published configuration, and what else its file says."""
    config = json.loads((DATA / f"{name}.json").read_text())
    facts = {key: config.pop(key, None) for key in ("params", "shapes", "attention_resolutions_note")}
    return UNet(**config).eval(), facts


def published_weights() -> dict[str, torch.Tensor]:
    return load(lzma.decompress((DATA / "adm_tiny.safetensors.xz").read_bytes()))


def randomised(**config: Any) -> UNet:
    """A network whose zero-initialised layers are not zero, so that every path shows in the output."""
    torch.manual_seed(0)
    network = UNet(**{**SMALL, **config}).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(0, 0.1)
    return network


@pytest.mark.parametrize("shape", ["", "_rect"])
def test_equals_the_published_network(shape: str) -> None:
    network, _ = configuration("adm_tiny")
    network.load_state_dict(published_weights(), strict=True)
    data = np.load(DATA / "adm_tiny.npz")
    with torch.no_grad():
        y = network(torch.from_numpy(data[f"x{shape}"]), torch.from_numpy(data[f"t{shape}"])).numpy()
    expected = data[f"y{shape}"]
    assert y.shape == expected.shape
    assert np.abs(y - expected).max() <= RELATIVE * np.abs(expected).max()


@pytest.mark.parametrize("shape", ["", "_rect"])
def test_the_folded_network_equals_the_published_one(shape: str) -> None:
    network, _ = configuration("adm_tiny")
    network.load_state_dict(published_weights(), strict=True)
    fused = FusedUNet(network)
    data = np.load(DATA / "adm_tiny.npz")
    fused.set_times(torch.from_numpy(data[f"t{shape}"]))
    for row, (x, expected) in enumerate(zip(data[f"x{shape}"], data[f"y{shape}"], strict=True)):
        fused.step.fill_(row)  # a batch shares its time, so each image is one
        y = fused(torch.from_numpy(x.transpose(1, 2, 0).copy())[None])[0].numpy().transpose(2, 0, 1)
        assert np.abs(y - expected).max() <= RELATIVE * np.abs(expected).max()


@pytest.mark.parametrize("name", ["adm_tiny", "adm_tiny_cond"])
def test_parameter_names_shapes_and_count(name: str) -> None:
    network, facts = configuration(name)
    shapes = facts["shapes"] or {k: list(v.shape) for k, v in published_weights().items()}
    assert {k: list(v.shape) for k, v in network.state_dict().items()} == shapes
    assert sum(p.numel() for p in network.parameters()) == facts["params"]


def test_strided_resampling_has_the_published_names() -> None:
    names = set(UNet(**SMALL, resblock_updown=False).state_dict())
    assert {"input_blocks.2.0.op.weight", "output_blocks.1.1.conv.weight"} <= names


def test_without_attention_the_middle_keeps_its_indices() -> None:
    names = set(UNet(**SMALL, attention_resolutions=[1, 2], attention=False).state_dict())
    assert not any(".qkv." in name for name in names)
    assert {name.split(".")[1] for name in names if name.startswith("middle_block.")} == {"0", "2"}


def test_without_attention_the_other_parameters_are_the_same() -> None:
    full = UNet(**SMALL, attention_resolutions=[1])
    plain = UNet(**SMALL, attention_resolutions=[1], attention=False)
    theirs = (".norm.", ".qkv.", ".proj_out.")
    expected = {n: v.shape for n, v in full.state_dict().items() if not any(part in n for part in theirs)}
    assert {name: value.shape for name, value in plain.state_dict().items()} == expected


@pytest.mark.parametrize("patch", [2, 4])
def test_patch_is_a_plain_network_between_unshuffle_and_shuffle(patch: int) -> None:
    patched = randomised(patch=patch, attention=False)
    plain = UNet(**{**SMALL, "in_channels": 3 * patch**2, "out_channels": 3 * patch**2}, attention=False).eval()
    plain.load_state_dict(patched.state_dict())
    x, t = torch.randn(2, 3, 8 * patch, 4 * patch), torch.tensor([1.0, 999.0])
    inner = plain(torch.nn.functional.pixel_unshuffle(x, patch), t)
    assert torch.equal(patched(x, t), torch.nn.functional.pixel_shuffle(inner, patch))
    assert patched.multiple == 2 * patch


@pytest.mark.parametrize(
    "config", [{"use_scale_shift_norm": False}, {"resblock_updown": False}, {"model_channels": 48}]
)
def test_variants_run_and_depend_on_time_and_input(config: dict[str, Any]) -> None:
    network = randomised(**config)
    x = torch.randn(1, 3, 16, 24)
    y = network(x, torch.tensor([10.0]))
    assert y.shape == x.shape
    assert torch.isfinite(y).all()
    assert not torch.allclose(y, network(x, torch.tensor([900.0])))
    assert not torch.allclose(y, network(x.flip(-1), torch.tensor([10.0])))


def test_a_batch_equals_its_images() -> None:
    network = randomised(attention_resolutions=[2])
    x, t = torch.randn(3, 3, 16, 16), torch.tensor([1.0, 500.0, 999.0])
    alone = torch.cat([network(x[i : i + 1], t[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(network(x, t), alone, rtol=0, atol=1e-5)


def test_a_new_network_predicts_zero() -> None:
    assert not UNet(**SMALL)(torch.randn(1, 3, 16, 16), torch.zeros(1)).any()


def test_gradients_reach_every_parameter() -> None:
    network = randomised(attention_resolutions=[2], patch=2)
    network(torch.randn(2, 3, 16, 16), torch.tensor([3.0, 700.0])).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


def test_time_features_are_cosines_then_sines() -> None:
    features = time_features(torch.tensor([0.0, 2.5]), 5).numpy()
    angles = 2.5 * np.array([1.0, 10000.0**-0.5])
    assert np.array_equal(features[0], [1, 1, 0, 0, 0])
    np.testing.assert_allclose(features[1], [*np.cos(angles), *np.sin(angles), 0], atol=1e-6)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 3, 16, 18), "multiples of 4, not 16 x 18"),
        ((1, 3, 0, 16), "multiples of 4"),
        ((1, 6, 16, 16), r"\[B, 3, H, W\]"),
        ((3, 16, 16), r"\[B, 3, H, W\]"),
    ],
)
def test_a_wrong_shape_is_refused(shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        UNet(**SMALL, patch=2)(torch.zeros(shape), torch.zeros(1))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"num_head_channels": 24, "attention_resolutions": [1]}, "does not divide"),
        ({"channel_mult": []}, "at least"),
        ({"patch": 0}, "at least 1"),
        ({"model_channels": -32}, "at least 1"),
    ],
)
def test_an_impossible_configuration_is_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        UNet(**{**SMALL, **config})


@pytest.mark.slow
@pytest.mark.parametrize("config", [{"patch": 2, "attention": False}, {"attention_resolutions": [1, 2]}])
def test_exports_to_onnx_with_any_batch_and_size(config: dict[str, Any], tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    network = randomised(**config)
    free = torch.export.Dim.DYNAMIC
    shapes = {"x": {0: free, 2: free, 3: free}, "t": {0: free}}
    program = torch.onnx.export(
        network, (torch.randn(2, 3, 32, 48), torch.rand(2)), dynamo=True, verbose=False, dynamic_shapes=shapes,
        input_names=["x", "t"], output_names=["out"],
    )  # fmt: skip
    assert program is not None
    program.save(str(tmp_path / "net.onnx"))
    session = onnxruntime.InferenceSession(str(tmp_path / "net.onnx"), providers=["CPUExecutionProvider"])
    x, t = torch.randn(3, 3, 64, 16), torch.tensor([1.0, 500.0, 999.0])
    with torch.no_grad():
        expected = network(x, t).numpy()
    out = session.run(None, {"x": x.numpy(), "t": t.numpy()})[0]
    assert np.abs(out - expected).max() <= 1e-4 * np.abs(expected).max()


def test_the_package_does_not_import_torch() -> None:
    code = "import sys, i2sb_rt.networks; assert 'torch' not in sys.modules; from i2sb_rt.networks import UNet"
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError, match="no attribute 'Missing'"):
        _ = networks.Missing


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"num_res_blocks": 10**7}, "num_res_blocks must be a number from 1 to 64"),
        ({"attention_resolutions": [2] * 10**5}, "attention_resolutions must be a list of at most 12"),
        ({"depth": 3}, "depth is no argument of UNet"),
    ],
)
def test_a_file_cannot_ask_for_a_network_of_absurd_size(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    info = read_info(models.find("jpeg"))
    path = tmp_path / "m.safetensors"
    save_safetensors(path, {"a": np.zeros(1, np.float32)}, replace(info, network={**info.network, **change}))
    with pytest.raises(ModelFileError, match=words):
        load_network(path)
