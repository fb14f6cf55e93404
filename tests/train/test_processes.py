"""Two processes train as one does: the same batch, shared."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import shared_batch
import torch

from i2sb_rt.errors import UsageError
from i2sb_rt.model_file import load_weights
from i2sb_train.loop import Pictures, Trainer
from i2sb_train.processes import Processes

HERE = Path(__file__).parent
RECIPES = HERE.parents[1] / "train" / "recipes"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """What one process wrote, and what two did."""
    folders = []
    for launcher in ([], ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]):
        out = tmp_path_factory.mktemp("run")
        command = [sys.executable, *launcher, str(HERE / "shared_batch.py"), str(out)]
        run = subprocess.run(
            command, capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"}
        )
        assert run.returncode == 0, run.stderr
        folders.append(out)
    return folders[0], folders[1]


@pytest.mark.parametrize("case", shared_batch.CASES)
def test_two_processes_are_as_one(runs: tuple[Path, Path], case: str) -> None:
    one, two = (torch.load(folder / f"{case}.pt") for folder in runs)
    assert len(one["losses"]) == shared_batch.STEPS
    assert len(set(one["losses"])) == shared_batch.STEPS
    if case.startswith("fp64"):
        assert one["losses"] == pytest.approx(two["losses"], rel=1e-9)
        for name, tensor in one["ema"].items():
            assert tensor.dtype == torch.float64
            torch.testing.assert_close(two["ema"][name], tensor, rtol=0, atol=1e-9)
    else:
        assert one["losses"] == pytest.approx(two["losses"], rel=1e-4)


def test_a_run_goes_on_with_another_number_of_processes(tmp_path: Path) -> None:
    text = (RECIPES / "tiny.toml").read_text().replace('"fp32"', '"fp64"').replace("decay = 20", "decay = 0")
    recipe = tmp_path / "tiny.toml"
    recipe.write_text(text)
    two = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "i2sb_rt.cli"]
    one = [sys.executable, "-m", "i2sb_rt.cli"]
    for out, legs in (("whole", [(one, 6)]), ("parts", [(two, 2), (one, 4), (two, 6)])):
        for launcher, steps in legs:
            options = ["--steps", str(steps), "--resume", "auto", "--out", str(tmp_path / out), "--device", "cpu"]
            command = [*launcher, "train", "i2sb", str(recipe), *options, "--threads", "1"]
            run = subprocess.run(command, capture_output=True, text=True, check=False)
            assert run.returncode == 0, run.stderr
            assert run.stdout.count(f"step {steps} of {steps}") == 1  # the first process alone speaks
            assert ("2 processes" in run.stdout) == (launcher is two)
    whole, parts = (load_weights(tmp_path / out / "tiny.safetensors") for out in ("whole", "parts"))
    for name, weight in whole.items():
        np.testing.assert_allclose(parts[name], weight, rtol=0, atol=1e-7)


def test_a_signal_to_one_process_stops_them_all_with_one_checkpoint(tmp_path: Path) -> None:
    text = (RECIPES / "tiny.toml").read_text().replace("steps = 60", "steps = 100000").replace("= 20\n", "= 2\n")
    recipe = tmp_path / "tiny.toml"
    recipe.write_text(text)
    out = tmp_path / "out"
    command = [sys.executable, "-m", "i2sb_rt.cli", "train", "i2sb", str(recipe), "--out", str(out), "--threads", "1"]
    command += ["--device", "cpu", "--n-gpu-per-node", "2"]
    run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    assert run.stdout is not None
    for line in run.stdout:
        if ": loss" in line:
            break
    run.terminate()  # the launcher, which passes it on
    told, errors = run.communicate(timeout=120)
    assert run.returncode == 130, errors
    assert told.count("stopped after step") == 1
    assert len(list(out.glob("step-*.safetensors"))) == 1


def test_a_failure_of_the_leading_process_ends_the_others(tmp_path: Path) -> None:
    two = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "i2sb_rt.cli"]
    options = ["--out", str(tmp_path / "out"), "--device", "cpu", "--threads", "1", "--finish", "3"]
    run = subprocess.run(
        [*two, "train", "i2sb", str(RECIPES / "tiny.toml"), *options], capture_output=True, text=True, check=False
    )
    assert run.returncode == 1
    assert "there is no checkpoint to finish" in run.stderr
    assert "internal error" not in run.stderr


def test_a_batch_that_cannot_be_shared_alike_is_refused(make_recipe: object, tmp_path: Path) -> None:
    assert callable(make_recipe)
    with pytest.raises(UsageError, match=r"train\.batch 4 cannot be shared by 3 processes"):
        Trainer(make_recipe(), Pictures([], []), tmp_path, Processes(1, 3, torch.device("cpu")))
