"""What a run tells while it goes on: TensorBoard's events, and the plan of a dry run."""

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from i2sb_rt.cli import main
from i2sb_rt.errors import UsageError
from i2sb_train.data import batches
from i2sb_train.loop import Pictures, Trainer
from i2sb_train.probe import probe
from i2sb_train.procedural import dead_leaves
from i2sb_train.progress import Progress
from i2sb_train.recipe import Recipe
from i2sb_train.watch import LEVELS, Watch, watching

MakeRecipe = Callable[..., Recipe]
TINY = Path(__file__).parents[2] / "train" / "recipes" / "tiny.toml"
INPAINT = {"model": {"task": "inpaint"}, "degradation": {"kind": "inpaint", "boxes": 0.0}}
SHOWN = {
    **INPAINT,
    "bridge": {**INPAINT.get("bridge", {}), "cond_mask": True, "fill": "smooth"},
    "network": {"in_channels": 7},
}
COND = {"bridge": {"cond_x1": True, "add_x1_noise": True}, "network": {"in_channels": 6}}


class Written:
    """What a writer of TensorBoard is told."""

    def __init__(self) -> None:
        self.scalars: list[tuple[str, float, int]] = []
        self.images: dict[str, tuple[Any, int]] = {}

    def add_scalar(self, name: str, value: float, step: int) -> None:
        self.scalars.append((name, value, step))

    def add_image(self, name: str, image: Any, step: int, dataformats: str) -> None:
        assert dataformats == "HWC"
        self.images[name] = image, step

    def flush(self) -> None:
        pass


def test_losses_are_told_by_noise_level() -> None:
    written = Written()
    watch = Watch(written, interval=100, every=2)
    watch.errors(torch.tensor([0, 9, 10, 99]), torch.tensor([1.0, 2.0, 3.0, 4.0]))
    watch.step(1, 5.0, 0.1)
    assert not written.scalars
    watch.errors(torch.tensor([95]), torch.tensor([8.0]))
    watch.step(2, 7.0, 0.2)
    assert written.scalars == [
        ("loss", 6.0, 2),
        ("learning rate", 0.2, 2),
        ("loss by noise level/0", 1.5, 2),
        ("loss by noise level/1", 3.0, 2),
        (f"loss by noise level/{LEVELS - 1}", 6.0, 2),
    ]
    watch.step(4, 1.0, 0.2)
    assert written.scalars[5:] == [("loss", 1.0, 4), ("learning rate", 0.2, 4)]


def test_what_is_told_of_samples_is_the_loss(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    written = Written()
    recipe = make_recipe(train={"micro": 3})
    trainer = Trainer(recipe, Pictures([], []), tmp_path, watch=Watch(written, recipe.bridge.interval, 1))
    loss = trainer.step(next(iter(batches(trainer.samples, 0, 1))))
    sums, counts = trainer.watch.sums
    assert counts.sum() == 4
    assert float(sums.sum()) / 4 == pytest.approx(loss, rel=1e-5)


@pytest.mark.parametrize(
    "task", [{}, INPAINT, COND, SHOWN], ids=["jpeg", "inpaint", "cond_x1 and noise in x1", "cond_mask"]
)
def test_trajectories_lead_from_the_damaged_picture_to_the_clean_one(
    make_recipe: MakeRecipe, tmp_path: Path, task: dict[str, Any]
) -> None:
    written = Written()
    recipe = make_recipe(train={"steps": 2, "decay": 1}, validation={"every": 2, "crop": 16}, **task)
    picture = dead_leaves(16, np.random.default_rng(0))
    trainer = Trainer(recipe, Pictures([], [(picture,)]), tmp_path, watch=Watch(written, recipe.bridge.interval, 1))
    with Progress(0, 2, 1000) as progress:
        assert trainer.run(progress)
    (name,) = written.images
    shown, step = written.images[name]
    assert (name, step) == ("trajectory/strokes" if "degradation" in task else "trajectory/QF 10", 2)
    assert (shown.shape, shown.dtype) == ((16, 7 * 16, 3), np.uint8)
    assert np.array_equal(shown[:, -16:], picture)
    parts = np.split(shown, 7, axis=1)
    assert len({part.tobytes() for part in parts}) == 7
    told = {scalar[0] for scalar in written.scalars}
    assert {"loss", f"held-out PSNR in dB/{name.removeprefix('trajectory/')}"} <= told


def test_tensorboard_reads_what_is_written(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    watch = watching("tensorboard", tmp_path, "run", 100, 1)
    watch.step(1, 3.5, 0.25)
    watch.trajectory(1, "QF 10", np.zeros((4, 28, 3), np.uint8))
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(1, 3.5)]
    assert (events.Images("trajectory/QF 10")[0].width, events.Images("trajectory/QF 10")[0].height) == (28, 4)


def test_nobody_is_told_anything() -> None:
    watch = Watch()
    watch.errors(torch.tensor([0]), torch.tensor([1.0]))
    watch.step(1, 1.0, 0.1)
    assert watch.losses == []
    assert not watch.sums.any()


def test_a_writer_that_is_not_installed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "wandb", None)
    with pytest.raises(UsageError, match="--log-writer wandb needs the package wandb"):
        watching("wandb", tmp_path, "run", 100, 1)


def test_a_dry_run_tells_the_plan_and_writes_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert (
        main(["train", "i2sb", str(TINY), "--dry-run", "--out", str(out), "--threads", "1", "--batch-size", "2"]) == 0
    )
    told = capfd.readouterr().out
    flop, steps, hours = (
        float(re.search(pattern, told)[1])  # type: ignore[index]
        for pattern in (r"FLOP +(\S+) a step", r"(\d+) steps an hour", r"; (\S+) hours for 60 steps")
    )
    assert "parameters   176,396 (0.34 MiB as a model in fp16)" in told
    assert "batch        2 x 16 x 16, 1 process(es), cpu" in told
    # A forward pass of this network at 16 x 16 is 3.95 M multiplications with an addition; a step is three passes.
    assert flop == pytest.approx(2 * 2 * 3 * 3.95e6, rel=0.1)
    assert hours == pytest.approx(60 / steps, rel=0.02)
    assert "waiting for data" in told
    assert not out.exists()


def test_a_dry_run_times_the_compiled_network(
    make_recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled = []

    def backend(module: torch.fx.GraphModule, _: list[torch.Tensor]) -> object:
        compiled.append(module)
        return module

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    recipe = make_recipe(train={"compile": True, "batch": 2}, data={"crop": 16})
    assert probe(Trainer(recipe, Pictures([], []), tmp_path)) == 0
    assert compiled
