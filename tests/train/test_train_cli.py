"""`i2sb-rt train i2sb`: from a recipe to a model file, over a stop, a resumption and a finish."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from i2sb_rt import Schedule
from i2sb_rt.cli import main
from i2sb_rt.model_file import load_weights, read_info
from i2sb_rt.networks.loading import load_network
from i2sb_train.procedural import dead_leaves
from i2sb_train.recipe_file import load_recipe
from i2sb_train.run import finishing

RECIPES = Path(__file__).parents[2] / "train" / "recipes"


def train(recipe: Path, out: Path, *options: str) -> int:
    return main(["train", "i2sb", str(recipe), "--out", str(out), "--threads", "1", *options])


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """The tiny recipe, shorter, on a folder of photos beside it, with validation."""
    text = (RECIPES / "tiny.toml").read_text()
    text = text.replace("steps = 60", "steps = 4").replace("decay = 20", "decay = 1").replace("= 20\n", "= 2\n")
    text = text.replace("procedural = 1", 'procedural = 0.5\nfolders = ["photos"]\nholdout = ["p0"]')
    (tmp_path / "recipe.toml").write_text(text + "\n[validation]\nevery = 2\ncrop = 16\n")
    (tmp_path / "photos").mkdir()
    for i in range(3):
        Image.fromarray(dead_leaves(64, np.random.default_rng(i))).save(tmp_path / "photos" / f"p{i}.png")
    return tmp_path / "recipe.toml"


def test_a_run_ends_with_a_model_file(recipe: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert train(recipe, tmp_path / "out") == 0
    told = capfd.readouterr().out
    assert "2 pictures" in told
    assert "step 4 of 4: loss" in told
    assert "held out, QF 10:" in told
    model = tmp_path / "out" / "tiny.safetensors"
    info = read_info(model)
    assert (info.name, info.interval, info.multiple, info.dtype) == ("tiny", 1000, 4, "fp32")
    assert load_weights(model)["out.2.weight"].shape == (12, 16, 3, 3)


def test_legs_and_finish(recipe: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert train(recipe, out, "--steps", "2") == 0
    assert train(recipe, out) == 2
    assert "already holds checkpoints; give --resume" in capfd.readouterr().err
    assert train(recipe, out, "--resume", "--steps", "3") == 0
    assert train(recipe, out, "--finish", "2") == 0
    finished = out / "finish-00000003"
    assert (finished / "step-00000005.safetensors").is_file()
    assert (finished / "tiny.safetensors").is_file()
    assert not (out / "step-00000005.safetensors").exists()
    assert train(recipe, out, "--resume", "--steps", "4") == 0
    assert train(recipe, out, "--finish", "0") == 0
    ema = load_weights(out / "finish-00000004" / "tiny.safetensors")
    assert all(np.array_equal(ema[n], w) for n, w in load_weights(out / "tiny.safetensors").items())


def test_a_run_can_start_from_a_model_file(recipe: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    assert train(recipe, first, "--steps", "2") == 0
    still = recipe.with_name("still.toml")
    still.write_text(recipe.read_text().replace("warmup = 5", "warmup = 1000000"))
    assert train(still, second, "--steps", "1", "--init", str(first / "tiny.safetensors")) == 0
    before, after = (load_weights(folder / "tiny.safetensors") for folder in (first, second))
    assert all(np.abs(after[name] - weight).max() < 1e-6 for name, weight in before.items())
    cond = recipe.with_name("cond.toml")
    cond.write_text(
        still.read_text().replace("in_channels = 3", "in_channels = 6").replace("[bridge]", "[bridge]\ncond_x1 = true")
    )
    assert train(cond, tmp_path / "cond", "--steps", "1", "--init", str(first / "tiny.safetensors")) == 0
    stem = load_weights(tmp_path / "cond" / "tiny.safetensors")["input_blocks.0.0.weight"]
    assert np.abs(stem[:, :12] - before["input_blocks.0.0.weight"]).max() < 1e-6
    assert np.abs(stem[:, 12:]).max() < 1e-6
    other = recipe.with_name("other.toml")
    other.write_text(recipe.read_text().replace("model_channels = 16", "model_channels = 32"))
    assert train(other, tmp_path / "third", "--init", str(first / "tiny.safetensors")) == 2
    assert "holds another network than the recipe's" in capfd.readouterr().err
    assert train(other, tmp_path / "third", "--init", "jpeg") == 2
    assert "jpeg: holds another network" in capfd.readouterr().err
    other.write_text(recipe.read_text().replace("[bridge]", '[bridge]\nprediction = "mean"'))
    assert train(other, tmp_path / "third", "--init", str(first / "tiny.safetensors")) == 2
    assert "predicts the noise, the recipe's network the mean" in capfd.readouterr().err


def test_another_schedule_starts_with_the_same_restoration_in_one_call(recipe: Path, tmp_path: Path) -> None:
    still = recipe.with_name("still.toml")
    slow = recipe.read_text().replace("warmup = 5", "warmup = 1000000000")
    still.write_text(slow.replace("[bridge]", "[bridge]\nbeta_max = 0.05"))
    assert train(recipe, tmp_path / "first", "--steps", "3") == 0
    first = tmp_path / "first" / "tiny.safetensors"
    assert train(still, tmp_path / "second", "--steps", "1", "--init", str(first)) == 0
    second = tmp_path / "second" / "tiny.safetensors"
    assert (read_info(first).beta_max, read_info(second).beta_max) == (0.3, 0.05)
    x1 = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():  # std_fwd out is what one call takes away from x1
        taken = [
            Schedule(beta_max=read_info(path).beta_max).std_fwd[-1] * load_network(path)(x1, torch.tensor([1000.0]))
            for path in (first, second)
        ]
    assert taken[0].abs().max() > 1e-3
    torch.testing.assert_close(taken[1], taken[0], atol=1e-6, rtol=0)


def test_a_finish_lets_the_rate_fall_and_the_mean_follow() -> None:
    recipe = load_recipe(RECIPES / "jpeg.toml")
    train = finishing(recipe, 1000, 400).train
    assert (train.steps, train.decay, train.ema) == (1400, 400, 0.99)
    assert finishing(recipe, 1000, 0).train.ema == recipe.train.ema
    assert finishing(recipe, 1000, 2).train.ema == recipe.train.ema


def test_mistakes_are_sentences(recipe: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    cases: list[tuple[str, Path, list[str]]] = [
        ("there is no checkpoint to finish", recipe, ["--finish", "5"]),
        ("--steps must be above 0", recipe, ["--steps", "0"]),
        ("does not exist; name another with --data", recipe, ["--data", str(tmp_path / "none")]),
        ("cannot be read", tmp_path / "none.toml", []),
    ]
    for message, path, options in cases:
        assert train(path, tmp_path / "out", *options) == 2
        told = capfd.readouterr().err
        assert message in told
        assert told.count("\n") == 1


def test_the_photos_can_lie_elsewhere(recipe: Path, tmp_path: Path) -> None:
    (tmp_path / "photos").rename(tmp_path / "elsewhere")
    assert train(recipe, tmp_path / "out", "--data", str(tmp_path / "elsewhere"), "--steps", "1") == 0


def test_an_older_checkpoint_is_gone_on_from_and_later_ones_are_set_aside(recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    often = recipe.with_name("often.toml")
    often.write_text(recipe.read_text().replace("[train]", "[train]\nsave_minutes = 0\nkeep = 2"))
    assert train(often, out) == 0
    older = out / "step-00000003.safetensors"
    assert train(often, out, "--resume", str(older), "--steps", "5") == 0
    assert sorted(path.name for path in out.glob("step-*")) == [
        "step-00000004.safetensors",
        "step-00000004.safetensors.abandoned",
        "step-00000005.safetensors",
    ]


def test_checkpoints_of_another_run_are_not_mixed_with_those_that_are_there(
    recipe: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    assert train(recipe, first, "--steps", "1") == 0
    assert train(recipe, second, "--steps", "2") == 0
    assert train(recipe, second, "--steps", "3", "--ckpt", str(first)) == 2
    assert "already holds checkpoints" in capfd.readouterr().err
    assert train(recipe, tmp_path / "third", "--steps", "2", "--ckpt", str(first)) == 0
    assert train(recipe, first, "--steps", "2", "--ckpt", str(first)) == 0
    assert train(recipe, tmp_path / "fourth", "--ckpt", str(tmp_path / "photos")) == 2
    assert "holds no checkpoints" in capfd.readouterr().err


def test_a_picture_that_cannot_be_read_is_told_in_one_line_and_nothing_is_lost(
    recipe: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    broken = recipe.with_name("broken.toml")
    text = (
        recipe.read_text()
        .replace("procedural = 0.5", "procedural = 0.0\nmemory = 0")
        .replace("workers = 0", "workers = 1")
    )
    broken.write_text(text)
    out = tmp_path / "out"
    assert train(broken, out, "--steps", "1") == 0
    for name in ("p1.png", "p2.png"):
        (tmp_path / "photos" / name).write_bytes(b"no picture")
    assert train(broken, out, "--resume", "--steps", "4") == 2
    told = capfd.readouterr().err
    assert told.count("\n") == 1
    assert "cannot be read as a picture" in told
    assert (out / "step-00000001.safetensors").is_file()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--device", "cuda"], "there is no GPU number 0"),
        (["--device", "cuda", "--gpu", "3"], "there is no GPU number 3"),
        (["--device", "cpu", "--gpu", "0"], "--gpu is for a run of one process on a GPU"),
    ],
)
def test_a_gpu_that_is_not_there_is_said(
    recipe: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], options: list[str], words: str
) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    assert train(recipe, tmp_path / "out", *options) == 2
    assert words in capfd.readouterr().err


def test_a_recipe_without_a_table_is_refused_by_its_name(
    recipe: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    bare = recipe.with_name("bare.toml")
    bare.write_text('[model]\nname = "a"\n')
    for options in ([], ["--cond-x1", "--ot-ode", "--use-fp16", "--image-size", "32", "--corrupt", "jpeg-10"]):
        assert train(bare, tmp_path / "out", *options) == 2
        assert "missing key" in capfd.readouterr().err


def test_resume_before_the_recipe_does_not_swallow_it(recipe: Path, tmp_path: Path) -> None:
    out = ["--out", str(tmp_path / "out"), "--steps", "1", "--threads", "1"]
    assert main(["train", "i2sb", *out, "--resume", str(recipe)]) == 0
    assert (tmp_path / "out" / "tiny.safetensors").is_file()


def test_sigterm_to_all_processes_of_a_run_leaves_a_checkpoint(recipe: Path, tmp_path: Path) -> None:
    """As a batch system or torchrun sends it: to the workers that load data too."""
    text = recipe.read_text().replace("steps = 4", "steps = 100000").replace("workers = 0", "workers = 1")
    recipe.write_text(text.replace("\nevery = 2", "\nevery = 0"))
    out = tmp_path / "out"
    command = [sys.executable, "-m", "i2sb_rt.cli", "train", "i2sb", str(recipe), "--out", str(out), "--threads", "1"]
    run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    assert run.stdout is not None
    for line in run.stdout:
        if ": loss" in line:
            break
    os.killpg(run.pid, signal.SIGTERM)
    told, errors = run.communicate(timeout=60)
    assert (run.returncode, errors) == (130, "")
    assert "stopped after step" in told
    assert len(list(out.glob("step-*.safetensors"))) == 1
