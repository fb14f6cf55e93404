"""Every task but JPEG, from its samples to a restored picture: trained for some steps, written, exported, run."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from i2sb_export.onnx import export_onnx
from i2sb_rt.evaluation.metrics import psnr
from i2sb_rt.restorer import Restorer, load
from i2sb_train import recipe
from i2sb_train.data import Samples, batches
from i2sb_train.degrade import emptied
from i2sb_train.i2sb import Bridge
from i2sb_train.loop import Pictures, Trainer
from i2sb_train.procedural import dead_leaves
from i2sb_train.progress import Progress
from i2sb_train.recipe import Recipe
from i2sb_train.run import write_model
from i2sb_train.validate import one_call, swap, validate

MakeRecipe = Callable[..., Recipe]
CPU = torch.device("cpu")
SR4X = {
    "model": {"name": "sr4x", "task": "sr4x-bicubic"},
    "degradation": {"kind": "operators", "operators": ["sr4x-bicubic"]},
}
DEBLUR = {
    "model": {"name": "deblur", "task": "deblur"},
    "degradation": {"kind": "operators", "operators": ["blur-uni-exact", "gaussian-blur"], "noise": [0.0, 2.0]},
}
INPAINT = {
    "model": {"name": "inpaint", "task": "inpaint", "sampler": "ode", "nfe": 2},
    "bridge": {"beta_max": 1.0, "ot_ode": True},
    "degradation": {"kind": "inpaint", "zoom": 2.0},
}
MICRO = {"network": {"model_channels": 8, "channel_mult": [1]}, "train": {"steps": 3, "decay": 1}}
TASKS = {"sr4x": SR4X, "deblur": DEBLUR, "inpaint": INPAINT}
every_task = pytest.mark.parametrize("task", list(TASKS.values()), ids=list(TASKS))


@every_task
def test_an_index_decides_its_sample(make_recipe: MakeRecipe, task: dict[str, Any]) -> None:
    first, again = (Samples(make_recipe(**task), []) for _ in range(2))
    other = Samples(make_recipe(**task, train={"seed": 1}), [])
    expected = {index: first[index] for index in range(8)}
    for index in (5, 0, 7, 3):
        for a, b in zip(expected[index], again[index], strict=True):
            assert (a is None) == (b is None)
            assert a is None or torch.equal(a, b)
        assert not torch.equal(expected[index].x1, other[index].x1)
    assert not torch.equal(expected[0].x1, expected[1].x1)


@pytest.mark.parametrize("workers", [0, 2])
def test_workers_and_restarts_change_no_sample(make_recipe: MakeRecipe, workers: int) -> None:
    samples = Samples(make_recipe(**INPAINT, data={"workers": workers}), [])
    for step, batch in enumerate(batches(samples, 1, 3), start=1):
        assert batch.clean.shape == batch.x1.shape == (4, 3, 16, 16)
        assert batch.mask is not None
        assert (batch.mask.shape, batch.mask.dtype) == ((4, 1, 16, 16), torch.bool)
        for j in range(4):
            for part, expected in zip(batch, samples[step * 4 + j], strict=True):
                assert part is expected is None or torch.equal(part[j], expected)


@every_task
def test_the_loss_falls(make_recipe: MakeRecipe, task: dict[str, Any], tmp_path: Path) -> None:
    recipe = make_recipe(**task, train={"steps": 25, "decay": 5, "last_step": 1.0, "batch": 8})
    trainer = Trainer(recipe, Pictures([], []), tmp_path)
    batch = next(iter(batches(trainer.samples, 0, 1)))
    losses = [trainer.step(batch) for _ in range(25)]
    assert losses[-1] < 0.85 * losses[0]


def exported(recipe: Recipe, folder: Path) -> tuple[Trainer, Restorer]:
    """Train a recipe to its end; return the trainer and what restores with the exported model, in fp32."""
    trainer = Trainer(recipe, Pictures([], []), folder)
    with Progress(0, recipe.train.steps, 1000) as progress:
        assert trainer.run(progress)
    write_model(folder / "m.safetensors", trainer)
    export_onnx(folder / "m.safetensors", folder / "m.onnx", "fp32")
    return trainer, load(folder / "m.onnx", threads=1, precision="fp32")


@pytest.mark.parametrize("task", [SR4X, DEBLUR], ids=["sr4x", "deblur"])
def test_a_few_steps_end_in_a_model_that_restores(
    make_recipe: MakeRecipe, task: dict[str, Any], tmp_path: Path
) -> None:
    _, restorer = exported(make_recipe(**task, **MICRO), tmp_path)
    upscale = 4 if task is SR4X else 1
    assert (restorer.info.task, restorer.info.upscale) == (task["model"]["task"], upscale)
    assert not restorer.info.fills_holes
    restored = restorer.restore(dead_leaves(24, np.random.default_rng(0))[:, :21])
    assert restored.shape == (24 * upscale, 21 * upscale, 3)


@pytest.mark.parametrize(
    ("prediction", "shown", "fill"),
    [("noise", False, "noise"), ("mean", False, "noise"), ("mean", True, "noise"), ("noise", True, "smooth")],
)
def test_a_few_steps_end_in_a_model_that_fills_holes(
    make_recipe: MakeRecipe, prediction: str, shown: bool, fill: str, tmp_path: Path
) -> None:
    bridge = {**INPAINT["bridge"], "prediction": prediction, "cond_mask": shown, "fill": fill}
    network = {**MICRO["network"], "in_channels": 7 if shown else 3}
    task = {**INPAINT, **MICRO, "bridge": bridge, "network": network}
    trainer, restorer = exported(make_recipe(**task), tmp_path)
    assert (restorer.info.prediction, restorer.info.cond_mask, restorer.info.fill) == (prediction, shown, fill)
    assert (restorer.info.fills_holes, restorer.info.ot_ode, restorer.info.upscale) == (True, True, 1)
    picture, hole = dead_leaves(24, np.random.default_rng(0)), np.tri(24, dtype=bool)
    given = emptied(picture, hole)
    restored = restorer.restore(given, mask=hole, seed=5)
    assert np.array_equal(restored[~hole], picture[~hole])
    assert (restored[hole] != 128).any()
    # One call from the same noise is what validation scores; the sampler leaves 4e-4 of the noise in it.
    swap(trainer.state.network, trainer.state.ema)
    scored = one_call(trainer.state.network, trainer.bridge, given, CPU, hole, seed=5)
    restored = restorer.restore(given, mask=hole, seed=5, nfe=1)
    assert np.abs(scored[hole].astype(int) - restored[hole]).max() <= 1


def test_the_score_of_a_hole_is_that_of_its_pixels() -> None:
    picture, hole = dead_leaves(24, np.random.default_rng(2)), np.tri(24, dtype=bool)
    bridge = Bridge.of(recipe.Bridge())

    class Perfect(torch.nn.Module):
        """Gives the noise that leads to black."""

        def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            return (x + 1) / bridge.std_fwd[-1]

    damages = {"hole": lambda picture, rng: (emptied(picture[0], hole), hole)}
    (score,) = validate(Perfect(), bridge, [(picture,)], damages, CPU)
    assert score.before == pytest.approx(psnr(picture[hole], np.full_like(picture, 128)[hole]))
    assert score.after == pytest.approx(psnr(picture[hole], np.zeros_like(picture)[hole]))
    assert str(score).startswith("hole: ")
