"""Toy models that every test of the runtime may use, and a cache folder that is the tests' own."""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import settings
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from i2sb_rt import Restorer, load
from i2sb_rt.model_file import ModelInfo

sys.path.insert(0, str(Path(__file__).parent))  # for the modules beside: tests are not a package

MakeModel = Callable[..., Path]

# Deterministic, and without a limit of time: machines that test are slow at times.
settings.register_profile("steady", deadline=None, derandomize=True, max_examples=60)
settings.load_profile("steady")


def _info(**changes: Any) -> ModelInfo:
    facts: dict[str, Any] = {
        "name": "toy",
        "task": "test",
        "interval": 100,
        "beta_max": 0.3,
        "t0": 1e-4,
        "T": 1.0,
        "clip": True,
        "multiple": 8,
        "minimum": 8,
        "tile": 64,
        "overlap": 16,
        "sampler": "sde",
        "nfe": 2,
        "network": {"in_channels": 3, "out_channels": 3, "channel_mult": [1]},
        "trained_on": "nothing",
        "license": "Apache-2.0",
    }
    return ModelInfo(**{**facts, **changes})


def _save(path: Path, metadata: Mapping[str, str], kernel: np.ndarray[Any, Any]) -> None:
    """Write the network out = tanh(conv(x, kernel)) + 1e-4 t."""
    shape: list[str | int | None] = ["B", 3, "H", "W"]
    pad = kernel.shape[-1] // 2
    nodes = [
        helper.make_node("Conv", ["x", "kernel"], ["mixed"], kernel_shape=list(kernel.shape[2:]), pads=[pad] * 4),
        helper.make_node("Tanh", ["mixed"], ["bent"]),
        helper.make_node("Mul", ["t", "rate"], ["slow"]),
        helper.make_node("Reshape", ["slow", "column"], ["shift"]),
        helper.make_node("Add", ["bent", "shift"], ["out"]),
    ]
    constants = {"kernel": kernel, "rate": np.float32(1e-4), "column": np.array([-1, 1, 1, 1], np.int64)}
    graph = helper.make_graph(
        nodes,
        "toy",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, shape),
            helper.make_tensor_value_info("t", TensorProto.FLOAT, ["B"]),
        ],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    helper.set_model_props(model, dict(metadata))
    onnx.save(model, path)


@pytest.fixture(scope="session")
def make_model(tmp_path_factory: pytest.TempPathFactory) -> MakeModel:
    """Write a model file: make_model(side=3, scale=0.05, **metadata), `side` that of its one convolution."""

    def make(side: int = 3, scale: float = 0.05, **changes: Any) -> Path:
        kernel = np.random.default_rng(7).standard_normal((3, 3, side, side)).astype(np.float32) * np.float32(scale)
        path = tmp_path_factory.mktemp("model") / "toy.onnx"
        _save(path, _info(**changes).to_metadata(), kernel)
        return path

    return make


@pytest.fixture(scope="session")
def toy_info() -> ModelInfo:
    return _info()


@pytest.fixture(scope="session")
def toy_path(make_model: MakeModel) -> Path:
    return make_model()


@pytest.fixture(scope="session")
def toy(toy_path: Path) -> Restorer:
    return load(toy_path, precision="fp32")


@pytest.fixture(scope="session")
def photo() -> np.ndarray[Any, Any]:
    """A smooth picture with edges, uint8 [37, 53, 3]."""
    y, x = np.mgrid[:37, :53].astype(np.float64)
    planes = [127 + 100 * np.sin(x / 9 + k) * np.cos(y / 7 - k) + 20 * ((x + y) % 16 < 8) for k in range(3)]
    return np.stack(planes, axis=-1).clip(0, 255).astype(np.uint8)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, photo: np.ndarray[Any, Any]) -> Path:
    """Three photos and a broken one in a tree, in the working folder."""
    monkeypatch.chdir(tmp_path)
    Path("in/sub").mkdir(parents=True)
    Image.fromarray(photo).save("in/a.png")
    Image.fromarray(photo[::-1]).save("in/sub/b.png")
    Image.fromarray(photo[..., 0]).save("in/sub/c é.tif")
    Path("in/broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 nothing more")
    return Path("in")
