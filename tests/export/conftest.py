"""Two small trained models and their exports, each made once."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")
pytest.importorskip("onnxscript")

from i2sb_export.onnx import export_onnx  # noqa: E402
from i2sb_rt.model_file import ModelInfo, save_safetensors  # noqa: E402
from i2sb_rt.networks import UNet  # noqa: E402

SMALL: dict[str, Any] = {
    "image_size": 32,
    "in_channels": 3,
    "model_channels": 16,
    "out_channels": 3,
    "num_res_blocks": 1,
    "channel_mult": [1],
    "num_head_channels": 8,
}
CONFIGS: dict[str, dict[str, Any]] = {
    # Blocks of pixels, strided convolutions, no attention: what ships.
    "patched": {"patch": 2, "channel_mult": [1, 2], "attention": False, "resblock_updown": False},
    # ADM as published, shown the degraded image beside the state.
    "attentive": {"in_channels": 6, "channel_mult": [1, 2], "attention_resolutions": [2], "resblock_updown": True},
    # As little as has all that ships: compilers take their time for each layer.
    "compact": {"patch": 2, "attention": False},
    "bare": {"attention": False, "use_scale_shift_norm": False},
}


@dataclass(frozen=True)
class Exported:
    """A model as trained and as exported, and what export said of it."""

    source: Path
    path: Path
    info: ModelInfo


def save_model(path: Path, name: str) -> Path:
    """Write the .safetensors file of a network with all weights drawn, except that some norms stay equal."""
    config = {**SMALL, **CONFIGS[name]}
    torch.manual_seed(0)
    network = UNet(**config)
    for parameter in network.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, 0, 0.1)
    info = ModelInfo(
        name=name,
        task="test",
        interval=1000,
        beta_max=0.3,
        t0=1e-4,
        T=1.0,
        cond_x1=config["in_channels"] == 6,
        clip=True,
        multiple=network.multiple,
        minimum=8,
        tile=64,
        overlap=16,
        nfe=2,
        network=config,
        trained_on="nothing",
        license="Apache-2.0",
        extra={"i2sb.note": "kept"},
    )
    save_safetensors(path, {key: value.numpy() for key, value in network.state_dict().items()}, info)
    return path


def _export(name: str, folder: Path) -> Exported:
    source = save_model(folder / f"{name}.safetensors", name)
    path = folder / f"{name}.onnx"
    return Exported(source, path, export_onnx(source, path))


@pytest.fixture(scope="session")
def patched(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return _export("patched", tmp_path_factory.mktemp("patched"))


@pytest.fixture(scope="session")
def attentive(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return _export("attentive", tmp_path_factory.mktemp("attentive"))


@pytest.fixture(scope="session")
def compact(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return _export("compact", tmp_path_factory.mktemp("compact"))


@pytest.fixture(params=["patched", "attentive"])
def exported(request: pytest.FixtureRequest) -> Exported:
    found: Exported = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """A smaller model, trained only."""
    return save_model(tmp_path / "bare.safetensors", "bare")
