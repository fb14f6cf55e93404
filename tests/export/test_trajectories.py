"""The published trajectories, with the network of the golden runs exported to every engine that can run here."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import helper

from i2sb_export import engines
from i2sb_rt import Plan, Schedule, _core
from i2sb_rt.engines.native import openvino_library
from i2sb_rt.model_file import ModelInfo

GOLDEN = np.load(Path(__file__).parents[1] / "data" / "sampling.npz")
CASES = sorted({key.removesuffix("/x1") for key in GOLDEN.files if key.endswith("/x1")})

Opened = Callable[[str, int], _core.Engine]


def info_of(channels: int) -> ModelInfo:
    return ModelInfo(
        name="golden", task="test", interval=1000, beta_max=0.3, t0=1e-4, T=1.0, channels=channels, multiple=1,
        minimum=1, tile=64, overlap=0, nfe=1, trained_on="nothing", license="Apache-2.0",
        network={"in_channels": channels, "out_channels": channels, "channel_mult": [1]},
    )  # fmt: skip


class Golden(torch.nn.Module):
    """The network of the golden runs."""

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        rolled = torch.cat([x[..., -1:], x[..., :-1]], dim=-1)
        return 0.4 * x + 0.15 * torch.sin(3 * x) + 0.1 * rolled + 2e-4 * t[:, None, None, None]


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Opened:
    """Open the network for so many channels in an engine by its name."""
    folder = tmp_path_factory.mktemp("golden")
    batch, height, width = (
        torch.export.Dim(side, min=least, max=1 << 20) for side, least in (("batch", 1), ("height", 1), ("width", 3))
    )
    shapes = ({0: batch, 2: height, 3: width}, {0: batch})

    def to_onnx(channels: int) -> Path:
        program = torch.onnx.export(
            Golden().eval(), (torch.zeros(2, channels, 4, 6), torch.zeros(2)), dynamo=True, optimize=False,
            verbose=False, opset_version=18, input_names=["x", "t"], output_names=["out"], dynamic_shapes=shapes,
        )  # fmt: skip
        assert program is not None
        model = program.model_proto
        helper.set_model_props(model, info_of(channels).to_metadata())
        onnx.save(model, str(folder / f"golden{channels}.onnx"))
        return folder / f"golden{channels}.onnx"

    def to_package(channels: int) -> Path:
        path = folder / f"golden{channels}.pt2"
        given = torch.zeros(2, channels, 4, 6), torch.zeros(2)
        program = torch.export.export(Golden().eval(), given, dynamic_shapes=shapes)
        metadata = {"aot_inductor.metadata": info_of(channels).to_metadata()}
        torch._inductor.aoti_compile_and_package(program, package_path=str(path), inductor_configs=metadata)
        return path

    def native(path: Path) -> _core.Engine:
        return _core.Engine.openvino(_core.Model(str(path)), threads=1, precision="fp32", library=openvino_library())

    @functools.cache
    def once(name: str, channels: int) -> _core.Engine:
        if name == "aoti":
            return engines.package(to_package(channels)).core
        path = to_onnx(channels)
        return engines.onnxruntime(path).core if name == "onnxruntime" else native(path)

    return once


@pytest.mark.filterwarnings("ignore")  # the exporter's
@pytest.mark.parametrize("name", ["native", "onnxruntime", "aoti"])
@pytest.mark.parametrize("case", CASES)
def test_the_exported_network_gives_the_published_trajectories(opened: Opened, name: str, case: str) -> None:
    bridge, calls, kind = case.split("/")
    nfe, beta_max = int(calls.removeprefix("nfe")), float(bridge.split("betamax")[1])
    plan = Plan.posterior(Schedule(1000, beta_max), nfe, ot_ode="ode" in kind, clip="clip" in kind)
    names = {"mask": f"{case}/mask", "draws": f"{case}/noises"}
    given: dict[str, Any] = {
        key: np.ascontiguousarray(GOLDEN[name], np.float32) for key, name in names.items() if name in GOLDEN
    }
    x1 = GOLDEN[f"{case}/x1"]
    path = _core.sample(
        opened(name, x1.shape[1]), plan.rows, x1, clip=plan.clip, known=plan.known, trajectory=True, **given
    )
    wanted = GOLDEN[f"{case}/trajectory"]
    np.testing.assert_allclose(path[:, : wanted.shape[1]], wanted, rtol=0, atol=2e-5 if nfe <= 10 else 1e-4)
