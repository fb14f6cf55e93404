"""The options of NVlabs/I2SB's train.py: its command lines make the recipe they stand for, and train."""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from i2sb_rt.cli import main
from i2sb_rt.model_file import load_weights, read_info
from i2sb_rt.networks import UNet
from i2sb_rt.networks.presets import PRESETS
from i2sb_train import cli, nvlabs
from i2sb_train.procedural import dead_leaves
from i2sb_train.recipe import Recipe, RecipeError

# As in its scripts/train.sh, for JPEG restoration and for inpainting on two machines of eight GPUs.
JPEG = (
    "--name jpeg --n-gpu-per-node 8 --corrupt jpeg-10 --dataset-dir D --batch-size 256 --microbatch 2 --beta-max 0.3 "
    "--log-dir L"
)
INPAINT = (
    "--name hole --n-gpu-per-node 8 --num-proc-node 2 --node-rank 1 --master-address A --corrupt inpaint-center "
    "--dataset-dir D --batch-size 256 --microbatch 2 --beta-max 1.0 --ot-ode --log-writer tensorboard"
)

LINE = "train i2sb --dataset-dir D --image-size 32 --batch-size 2 --threads 1 --device cpu"


def parsed(line: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser("i2sb-rt")
    cli.add_parser(parser.add_subparsers())
    return parser.parse_args(["train", "i2sb", *line.split()])


def recipe_of(line: str) -> Recipe:
    return cli.recipe(parsed(line))


def test_the_published_lines_make_the_published_recipes() -> None:
    jpeg, hole = recipe_of(JPEG), recipe_of(INPAINT)
    for recipe in (jpeg, hole):
        assert recipe.network == PRESETS["adm256"]
        train = recipe.train
        assert (train.batch, train.micro, train.steps, train.lr) == (256, 2, 1_000_000, 5e-5)
        assert (train.lr_gamma, train.lr_step, train.ema, train.weight_decay) == (0.99, 1000, 0.99, 0.0)
        assert (recipe.bridge.interval, recipe.bridge.t0, recipe.bridge.T) == (1000, 1e-4, 1.0)
        assert (recipe.data.crop, recipe.data.fit, recipe.data.turns, recipe.data.folders) == (256, True, False, ["D"])
    assert (jpeg.degradation.operators, jpeg.bridge.beta_max, jpeg.bridge.ot_ode) == (["jpeg-10"], 0.3, False)
    assert (hole.degradation.operators, hole.bridge.beta_max, hole.bridge.ot_ode) == (["inpaint-center"], 1.0, True)
    assert (hole.model.name, hole.model.task, hole.model.sampler) == ("hole", "inpaint-center", "ode")


def test_every_option_is_followed() -> None:
    line = "--seed 3 --t0 1e-3 --T 2 --interval 50 --clip-denoise --cond-x1 --add-x1-noise --image-size 64 --num-itr 7 "
    line += "--lr 1 --lr-gamma 0.5 --lr-step 2 --l2-norm 0.1 --ema 0.5 --use-fp16"
    recipe = recipe_of(f"--corrupt mixture:jpeg-5,blur-uni --dataset-dir D {line}")
    assert (recipe.train.seed, recipe.train.steps, recipe.train.precision) == (3, 7, "fp16")
    assert (recipe.bridge.t0, recipe.bridge.T, recipe.bridge.interval) == (1e-3, 2.0, 50)
    assert (recipe.bridge.cond_x1, recipe.bridge.add_x1_noise, recipe.network["in_channels"]) == (True, True, 6)
    assert (recipe.data.crop, recipe.network["image_size"], recipe.model.clip) == (64, 64, True)
    assert (recipe.train.lr, recipe.train.lr_gamma, recipe.train.lr_step) == (1.0, 0.5, 2)
    assert (recipe.train.weight_decay, recipe.train.ema) == (0.1, 0.5)
    assert (recipe.degradation.operators, recipe.model.task) == (["mixture:jpeg-5,blur-uni"], "mixture-jpeg-5-blur-uni")


def test_options_change_single_keys_of_a_recipe() -> None:
    path = Path(__file__).parents[2] / "train" / "recipes" / "jpeg.toml"
    before = cli.recipe(parsed(str(path)))
    after = cli.recipe(parsed(f"{path} --batch-size 2 --lr 1e-5"))
    assert (after.train.batch, after.train.lr) == (2, 1e-5)
    assert (after.degradation, after.network, after.bridge) == (before.degradation, before.network, before.bridge)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "give a RECIPE.toml, or --corrupt"),
        ("--corrupt jpeg-10 --wandb-api-key secret", "set WANDB_API_KEY"),
        ("--corrupt jpeg-101 --dataset-dir D", r"the options: degradation\.operators must be names among"),
        ("--corrupt blur-uni --dataset-dir D --ot-ode --cond-x1", r"bridge\.cond_x1 must be false with bridge\.ot_ode"),
        ("--corrupt jpeg-10", r"data\.folders must be a list of folders"),
        ("--corrupt jpeg-10 --dataset-dir D --image-size 100", r"data\.crop must be a multiple of 32"),
    ],
)
def test_what_cannot_be_followed_is_said(line: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        recipe_of(line)
    assert "secret" not in str(caught.value)
    assert isinstance(caught.value, RecipeError) or "--" in str(caught.value)


def test_processes_are_started_as_torchrun_would(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch.distributed import run as torchrun

    started: list[list[str]] = []
    monkeypatch.setattr(torchrun, "main", started.append)
    monkeypatch.setattr("sys.argv", ["i2sb-rt", "train", "i2sb", *INPAINT.split()])
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    assert nvlabs.launch(parsed(INPAINT)) == 0
    own = ["--nproc-per-node=8", "--nnodes=2", "--node-rank=1", "--master-addr=A", "--master-port=6020"]
    assert started == [[*own, "-m", "i2sb_rt.cli", "train", "i2sb", *INPAINT.split()]]
    assert nvlabs.launch(parsed("--corrupt jpeg-10")) is None
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert nvlabs.launch(parsed(INPAINT)) is None
    assert len(started) == 1


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Any]:
    """A network of 32 pixels in place of ADM's, photos in a folder, and that folder's parent to work in."""
    config = {
        **PRESETS["adm256"],
        "image_size": 32,
        "model_channels": 32,
        "channel_mult": [1, 1],
        "attention_resolutions": [2],
    }
    config["num_head_channels"] = 32
    monkeypatch.setitem(PRESETS, "adm256", config)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "D").mkdir()
    for i in range(2):
        Image.fromarray(dead_leaves(64, np.random.default_rng(i))).save(tmp_path / "D" / f"{i}.png")
    return config


@pytest.mark.parametrize(
    ("task", "more"),
    [("jpeg-10", "--cond-x1"), ("inpaint-center", "--ot-ode --beta-max 1.0"), ("blur-gauss", "--add-x1-noise")],
)
def test_a_line_trains_a_model_from_adm_s_weights(tiny: dict[str, Any], task: str, more: str) -> None:
    torch.manual_seed(0)
    network = UNet(**{**tiny, "out_channels": 6})  # as ADM, which predicts a variance too
    torch.save(network.state_dict(), "adm.pt")
    line = f"{LINE} --corrupt {task} --microbatch 1 --num-itr 1 --lr 1e-9 --init adm.pt {more}"
    assert main(line.split()) == 0
    path = Path("runs") / task / f"{task}.safetensors"
    info, weights = read_info(path), load_weights(path)
    assert (info.task, info.cond_x1, info.ot_ode, info.add_x1_noise) == (
        task, "cond" in more, "ode" in more, "noise" in more,
    )  # fmt: skip
    before = network.state_dict()
    np.testing.assert_allclose(weights["out.2.weight"], before["out.2.weight"][:3], atol=1e-6)
    np.testing.assert_allclose(weights["input_blocks.0.0.weight"][:, :3], before["input_blocks.0.0.weight"], atol=1e-6)
    assert np.abs(weights["input_blocks.0.0.weight"][:, 3:]).max(initial=0) < 1e-6


def test_ckpt_goes_on_from_a_run_of_that_name(tiny: dict[str, Any], capfd: pytest.CaptureFixture[str]) -> None:
    line = f"{LINE} --name a --corrupt jpeg-10"
    assert main([*line.split(), "--num-itr", "1"]) == 0
    assert main([*line.split(), "--num-itr", "2", "--ckpt", "a"]) == 0
    assert Path("runs/a/step-00000002.safetensors").is_file()
    assert main([*line.split(), "--num-itr", "2", "--ckpt", "none"]) == 2
    assert "there is neither none, runs/none nor results/none" in capfd.readouterr().err
