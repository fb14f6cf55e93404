"""Fitting: it learns, goes on exactly where it stopped, and ends with model files that run."""

import json
import math
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from i2sb_rt.cli import main
from i2sb_rt.model_file import load_weights, read_info
from i2sb_rt.networks.loading import load_network
from i2sb_train import checkpoint
from i2sb_train.checkpoint import CheckpointError
from i2sb_train.dsb.checkpoint import load_state
from i2sb_train.dsb.data import Ends
from i2sb_train.dsb.process import Direction, Drift
from i2sb_train.dsb.recipe import DsbRecipe, Validation, dsb_rules
from i2sb_train.dsb.run import measured
from i2sb_train.dsb.trainer import Fitter
from i2sb_train.loop import TrainingError
from i2sb_train.progress import Progress
from i2sb_train.recipe_file import checked, read_tables

MakeDsb = Callable[..., DsbRecipe]
CPU = torch.device("cpu")
RECIPES = Path(__file__).parents[3] / "train" / "recipes" / "dsb"


def fitter(recipe: DsbRecipe, folder: Path) -> Fitter:
    return Fitter(recipe, Ends(recipe), folder, CPU)


def weights(fitted: Fitter) -> dict[str, torch.Tensor]:
    return {
        f"{direction}.{kind}.{name}": tensor.clone()
        for direction, side in fitted.fit.sides.items()
        for kind, network in (("model", side.network), ("ema", side.ema))
        for name, tensor in network.state_dict().items()
    }


def run(fitted: Fitter, halves: int | None = None) -> None:
    with Progress(0, 1, 10**9, quiet=True) as progress:
        while not fitted.ended and (halves is None or fitted.fit.half < halves):
            assert fitted.run_half(progress) is not None
            fitted.next_half()


@pytest.mark.parametrize("algorithm", ["ipf", "imf"])
@pytest.mark.parametrize("warm", [True, False])
def test_a_run_goes_on_exactly_from_any_step(algorithm: str, warm: bool, make_dsb: MakeDsb, tmp_path: Path) -> None:
    recipe = make_dsb(train={"algorithm": algorithm, "warm_start": warm})
    whole = fitter(recipe, tmp_path / "whole")
    run(whole)
    wanted = weights(whole)
    for half, step in ((0, 3), (1, 0), (2, 5), (3, 4), (4, 0)):  # inside caches, at their ends, between halves
        first = fitter(recipe, tmp_path / f"{half}-{step}")
        run(first, half)
        for _ in range(step):
            first.step()
        first.save()
        second = fitter(recipe, first.folder)
        load_state(checkpoint.checkpoints(first.folder)[-1], second.fit, recipe)
        run(second)
        found = weights(second)
        assert found.keys() == wanted.keys()
        assert all(torch.equal(found[name], wanted[name]) for name in wanted), (half, step)


def test_networks_begin_anew_unless_warm(make_dsb: MakeDsb, tmp_path: Path) -> None:
    for warm in (True, False):
        fitted = fitter(make_dsb(train={"warm_start": warm}), tmp_path)
        run(fitted, 1)
        before = weights(fitted)["backward.ema.out.weight"]
        assert before.abs().max() > 0
        run(fitted, 2)
        kept = weights(fitted)["backward.ema.out.weight"]
        assert torch.equal(kept, before) == warm
        assert warm or kept.abs().max() == 0


@pytest.mark.parametrize(
    ("algorithm", "prediction"),
    [("ipf", "drift"), ("imf", "drift"), ("ipf", "noise"), ("ipf", "mean"), ("imf", "residual")],
)
def test_it_learns_to_carry_one_gaussian_to_another(
    algorithm: str, prediction: str, make_dsb: MakeDsb, tmp_path: Path
) -> None:
    recipe = make_dsb(
        start={"mean": -0.7, "std": 0.5},
        bridge={"prediction": prediction, "horizon": 1.0, "steps": 20},
        train={
            "algorithm": algorithm,
            "iterations": 2,
            "steps": 200,
            "batch": 256,
            "lr": 5e-3,
            "cache": 4000,
            "refresh": 75,
        },
    )
    fitted = fitter(recipe, tmp_path)
    run(fitted)
    for direction, begins, mean, std in (("forward", "start", 0.0, 1.0), ("backward", "end", -0.7, 0.5)):
        ended = fitted.simulate(direction, fitted.drawn(begins, 4000, 1), 2)[-1].flatten(1)
        np.testing.assert_allclose(ended.mean(0), [mean, mean], atol=0.15)
        np.testing.assert_allclose(ended.std(0), [std, std], atol=0.12)


def test_a_loss_that_is_not_finite_ends_the_run_and_changes_nothing(make_dsb: MakeDsb, tmp_path: Path) -> None:
    fitted = fitter(make_dsb(), tmp_path)
    fitted.step()
    before = weights(fitted)
    with torch.no_grad():
        next(iter(fitted.fit.sides["backward"].network.parameters()))[0] = math.nan
    broken = weights(fitted)
    with pytest.raises(TrainingError, match="half 1, step 1: the loss is nan"):
        fitted.step()
    after = weights(fitted)
    assert all(torch.equal(after[n], before[n]) for n in before if ".ema." in n)
    assert all(torch.equal(after[n].nan_to_num(), broken[n].nan_to_num()) for n in broken)
    assert fitted.fit.step == 1


def test_checkpoints_of_something_else_are_refused(make_dsb: MakeDsb, tmp_path: Path) -> None:
    recipe = make_dsb()
    fitted = fitter(recipe, tmp_path)
    fitted.step()
    fitted.save()
    (path,) = checkpoint.checkpoints(tmp_path)
    for changed, table in (
        (make_dsb(bridge={"horizon": 0.7}), "bridge"),
        (make_dsb(start={"mean": 0.0}), "start"),
        (make_dsb(network={"mlp": {"width": 8}}), "network"),
    ):
        with pytest.raises(CheckpointError, match=rf"another \[{table}\]"):
            load_state(path, fitter(changed, tmp_path).fit, changed)
    longer = replace(recipe, train=replace(recipe.train, steps=9))
    load_state(path, fitter(longer, tmp_path).fit, longer)
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(CheckpointError, match="not a readable checkpoint"):
        load_state(path, fitter(recipe, tmp_path).fit, recipe)


RECIPE = """
[model]
name = "small"
license = "Apache-2.0"
trained_on = "points"
[network.mlp]
width = 16
depth = 2
[bridge]
steps = 6
[start]
kind = "moons"
[end]
kind = "normal"
[train]
iterations = 2
steps = 5
batch = 16
lr = 1e-3
cache = 32
[validation]
samples = 50
projections = 8
"""


def train(path: Path, *options: str) -> int:
    return main(["train", "dsb", str(path / "recipe.toml"), "--out", str(path / "out"), "--threads", "1", *options])


def test_the_command_ends_with_two_models_and_measures(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "recipe.toml").write_text(RECIPE)
    assert train(tmp_path) == 0
    told = capfd.readouterr().out
    assert "iteration 1, backward: loss" in told
    assert "iteration 2, forward: loss" in told
    for direction in ("forward", "backward"):
        path = tmp_path / "out" / f"small-{direction}.safetensors"
        info = read_info(path)
        assert (info.name, info.direction, info.prior, info.nfe) == ("small", direction, 1.0, 6)
        assert load_weights(path)["out.weight"].shape == (2, 16)
        assert load_network(path)(torch.zeros(3, 2, 1, 1), torch.zeros(3)).shape == (3, 2, 1, 1)
        assert f"wrote {path}" in told
    lines = [json.loads(line) for line in (tmp_path / "out" / "measures.jsonl").read_text().splitlines()]
    assert [(line["half"], line["direction"]) for line in lines] == [
        (1, "backward"), (2, "forward"), (3, "backward"), (4, "forward")
    ]  # fmt: skip
    assert all(line["sliced_wasserstein"] > 0 for line in lines)
    assert [line.get("sinkhorn_cost", 0) > 0 for line in lines] == [False, False, False, True]
    pictures = sorted((tmp_path / "out" / "pictures").glob("*.png"))
    assert [path.name for path in pictures] == ["01-backward.png", "02-forward.png", "03-backward.png",
                                                "04-forward.png", "measures.png"]  # fmt: skip
    assert all(np.asarray(Image.open(path)).std() > 10 for path in pictures)
    halves = sorted(path.name for path in (tmp_path / "out" / "halves").glob("*.safetensors"))
    assert halves == ["01-backward.safetensors", "02-forward.safetensors", "03-backward.safetensors",
                      "04-forward.safetensors"]  # fmt: skip
    assert train(tmp_path) == 2
    assert "already holds checkpoints; give --resume" in capfd.readouterr().err
    assert train(tmp_path, "--resume") == 0


def test_a_signal_ends_it_with_a_checkpoint(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "recipe.toml").write_text(RECIPE)
    step, taken = Fitter.step, []

    def stopped(self: Fitter) -> float:
        taken.append(1)
        if len(taken) == 8:
            os.kill(os.getpid(), signal.SIGINT)
        return step(self)

    monkeypatch.setattr(Fitter, "step", stopped)
    assert train(tmp_path) == 130
    assert "stopped after step 8; --resume goes on from there." in capfd.readouterr().out
    assert train(tmp_path, "--resume", "auto") == 0
    assert len(taken) == 20
    measures = (tmp_path / "out" / "measures.jsonl").read_text().splitlines()
    assert [json.loads(line)["half"] for line in measures] == [1, 2, 3, 4]


def test_a_signal_ends_the_making_of_a_cache(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "recipe.toml").write_text(RECIPE)
    simulated, asked = Fitter.drift, []

    def stopped(self: Fitter, direction: Direction) -> Drift:
        drift = simulated(self, direction)

        def asks(x: Tensor, state: int) -> Tensor:
            asked.append(state)
            if self.fit.half == 1 and self.fit.step == 0 and state == 2:
                os.kill(os.getpid(), signal.SIGINT)
            return drift(x, state)

        return asks

    with monkeypatch.context() as patch:
        patch.setattr(Fitter, "drift", stopped)
        assert train(tmp_path) == 130
    assert asked[-1] == 2
    assert "stopped after step 5; --resume goes on from there." in capfd.readouterr().out
    assert train(tmp_path, "--resume", "auto") == 0


def test_what_is_wrong_with_a_recipe_is_one_sentence(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "recipe.toml").write_text(RECIPE.replace("moons", "moon"))
    assert train(tmp_path) == 2
    told = capfd.readouterr().err
    assert told.startswith(f"i2sb-rt: {tmp_path / 'recipe.toml'}: start.kind must be one of moons")
    assert "Traceback" not in told


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.toml")), ids=lambda path: path.stem)
def test_every_recipe_of_the_package_runs(path: Path, tmp_path: Path) -> None:
    recipe = checked(DsbRecipe, read_tables(path), dsb_rules)
    folders = []
    for name in ("start", "end") if path.stem == "images" else ():
        folders.append(tmp_path / name)
        folders[-1].mkdir()
        for k in range(3):
            Image.new("RGB", (70, 80), (80 * k, 20, 90)).save(folders[-1] / f"{k}.png")
    train = replace(recipe.train, iterations=1, steps=2, last_steps=0, batch=2, cache=3, refresh=2)
    bridge = replace(recipe.bridge, steps=3)
    small = replace(recipe, train=train, bridge=bridge, validation=Validation(samples=8, projections=4))
    if folders:
        small = replace(small, start=replace(recipe.start, size=16), end=replace(recipe.end, size=16))
    fitted = Fitter(small, Ends(small, folders), tmp_path, CPU)
    with Progress(0, 1, 10**9, quiet=True) as progress:
        for direction in ("backward", "forward"):
            assert fitted.run_half(progress) is not None
            assert measured(fitted, direction)["sliced_wasserstein"] > 0
            fitted.next_half()
    assert fitted.ended


def test_what_was_trained_is_kept_where_measuring_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "recipe.toml").write_text(RECIPE)
    monkeypatch.setattr("i2sb_train.dsb.run.measured", lambda *_: 1 / 0)
    assert train(tmp_path) == 1
    monkeypatch.undo()
    (tmp_path / "out" / "measures.jsonl").write_text('{"half": 1, "dir')  # killed while it wrote
    assert train(tmp_path, "--resume") == 0
    measures = (tmp_path / "out" / "measures.jsonl").read_text().splitlines()
    assert [json.loads(line)["half"] for line in measures] == [1, 2, 3, 4]


def test_data_that_no_end_takes_is_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "recipe.toml").write_text(RECIPE)
    assert train(tmp_path, "--data", str(tmp_path)) == 2
    assert "the recipe has no end of images left for it" in capfd.readouterr().err
    assert train(tmp_path, "--threads", "0") == 2
