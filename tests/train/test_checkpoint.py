"""Checkpoints: whole or absent, exact, and refused with a sentence where they do not fit."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from i2sb_train import checkpoint
from i2sb_train.checkpoint import CheckpointError, State, load_state, save_state
from i2sb_train.loop import Pictures, Trainer, new_state
from i2sb_train.recipe import Recipe
from i2sb_train.run import begin

MakeRecipe = Callable[..., Recipe]
CPU = torch.device("cpu")
KILLED_RUN = Path(__file__).parent / "killed_run.py"


def stepped(recipe: Recipe) -> State:
    """A state after one optimiser step on any gradient."""
    state = new_state(recipe, CPU)
    generator = torch.Generator().manual_seed(0)
    for parameter in state.network.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)
    state.optimizer.step()
    state.optimizer.zero_grad()
    state.ema = {name: tensor + 1 for name, tensor in state.ema.items()}
    state.step = 1
    return state


def test_a_state_comes_back_bit_for_bit(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    recipe = make_recipe()
    before, after = stepped(recipe), new_state(make_recipe(), CPU)
    save_state(tmp_path / "c.safetensors", before, recipe)
    load_state(tmp_path / "c.safetensors", after, recipe)
    assert after.step == 1
    ours = dict(after.network.named_parameters())
    for name, parameter in before.network.named_parameters():
        assert torch.equal(ours[name], parameter)
        assert torch.equal(after.ema[name], before.ema[name])
        for key, value in before.optimizer.state[parameter].items():
            assert torch.equal(after.optimizer.state[ours[name]][key], value), key


def test_a_failed_write_leaves_the_old_file_alone(
    make_recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = make_recipe()
    state, path = stepped(recipe), tmp_path / "c.safetensors"
    save_state(path, state, recipe)
    before = path.read_bytes()

    def fail(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(Path, "replace", fail)
    state.step = 2
    with pytest.raises(OSError, match="no space"):
        save_state(path, state, recipe)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["c.safetensors"]


def test_the_last_checkpoints_are_kept(tmp_path: Path) -> None:
    for step in (5, 100, 20, 3):
        checkpoint.checkpoint_path(tmp_path, step).touch()
    (tmp_path / "step-final.safetensors").touch()
    (tmp_path / ".another.part").touch()  # somebody else's
    (tmp_path / ".step-0123456789abcdef.part").touch()  # what a write leaves that was killed
    checkpoint.prune(tmp_path, 2)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        ".another.part",
        "step-00000020.safetensors",
        "step-00000100.safetensors",
        "step-final.safetensors",
    ]
    assert checkpoint.checkpoints(tmp_path)[-1] == checkpoint.checkpoint_path(tmp_path, 100)
    assert checkpoint.checkpoints(tmp_path / "none") == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"network": {"model_channels": 32}}, r"another \[network\].*'model_channels': 16"),
        ({"bridge": {"beta_max": 1.0}}, r"another \[bridge\].*'beta_max': 0.3"),
        ({"bridge": {"prediction": "mean"}}, r"another \[bridge\].*'prediction': 'noise'"),
    ],
)
def test_another_network_or_bridge_is_refused(
    make_recipe: MakeRecipe, tmp_path: Path, change: dict[str, dict[str, object]], message: str
) -> None:
    recipe, other = make_recipe(), make_recipe(**change)
    save_state(tmp_path / "c.safetensors", stepped(recipe), recipe)
    with pytest.raises(CheckpointError, match=message):
        load_state(tmp_path / "c.safetensors", new_state(other, CPU), other)


def test_damaged_files_are_refused(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    recipe, path = make_recipe(), tmp_path / "c.safetensors"
    state = stepped(recipe)
    save_state(path, state, recipe)
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    with pytest.raises(CheckpointError, match="not a readable checkpoint"):
        load_state(path, state, recipe)
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(CheckpointError, match="not a training checkpoint"):
        load_state(path, state, recipe)
    with pytest.raises(CheckpointError, match="not a readable checkpoint"):
        load_state(tmp_path / "none.safetensors", state, recipe)


def test_a_missing_or_surplus_tensor_is_named(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    recipe, path = make_recipe(), tmp_path / "c.safetensors"
    state = stepped(recipe)
    state.network.register_parameter("surplus", torch.nn.Parameter(torch.zeros(2)))
    state.ema["surplus"] = torch.zeros(2)
    save_state(path, state, recipe)
    with pytest.raises(CheckpointError, match=r"surplus.*lacks"):
        load_state(path, new_state(recipe, CPU), recipe)
    save_state(path, stepped(recipe), recipe)
    with pytest.raises(CheckpointError, match="model/surplus is missing"):
        load_state(path, state, recipe)


@pytest.mark.parametrize("kills", [4, pytest.param(20, marks=pytest.mark.slow)])
def test_a_run_that_is_killed_ends_as_if_it_had_not_been(tmp_path: Path, kills: int) -> None:
    steps, tensors, metadata = 8 * kills, [], []
    for name, times in (("killed", kills), ("undisturbed", 0)):
        (tmp_path / name).mkdir()
        command = [sys.executable, str(KILLED_RUN), str(tmp_path / name), str(times), str(steps)]
        run = subprocess.run(command, capture_output=True, text=True, check=False)
        assert run.returncode == 0, run.stderr
        assert int(run.stdout) >= times // 2
        assert not list((tmp_path / name).glob(checkpoint.UNFINISHED))
        with safe_open(checkpoint.checkpoint_path(tmp_path / name, steps), "pt") as file:
            tensors.append({key: file.get_tensor(key) for key in file.keys()})  # noqa: SIM118 (not a dict)
            metadata.append(file.metadata())
    assert metadata[0] == metadata[1]
    assert tensors[0].keys() == tensors[1].keys()
    assert all(torch.equal(tensor, tensors[1][key]) for key, tensor in tensors[0].items())


def test_the_last_readable_checkpoint_is_gone_on_from(
    make_recipe: MakeRecipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = make_recipe()
    state = stepped(recipe)
    paths = [checkpoint.checkpoint_path(tmp_path, step) for step in (1, 2)]
    save_state(paths[0], state, recipe)
    paths[1].write_bytes(paths[0].read_bytes()[:-9])
    run = Trainer(recipe, Pictures([], []), tmp_path)
    begin(run, paths, None)
    assert run.state.step == 1
    told = capsys.readouterr().out
    assert str(paths[1]) in told
    assert "the one before" in told
    with pytest.raises(CheckpointError, match="not a readable checkpoint"):
        begin(run, paths[1:], None)
    save_state(paths[1], state, make_recipe(bridge={"beta_max": 1.0}))
    with pytest.raises(CheckpointError, match=r"another \[bridge\]"):
        begin(run, paths, None)
