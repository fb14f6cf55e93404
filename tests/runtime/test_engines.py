"""The engines beside each other, on a small U-Net exported as the shipped models are."""

import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from i2sb_export.onnx import export_onnx
from i2sb_rt import Restorer, load
from i2sb_rt.errors import DeviceError
from i2sb_rt.model_file import ModelInfo, save_safetensors
from i2sb_rt.networks import UNet

U8 = NDArray[np.uint8]

CONFIG: dict[str, Any] = {
    "image_size": 32,
    "in_channels": 3,
    "out_channels": 3,
    "model_channels": 16,
    "num_res_blocks": 1,
    "channel_mult": [1, 2],
    "patch": 2,
    "attention": False,
}


@pytest.fixture(scope="module")
def unet_path(tmp_path_factory: pytest.TempPathFactory, toy_info: ModelInfo) -> Path:
    folder = tmp_path_factory.mktemp("unet")
    torch.manual_seed(3)
    network = UNet(**CONFIG)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))  # so that the layers that start at zero count
    weights = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    save_safetensors(folder / "unet.safetensors", weights, replace(toy_info, name="unet", network=CONFIG))
    export_onnx(folder / "unet.safetensors", folder / "unet.onnx", "fp32")
    return folder / "unet.onnx"


@pytest.fixture(scope="module")
def native(unet_path: Path) -> Restorer:
    return load(unet_path, engine="native", precision="fp32")


@pytest.fixture(scope="module")
def in_torch(unet_path: Path) -> Restorer:
    return load(unet_path, engine="torch")


@pytest.mark.parametrize("options", [{"nfe": 1, "sampler": "ode"}, {"nfe": 5}, {"nfe": 2, "tile": 32, "overlap": 16}])
def test_openvino_and_pytorch_restore_the_same(
    native: Restorer, in_torch: Restorer, photo: U8, options: dict[str, Any]
) -> None:
    assert (native.engine_name, in_torch.engine_name, in_torch.precision) == ("native", "torch", "fp32")
    ours, theirs = native.restore(photo, seed=9, **options), in_torch.restore(photo, seed=9, **options)
    assert (ours != photo).mean() > 0.5
    # The networks agree to about 1e-6; a byte may still fall to the other side of its rounding.
    assert np.abs(ours.astype(int) - theirs).max() <= 1
    assert (ours == theirs).mean() > 0.999


def test_neither_company_nor_order_nor_threads_change_a_byte(unet_path: Path, photo: U8) -> None:
    rng = np.random.default_rng(4)
    shapes = ((37, 53), (70, 90), (16, 16), (37, 53), (1, 1), (40, 56))  # three sizes after padding, and tiles
    images = [rng.integers(0, 256, (*shape, 3), dtype=np.uint8) for shape in shapes] + [photo]
    two = load(unet_path, threads=2)
    together = two.restore(images, nfe=3, seed=range(7), threads=2)
    one = load(unet_path, threads=1)
    for index in (5, 2, 0, 6, 4, 1, 3):
        alone = one.restore(images[index], nfe=3, seed=index, threads=1)
        np.testing.assert_array_equal(alone, together[index])
        np.testing.assert_array_equal(two.restore(images[index], nfe=3, seed=index), together[index])


@pytest.mark.parametrize("jobs", [1, 3])
@pytest.mark.parametrize("engine", ["native", "torch"])
def test_several_threads_may_share_a_restorer(unet_path: Path, photo: U8, engine: str, jobs: int) -> None:
    restorer = load(unet_path, engine=engine, threads=2, jobs=jobs)
    images = [photo, photo[:20], photo[:, :9], photo[::-1], photo[:20, ::-1], photo[5:]]
    wanted = [restorer.restore(image, nfe=3, seed=seed) for seed, image in enumerate(images)]
    with ThreadPoolExecutor(len(images)) as pool:
        results = list(pool.map(lambda job: restorer.restore(job[1], nfe=3, seed=job[0]), enumerate(images)))
    for result, expected in zip(results, wanted, strict=True):
        np.testing.assert_array_equal(result, expected)


def test_pytorch_in_bf16_is_near(unet_path: Path, in_torch: Restorer, photo: U8) -> None:
    half = load(unet_path, engine="torch", precision="bf16")
    assert half.precision == "bf16"
    difference = half.restore(photo, sampler="ode").astype(float) - in_torch.restore(photo, sampler="ode")
    assert 0 < np.sqrt((difference**2).mean()) < 2


def test_auto_takes_pytorch_where_openvino_is_missing(unet_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert load(unet_path).engine_name == "native"
    monkeypatch.setattr("i2sb_rt.engines.openvino_library", lambda: None)
    assert load(unet_path).engine_name == "torch"


def test_a_module_of_another_engine_is_told(unet_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "i2sb_rt.engines.torch", raising=False)
    with pytest.raises(DeviceError, match="pip install"):
        load(unet_path, engine="torch")
