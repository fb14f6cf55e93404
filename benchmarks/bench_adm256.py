"""One network call of I2SB's 256 x 256 network, 552.8 million parameters, beside eager PyTorch in fp32.

The weights are random: what was learned changes neither time nor memory. Export and inference run in processes of
their own (apart.py), so that their peak memory is theirs alone. It takes minutes, 11 GiB of memory, 4 GiB of disk.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import torch

from i2sb_rt.model_file import ModelInfo, save_safetensors
from i2sb_rt.networks import UNet
from i2sb_rt.networks.loading import load_network
from i2sb_rt.networks.presets import PRESETS

CONFIG: dict[str, Any] = PRESETS["adm256"]
PARAMETERS = 552_807_171
INFO: dict[str, Any] = {
    "name": "adm256",
    "task": "benchmark",
    "interval": 1000,
    "beta_max": 0.3,
    "t0": 1e-4,
    "T": 1.0,
    "multiple": 32,
    "minimum": 256,
    "tile": 256,
    "overlap": 0,
    "nfe": 10,
    "trained_on": "nothing",
    "license": "Apache-2.0",
}
TIME = 500.0
MEMORY = 14 * 2**30  # bytes
APART = [sys.executable, str(Path(__file__).with_name("apart.py"))]

Process = subprocess.Popen[str]


def save_model(path: Path) -> None:
    """Write the network with random weights, those that training starts at zero among them."""
    torch.manual_seed(0)
    network = UNet(**CONFIG)
    assert sum(parameter.numel() for parameter in network.parameters()) == PARAMETERS
    for parameter in network.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, 0, 0.02)
    weights = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    save_safetensors(path, weights, ModelInfo(**INFO, network=CONFIG))


def answer(process: Process, go: str = "") -> dict[str, Any]:
    """Let a process of apart.py go on, and wait for its next answer."""
    assert process.stdin
    assert process.stdout
    process.stdin.write(go)
    process.stdin.flush()
    line = process.stdout.readline()
    assert line, "the process ended without an answer"
    facts: dict[str, Any] = json.loads(line)
    return facts


def start(*arguments: object) -> Process:
    """Start apart.py; its network is stopped by closing its standard input, as leaving a `with` does."""
    return subprocess.Popen([*APART, *map(str, arguments)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A folder for all files, the cache of compiled networks among them: gigabytes, gone in the end."""
    with TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        patch.setenv("I2SB_RT_CACHE", name)
        yield Path(name)


@pytest.fixture(scope="module")
def exported(folder: Path) -> tuple[Path, dict[str, Any]]:
    """The exported model, and what its export took."""
    source, target = folder / "adm256.safetensors", folder / "adm256.onnx"
    save_model(source)
    with start("export", source, target) as process:
        took = answer(process)
    source.unlink()
    facts = {"export [s]": took["seconds"], "export peak memory [GiB]": took["peak"]}
    return target, {"parameters": PARAMETERS, "file [bytes]": target.stat().st_size, **facts}


@pytest.mark.skipif(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") < MEMORY, reason="too little memory")
@pytest.mark.parametrize("precision", ["fp32", "auto"])
def test_adm256(
    beside: Any, agree: Any, benchmark: Any, folder: Path, exported: tuple[Path, dict[str, Any]], precision: str
) -> None:
    model, facts = exported
    x, out = np.random.default_rng(0).uniform(-1, 1, (1, 3, 256, 256)).astype(np.float32), folder / "out.npy"
    np.save(folder / "x.npy", x)
    with start("run", model, precision, folder / "x.npy", TIME, out) as process:
        loaded = answer(process)
        if precision == "auto" and loaded["precision"] == "fp32":
            pytest.skip("auto is fp32 on this CPU, which is timed already")
        took = [answer(process, "\n")]
        network = load_network(model)

        def in_torch() -> Any:
            with torch.inference_mode():
                return network(torch.from_numpy(x), torch.tensor([TIME])).numpy()

        error = agree(np.load(out), in_torch(), loaded["precision"])
        beside(lambda: took.append(answer(process, "\n")), {"PyTorch fp32": in_torch}, budget=60.0)
    compiled = loaded["seconds"] + took[0]["seconds"] - benchmark.stats.stats.median
    threads = {"torch_threads": torch.get_num_threads()}
    benchmark.extra_info |= {**facts, "precision": loaded["precision"], "error": error, **threads}
    benchmark.extra_info |= {"load and compile [s]": compiled, "peak memory [GiB]": took[-1]["peak"]}
