"""The training loop: it learns, repeats itself bit for bit, goes on where it stopped, and refuses to go on with NaN."""

import signal
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from i2sb_rt.errors import I2SBError, UsageError
from i2sb_train import checkpoint
from i2sb_train.data import Sample, batches, collate, to_signal
from i2sb_train.loop import Pictures, Trainer, TrainingError, autocast, learning_rate, new_state
from i2sb_train.procedural import dead_leaves
from i2sb_train.progress import Progress
from i2sb_train.recipe import Recipe

MakeRecipe = Callable[..., Recipe]
INPAINT = {"model": {"task": "inpaint"}, "degradation": {"kind": "inpaint", "zoom": 2.0}}
DEBLUR = {"degradation": {"kind": "operators", "operators": ["gaussian-blur", "blur-uni-exact"], "noise": [0.0, 2.0]}}
CPU = torch.device("cpu")


def trainer(recipe: Recipe, folder: Path, held_out: int = 0) -> Trainer:
    pictures = [(dead_leaves(24, np.random.default_rng(i)),) for i in range(held_out)]
    return Trainer(recipe, Pictures([], pictures), folder)


def first_batch(run: Trainer) -> Sample:
    return next(iter(batches(run.samples, 0, 1)))


def trained(recipe: Recipe, folder: Path, start: Path | None = None) -> Trainer:
    run = trainer(recipe, folder)
    if start is not None:
        checkpoint.load_state(start, run.state, recipe)
    with Progress(run.state.step, recipe.train.steps, 1000) as progress:
        assert run.run(progress)
    return run


def assert_same(a: Trainer, b: Trainer) -> None:
    assert a.state.step == b.state.step
    for (name, ours), theirs in zip(a.state.network.named_parameters(), b.state.network.parameters(), strict=True):
        assert torch.equal(ours, theirs), name
        assert torch.equal(a.state.ema[name], b.state.ema[name]), name


@pytest.mark.parametrize("task", [{}, INPAINT, DEBLUR], ids=["jpeg", "inpaint", "deblur"])
def test_three_steps_and_three_more_are_six(make_recipe: MakeRecipe, tmp_path: Path, task: dict[str, Any]) -> None:
    six = make_recipe(train={"steps": 6, "decay": 2}, **task)
    whole = trained(six, tmp_path / "whole")
    trained(make_recipe(train={"steps": 3, "decay": 0}, **task), tmp_path / "parts")
    start = checkpoint.checkpoints(tmp_path / "parts")[-1]
    resumed = trained(six, tmp_path / "parts", start)
    assert_same(whole, resumed)
    a, b = (load_file(checkpoint.checkpoint_path(tmp_path / part, 6)) for part in ("whole", "parts"))
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_the_seed_decides_the_run(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    torch.manual_seed(123)
    a = trained(make_recipe(train={"steps": 2, "decay": 0}), tmp_path / "a")
    torch.manual_seed(321)
    b = trained(make_recipe(train={"steps": 2, "decay": 0}), tmp_path / "b")
    assert_same(a, b)
    c = trained(make_recipe(train={"steps": 2, "decay": 0, "seed": 1}), tmp_path / "c")
    assert not torch.equal(a.state.ema["out.2.weight"], c.state.ema["out.2.weight"])


def test_micro_batches_change_rounding_only(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    runs = [trainer(make_recipe(train={"micro": micro}), tmp_path) for micro in (0, 3)]
    losses = [run.step(first_batch(run)) for run in runs]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    weights = [run.state.network.get_parameter("out.2.weight") for run in runs]
    # Adam's first step is lr sign(gradient): rounding may turn a vanishing gradient around, but no other.
    assert (weights[0] - weights[1]).abs().mean() < 1e-5


def test_micro_batches_weigh_holes_by_their_pixels(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    runs = [trainer(make_recipe(train={"micro": micro}, **INPAINT), tmp_path) for micro in (0, 3)]
    losses = [run.step(first_batch(run)) for run in runs]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


@pytest.mark.parametrize("ot_ode", [False, True])
def test_a_hole_begins_as_noise_and_known_pixels_as_they_are(
    make_recipe: MakeRecipe, tmp_path: Path, ot_ode: bool
) -> None:
    sampler = {"model": {"task": "inpaint", "sampler": "ode" if ot_ode else "sde"}, "bridge": {"ot_ode": ot_ode}}
    recipe = make_recipe(train={"last_step": 1.0, "batch": 8}, **{**INPAINT, **sampler})
    run = trainer(recipe, tmp_path)
    seen: list[torch.Tensor] = []
    run.state.network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    batch = first_batch(run)
    run.step(batch)
    assert batch.mask is not None
    hole = batch.mask.expand_as(batch.clean)
    assert torch.equal(seen[0][~hole], to_signal(batch.clean)[~hole])
    assert seen[0][hole].mean().item() == pytest.approx(0, abs=0.15)
    assert seen[0][hole].std().item() == pytest.approx(1, abs=0.1)


def test_scores_are_told_for_each_kind_of_damage(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    labels = {"gaussian-blur": DEBLUR, "strokes": INPAINT}
    seconds = {"gaussian-blur": "blur-uni-exact", "strokes": "boxes"}
    for label, task in labels.items():
        run = trainer(make_recipe(validation={"crop": 16}, **task), tmp_path, held_out=2)
        scores = run.scores()
        assert [score.damage for score in scores] == [label, seconds[label]]
        assert all(str(score).endswith(")") and " dB (" in str(score) for score in scores)
        assert run.scores() == scores  # Seeds are fixed.
    only = make_recipe(validation={"crop": 16}, model={"task": "inpaint"}, degradation={"kind": "inpaint", "boxes": 0})
    assert [score.damage for score in trainer(only, tmp_path, held_out=1).scores()] == ["strokes"]


def test_the_loss_falls_and_quality_rises(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    quality = {"degradation": {"quality": [5, 5]}, "validation": {"qualities": [5], "crop": 16}}
    run = trainer(make_recipe(train={"steps": 25, "decay": 5, "last_step": 1.0}, **quality), tmp_path, held_out=3)
    batch = collate([run.samples[i] for i in range(8)])
    losses = [run.step(batch) for _ in range(25)]
    assert losses[-1] < 0.6 * losses[0]
    (score,) = run.scores()
    assert 10 < score.before < 40
    assert score.after != score.before


@pytest.mark.slow
def test_a_short_training_restores_what_it_never_saw(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    changes = {"degradation": {"quality": [5, 5]}, "validation": {"qualities": [5], "crop": 64}}
    recipe = make_recipe(train={"steps": 500, "decay": 200, "last_step": 1.0, "ema": 0.98}, **changes)
    run = trainer(recipe, tmp_path)
    run.held_out = [(dead_leaves(64, np.random.default_rng([7, i])),) for i in range(8)]
    with Progress(0, 500, 100) as progress:
        run.run(progress)
    (score,) = run.scores()
    assert score.after - score.before > 0.2


def test_a_loss_that_is_not_finite_stops_the_run(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    run = trainer(make_recipe(), tmp_path)
    before = {name: p.detach().clone() for name, p in run.state.network.named_parameters()}
    with torch.no_grad():
        run.state.network.get_parameter("out.2.bias")[0] = float("nan")
    with pytest.raises(TrainingError, match=r"step 0: the loss is nan.*lower train\.lr") as caught:
        run.step(first_batch(run))
    assert isinstance(caught.value, I2SBError)
    assert run.state.step == 0
    assert torch.equal(run.state.network.get_parameter("out.0.weight"), before["out.0.weight"])
    assert not list(tmp_path.iterdir())


def test_a_signal_ends_the_run_after_its_step_with_a_checkpoint(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    run = trainer(make_recipe(), tmp_path)
    handler = signal.getsignal(signal.SIGTERM)
    step = run.step

    def interrupted(batch: Sample) -> float:
        if run.state.step == 1:
            signal.raise_signal(signal.SIGTERM)
        return step(batch)

    run.step = interrupted  # type: ignore[method-assign]
    with Progress(0, 60, 1000) as progress:
        assert not run.run(progress)
    assert checkpoint.checkpoints(tmp_path) == [checkpoint.checkpoint_path(tmp_path, 2)]
    assert signal.getsignal(signal.SIGTERM) == handler


def test_a_launcher_may_repeat_its_signal(
    make_recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch system sends SIGTERM to every process, and torchrun sends it to its own once more."""
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    run = trainer(make_recipe(), tmp_path)
    step = run.step

    def interrupted(batch: Sample) -> float:
        for _ in range(2):
            assert signal.getsignal(signal.SIGTERM) != signal.SIG_DFL
            signal.raise_signal(signal.SIGTERM)
        return step(batch)

    run.step = interrupted  # type: ignore[method-assign]
    with Progress(0, 60, 1000) as progress:
        assert not run.run(progress)
    assert checkpoint.checkpoints(tmp_path) == [checkpoint.checkpoint_path(tmp_path, 1)]


def test_the_rate_warms_up_stays_and_falls(make_recipe: MakeRecipe) -> None:
    train = make_recipe(train={"steps": 100, "warmup": 10, "decay": 40, "lr": 1.0, "lr_end": 0.1}).train
    rates = [learning_rate(step, train) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9:60] == [1.0] * 51
    assert all(a > b for a, b in pairwise(rates[59:]))
    assert rates[79] == pytest.approx(0.55)
    assert rates[99] == pytest.approx(0.1)
    assert learning_rate(99, make_recipe(train={"steps": 100, "warmup": 0, "decay": 0, "lr": 1.0}).train) == 1.0


def test_the_mean_of_the_weights_follows_them(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    run = trainer(make_recipe(train={"ema": 0.5}), tmp_path)
    run.state.step = 100
    run.state.ema["out.2.bias"].fill_(1.0)
    with torch.no_grad():
        run.state.network.get_parameter("out.2.bias").fill_(3.0)
    run._average()
    assert torch.equal(run.state.ema["out.2.bias"], torch.full((12,), 2.0))


def test_scoring_leaves_the_weights_in_place(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    run = trainer(make_recipe(validation={"crop": 16, "qualities": [5, 50]}), tmp_path, held_out=2)
    run.state.ema["out.2.bias"].fill_(0.25)
    before = {name: p.detach().clone() for name, p in run.state.network.named_parameters()}
    assert len(run.scores()) == 2
    assert all(torch.equal(p, before[name]) for name, p in run.state.network.named_parameters())
    assert (run.state.ema["out.2.bias"] == 0.25).all()


def test_a_network_that_sees_the_damaged_picture_trains_and_scores(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    changes = {"network": {"in_channels": 6}, "bridge": {"cond_x1": True}, "validation": {"crop": 16}}
    run = trainer(make_recipe(**changes), tmp_path, held_out=1)
    run.step(first_batch(run))
    run.step(first_batch(run))
    assert run.state.network.get_parameter("input_blocks.0.0.weight").shape[1] == 24
    assert len(run.scores()) == 1


def test_precision(make_recipe: MakeRecipe) -> None:
    with autocast("fp32", CPU):
        assert not torch.is_autocast_enabled("cpu")
    with autocast("bf16", CPU):
        assert torch.is_autocast_enabled("cpu")
        assert torch.get_autocast_dtype("cpu") == torch.bfloat16


def test_bf16_trains(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    run = trainer(make_recipe(train={"precision": "bf16"}), tmp_path)
    assert np.isfinite(run.step(first_batch(run)))
    assert run.state.ema["out.2.weight"].dtype == torch.float32


def test_fp16_scales_its_loss_and_leaves_out_what_overflows(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    recipe = make_recipe(train={"precision": "fp16"})
    run = trainer(recipe, tmp_path)
    batch = first_batch(run)
    run.state.scaler.load_state_dict({**run.state.scaler.state_dict(), "scale": 2.0**40})
    before = run.state.network.get_parameter("out.2.bias").detach().clone()
    assert np.isfinite(run.step(batch))
    assert torch.equal(run.state.network.get_parameter("out.2.bias"), before)
    assert (run.state.step, run.state.updates, run.state.scaler.get_scale()) == (1, 0, 2.0**39)
    run.save()
    checkpoint.load_state(checkpoint.checkpoint_path(tmp_path, 1), trainer(recipe, tmp_path).state, recipe)
    run.state.scaler.load_state_dict({**run.state.scaler.state_dict(), "scale": 2.0**10})
    losses = [run.step(batch) for _ in range(3)]
    exact = trainer(make_recipe(), tmp_path).step(batch)
    assert losses[0] == pytest.approx(exact, rel=5e-3)
    assert not torch.equal(run.state.network.get_parameter("out.2.bias"), before)
    assert (run.state.step, run.state.updates) == (4, 3)
    run.save()
    again = trainer(recipe, tmp_path)
    checkpoint.load_state(checkpoint.checkpoint_path(tmp_path, 4), again.state, recipe)
    assert (again.state.step, again.state.updates) == (4, 3)
    assert again.state.scaler.state_dict() == run.state.scaler.state_dict()
    run.step(batch)
    again.step(batch)
    assert_same(run, again)


def test_the_rate_falls_in_steps(make_recipe: MakeRecipe) -> None:
    train = make_recipe(train={"lr": 1.0, "warmup": 0, "decay": 0, "lr_gamma": 0.5, "lr_step": 10}).train
    assert [learning_rate(step, train) for step in (0, 9, 10, 19, 20)] == [1, 1, 0.5, 0.5, 0.25]


def test_a_network_that_cannot_be_built_is_named(make_recipe: MakeRecipe) -> None:
    with pytest.raises(UsageError, match=r"\[network\].*'depth'"):
        new_state(make_recipe(network={"depth": 3}), CPU)
