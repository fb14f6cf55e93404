"""The loop of GPUs, on a GPU where there is one, else on the CPU, where the kernels' other twins run."""

from __future__ import annotations

import gc
import subprocess
import sys
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from busy_device import held
from golden_network import DEVICE, GoldenNetwork, GoldenPlanes
from numpy.typing import NDArray
from torch import Tensor

from i2sb_export.onnx import export_onnx
from i2sb_rt import Plan, Restorer, Schedule, _core, load
from i2sb_rt.engines.cuda import CudaEngine
from i2sb_rt.engines.device import DeviceEngine
from i2sb_rt.engines.loop import Loop
from i2sb_rt.errors import CancelledError, DeviceError, NonFiniteError, OutOfMemoryError, UsageError
from i2sb_rt.model_file import ModelInfo, save_safetensors
from i2sb_rt.networks import UNet

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]
NEEDS_GPU = pytest.mark.skipif(DEVICE == "cpu", reason="needs a GPU")
GOLDEN = np.load(Path(__file__).parents[1] / "data" / "sampling.npz")
CASES = sorted({key.removesuffix("/x1") for key in GOLDEN.files if key.endswith("/x1")})


@pytest.mark.parametrize("planes", [False, True], ids=["rows", "planes"])
@pytest.mark.parametrize("case", CASES)
def test_reproduces_the_published_trajectories(case: str, planes: bool) -> None:
    bridge, calls, kind = case.split("/")
    nfe, beta_max = int(calls.removeprefix("nfe")), float(bridge.split("betamax")[1])
    plan = Plan.posterior(Schedule(1000, beta_max), nfe, ot_ode="ode" in kind, clip="clip" in kind)
    given = {name: GOLDEN[f"{case}/{name}"] for name in ("noises", "mask") if f"{case}/{name}" in GOLDEN}
    x1 = GOLDEN[f"{case}/x1"]
    network: Any = GoldenPlanes(DEVICE) if planes else GoldenNetwork(x1.shape[1])
    loop = Loop(network)
    _, path = loop.run(
        x1, plan.rows, x1=x1, clip=plan.clip, known=plan.known, mask=given.get("mask"), draws=given.get("noises"),
        trajectory=True,
    )  # fmt: skip
    wanted = GOLDEN[f"{case}/trajectory"]
    assert path is not None
    np.testing.assert_allclose(path[:, : wanted.shape[1]], wanted, rtol=0, atol=2e-5 if nfe <= 10 else 1e-4)


def save_model(path: Path, info: ModelInfo, **config: Any) -> None:
    """A small U-Net whose every layer counts, exported as the shipped models are."""
    network_config = {
        "image_size": 32, "in_channels": 6 if info.cond_x1 else 3, "out_channels": 3, "model_channels": 16,
        "num_res_blocks": 1, "channel_mult": [1, 2], "patch": 2, "attention": False, **config,
    }  # fmt: skip
    torch.manual_seed(3)
    network = UNet(**network_config)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    weights = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    save_safetensors(path.with_suffix(".safetensors"), weights, replace(info, network=network_config))
    export_onnx(path.with_suffix(".safetensors"), path, "fp32")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, toy_info: ModelInfo) -> Path:
    """Model files: plain.onnx, with attention, cond.onnx, which sees x1, and holes.onnx, which fills some too."""
    folder = tmp_path_factory.mktemp("models")
    save_model(folder / "plain.onnx", toy_info, attention_resolutions=[2], attention=True, num_head_channels=8)
    cond = {"in_channels": 6, "out_channels": 3, "channel_mult": [1, 2], "patch": 2}
    save_model(folder / "cond.onnx", replace(toy_info, cond_x1=True, network=cond))
    save_model(folder / "holes.onnx", replace(toy_info, task="inpaint", cond_x1=True, network=cond))
    return folder


def pair(path: Path) -> tuple[Restorer, Restorer]:
    """The same model in the native loop with PyTorch, and in the loop of GPUs, both in fp32."""
    plain, ours = load(path, engine="torch"), load(path, engine="torch")
    ours.engine = CudaEngine(path, "fp32", DEVICE)
    return plain, ours


@pytest.mark.parametrize("name", ["plain.onnx", "cond.onnx", "holes.onnx"])
@pytest.mark.parametrize(
    "options",
    [{"nfe": 1, "sampler": "ode"}, {"nfe": 5}, {"nfe": 3, "tile": 32, "overlap": 16}, {"nfe": 12, "seed": 2**64 - 1}],
)
def test_restores_as_the_native_loop(folder: Path, photo: U8, options: dict[str, Any], name: str) -> None:
    plain, ours = pair(folder / name)
    hole = np.zeros(photo.shape[:2], np.uint8)
    hole[5:20, 9:30] = 1
    mask = hole if name == "holes.onnx" else None
    wanted, found = (each.restore(photo, mask=mask, **options) for each in (plain, ours))
    assert (wanted != photo).mean() > (0.5 if mask is None else 0.1)
    assert np.abs(found.astype(int) - wanted).max() <= 1
    assert (found == wanted).mean() > 0.999


def test_plans_of_every_column_and_company(folder: Path) -> None:
    plain, ours = pair(folder / "plain.onnx")
    rng = np.random.default_rng(0)
    x1 = rng.uniform(-1, 1, (3, 3, 16, 24)).astype(np.float32)
    mask = (rng.random((3, 1, 16, 24)) < 0.5).astype(np.float32)
    for columns in ("", "c", "d", "de", "cs", "desr"):
        rows = np.zeros((4, 10), np.float32)
        rows[:, [0, 1, 2, 3, 4]] = rng.uniform(-0.5, 0.5, (4, 5))
        rows[:, 0] = [99, 60, 30, 1]
        for column in columns:
            rows[:, "tpqabcdesr".index(column)] = rng.uniform(0.05, 0.2, 4)
        for known in ("renew", "x0"):
            options: dict[str, Any] = {"mask": mask, "known": known, "seeds": [1, 2, 2**64 - 3], "clip": True}
            wanted = _core.sample(plain.engine.core, rows, x1, **options)
            np.testing.assert_allclose(_core.sample(ours.engine.core, rows, x1, **options), wanted, atol=2e-5)
            states = [_core.sample(each.engine.core, rows, x1, trajectory=True, **options) for each in (plain, ours)]
            np.testing.assert_allclose(states[1], states[0], atol=2e-5)


def test_an_image_does_not_depend_on_its_company_with_a_bucket(folder: Path) -> None:
    _, ours = pair(folder / "plain.onnx")
    loop = ours.engine._loop  # type: ignore[attr-defined]
    loop.bucket = 4
    x1 = np.random.default_rng(1).uniform(-1, 1, (7, 3, 16, 16)).astype(np.float32)
    rows, seeds = ours.plan(3).rows, list(range(7))
    together, _ = loop.run(x1, rows, x1=x1, seeds=seeds)
    for k in (6, 0, 3):
        alone, _ = loop.run(x1[k : k + 1], rows, x1=x1[k : k + 1], seeds=seeds[k : k + 1])
        np.testing.assert_array_equal(alone[0], together[k])


@pytest.fixture
def batches(
    folder: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> tuple[Restorer, list[int]]:
    """A restorer that takes four images together, eight at work, and the batches that it has run."""
    path = folder / getattr(request, "param", "cond.onnx")
    restorer, ran = load(path, engine="torch", jobs=8), []
    engine = CudaEngine(path, "fp32", DEVICE, batch=4)
    restorer.engine, run = engine, engine._loop.run

    def watched(x: F32, *arguments: Any, **options: Any) -> Any:
        ran.append(len(x))
        return run(x, *arguments, **options)

    monkeypatch.setattr(engine._loop, "run", watched)
    return restorer, ran


@pytest.mark.parametrize("batches", ["cond.onnx", "holes.onnx"], indirect=True)
def test_images_of_a_list_are_run_together_with_the_same_bytes(batches: tuple[Restorer, list[int]], photo: U8) -> None:
    restorer, ran = batches
    images = [np.roll(photo, 3 * k, axis=1) for k in range(9)] + [photo[:20], photo[:20, ::-1]]
    fills = restorer.info.task == "inpaint"
    masks = [
        np.arange(53) % 5 < 1 + k % 3 * np.ones((len(image), 1)) if fills else None for k, image in enumerate(images)
    ]
    together = restorer.restore(images, nfe=3, seed=list(range(11)), mask=masks)
    assert sum(ran) == 11
    assert max(ran) > 1
    assert max(ran) <= 4
    for k in (10, 0, 2, 8, 5):
        alone = restorer.restore(images[k], nfe=3, seed=k, mask=masks[k])
        np.testing.assert_array_equal(alone, together[k])


def test_tiles_are_run_together_with_the_same_bytes(batches: tuple[Restorer, list[int]], photo: U8) -> None:
    restorer, _ = batches
    images = [photo, photo[::-1], photo[:, ::-1]]
    plain = load(restorer.path, engine="torch")
    for tiled, image in zip(restorer.restore(images, nfe=2, tile=32, overlap=16), images, strict=True):
        np.testing.assert_array_equal(restorer.restore(image, nfe=2, tile=32, overlap=16), tiled)
        assert np.abs(plain.restore(image, nfe=2, tile=32, overlap=16).astype(int) - tiled).max() <= 1


def test_stopping_one_image_of_a_batch_leaves_the_others(batches: tuple[Restorer, list[int]], photo: U8) -> None:
    restorer, ran = batches
    wanted = restorer.restore(photo, nfe=4)
    gathering = restorer.engine._gathering  # type: ignore[attr-defined]

    def one(number: int) -> Any:
        return restorer.restore(photo, nfe=4, observer=lambda phase, row, *_: number == 1 and row == 2)

    with ThreadPoolExecutor(3) as pool:
        with held(gathering):
            futures = [pool.submit(one, number) for number in range(3)]
            while len(gathering._line) < 3:
                time.sleep(0.001)
        with pytest.raises(CancelledError):
            futures[1].result()
        for future in (futures[0], futures[2]):
            np.testing.assert_array_equal(future.result(), wanted)
    assert ran == [1, 3]


def test_a_batch_is_for_gpus(folder: Path) -> None:
    with pytest.raises(UsageError, match="choice of engines on a GPU"):
        load(folder / "plain.onnx", engine="torch", batch=4)
    with pytest.raises(UsageError, match="choice of engines on a GPU"):
        load(folder / "plain.onnx", engine="torch", batch=200)
    with pytest.raises(UsageError, match=r"batch lies in 1 \.\. 128, not 0"):
        load(folder / "plain.onnx", engine="cuda", batch=0)


def test_sizes_plans_and_options_may_follow_each_other(folder: Path, photo: U8) -> None:
    plain, ours = pair(folder / "plain.onnx")
    for nfe, image in ((2, photo), (9, photo[:20]), (1, photo), (40, photo[:, :9]), (2, photo), (40, photo[:, :9])):
        wanted, found = (each.restore(image, nfe=nfe, seed=nfe) for each in (plain, ours))
        assert np.abs(found.astype(int) - wanted).max() <= 1


@pytest.mark.parametrize("own_streams", [False, pytest.param(True, marks=NEEDS_GPU)])
def test_threads_may_run_at_once_with_the_same_bytes(folder: Path, own_streams: bool) -> None:
    """What is sent, computed and fetched for one does not meet what is for another, whatever follows what."""
    loop = Loop(CudaEngine(folder / "plain.onnx", "fp32", DEVICE)._loop.network, bucket=2)
    generator = np.random.default_rng(2)
    calls = []
    for number, (nfe, side, count) in enumerate(16 * [(1, 16, 5), (3, 16, 2), (12, 16, 1), (2, 8, 3)]):
        x1 = generator.uniform(-1, 1, (count, 3, side, side)).astype(np.float32)
        calls.append({"x": x1, "x1": x1, "rows": Plan.posterior(Schedule(), nfe).rows, "seeds": [number] * count})
    wanted = [Loop(loop.network, bucket=2).run(**call)[0] for call in calls[:8]]

    def run(call: dict[str, Any]) -> F32:
        stream = torch.cuda.stream(torch.cuda.Stream()) if own_streams else nullcontext()
        with stream:
            return loop.run(**call)[0]

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(run, calls))
    for one, other in zip(wanted, found, strict=False):
        np.testing.assert_array_equal(one, other)
    for call, result in zip(calls, found, strict=True):
        np.testing.assert_array_equal(loop.run(**call)[0], result)


def test_a_plan_that_follows_itself_keeps_the_tables() -> None:
    told = []

    class Telling(GoldenNetwork):
        def set_times(self, times: Tensor) -> None:
            told.append(times.tolist())
            if len(told) == 2:
                raise torch.OutOfMemoryError("no room for tables")
            super().set_times(times)

    loop, x1 = Loop(Telling(3)), np.zeros((2, 3, 8, 8), np.float32)  # type: ignore[arg-type]
    one, other = (Plan.posterior(Schedule(), nfe).rows for nfe in (2, 3))
    first = loop.run(x1, one, x1=x1)[0]
    np.testing.assert_array_equal(loop.run(x1, one, x1=x1)[0], first)
    assert len(told) == 1
    with pytest.raises(torch.OutOfMemoryError):
        loop.run(x1, other, x1=x1)
    np.testing.assert_array_equal(loop.run(x1, one, x1=x1)[0], first)
    assert len(told) == 3, "tables that may be half filled are filled again"


@NEEDS_GPU
def test_the_first_graphs_of_a_process_make_room_for_others(folder: Path) -> None:
    program = """
import sys, numpy as np
from i2sb_rt import load
image = np.random.default_rng(0).integers(0, 256, (24, 24, 3), np.uint8)
restorers = [load(path, engine="cuda") for path in sys.argv[1:]]
for nfe in (2, 9, 2, 40):
    for restorer in restorers:
        first, again = (restorer.restore(image, nfe=nfe) for _ in range(2))
        assert np.array_equal(first, again), nfe
"""
    command = [sys.executable, "-c", program, str(folder / "plain.onnx"), str(folder / "cond.onnx")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_what_a_call_had_computed_is_given_back_where_memory_ran_out() -> None:
    held: list[weakref.ref[Tensor]] = []

    class Greedy(GoldenNetwork):
        def __call__(self, x: Tensor) -> Tensor:
            activations = torch.zeros(64)
            held.append(weakref.ref(activations))
            raise torch.OutOfMemoryError("tried to allocate more than there is")

    loop = Loop(Greedy(3))  # type: ignore[arg-type]
    engine, x1 = DeviceEngine("cuda", "fp32", loop, None), np.zeros((1, 3, 8, 8), np.float32)
    gc.disable()
    try:
        with pytest.raises(OutOfMemoryError, match="the GPU has not enough memory: tried to allocate"):
            _core.sample(engine.core, Plan.posterior(Schedule(), 2).rows, x1)
        assert held
        assert all(tensor() is None for tensor in held)
        assert not loop._steps
    finally:
        gc.enable()


@pytest.mark.skipif(DEVICE == "cuda", reason="there is a GPU")
def test_a_missing_gpu_is_told(folder: Path) -> None:
    with pytest.raises(DeviceError, match="no CUDA device"):
        load(folder / "plain.onnx", engine="cuda")


def test_tiles_larger_than_the_image_are_padded_as_in_the_core(folder: Path, photo: U8) -> None:
    plain, ours = pair(folder / "plain.onnx")
    for image in (photo[:, :9], photo[:3, :2]):
        wanted, found = (each.restore(image, nfe=2, tile=64, overlap=16) for each in (plain, ours))
        assert np.abs(found.astype(int) - wanted).max() <= 1


def test_a_run_can_be_stopped_and_faults_are_told(folder: Path, photo: U8) -> None:
    _, ours = pair(folder / "plain.onnx")
    wanted, seen = ours.restore(photo, nfe=5), []

    def observe(phase: str, row: int, *_: int) -> bool:
        if phase == "network":
            seen.append(row)
        return row == 2

    with pytest.raises(CancelledError):
        ours.restore(photo, nfe=5, observer=observe)
    assert seen == [0, 1, 2]
    np.testing.assert_array_equal(ours.restore(photo, nfe=5), wanted)
    head = ours.engine._loop.network.head  # type: ignore[attr-defined]
    head.own = head.own * float("nan")
    with pytest.raises(NonFiniteError):
        ours.restore(photo[:16], nfe=2)
