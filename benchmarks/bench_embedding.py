"""A restore from C beside the bare OpenVINO calls that it makes, in one process, turn about."""

import os
import statistics
import subprocess
from pathlib import Path
from typing import Any

import openvino
import pytest

from i2sb_rt import _core

SOURCE = Path(__file__).with_name("embedding.c")
SDK = Path(_core.__file__).parent / "sdk"
PAIRS = 24


@pytest.fixture(scope="module")
def openvino_c() -> Path:
    """The library of OpenVINO's C API."""
    return sorted(Path(openvino.__file__).parent.glob("libs/libopenvino_c.so*"))[-1]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory, openvino_c: Path) -> Path:
    """The C program, built against the headers that the two packages hold."""
    path = tmp_path_factory.mktemp("embedding") / "embedding"
    headers = [f"-I{SDK / 'include'}", f"-I{openvino_c.parents[1] / 'include'}"]
    linked = [f"-L{SDK / 'lib'}", "-li2sb_rt", str(openvino_c), f"-Wl,-rpath,{SDK / 'lib'}:{openvino_c.parent}"]
    subprocess.run(["cc", "-std=gnu11", "-O2", *headers, str(SOURCE), "-o", str(path), *linked], check=True)
    return path


@pytest.mark.parametrize(("width", "height"), [(512, 512), (768, 512)])
def test_embedding(benchmark: Any, model_path: Path, program: Path, openvino_c: Path, width: int, height: int) -> None:
    command = [str(program), str(model_path), str(width), str(height), str(PAIRS)]
    environment = os.environ | {"I2SB_RT_OPENVINO": str(openvino_c)}

    def run() -> list[tuple[float, ...]]:
        done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
        return [tuple(map(float, line.split())) for line in done.stdout.splitlines()]

    pairs = benchmark.pedantic(run, rounds=1)
    restores, bare = ([pair[k] for pair in pairs] for k in (0, 1))
    benchmark.extra_info |= {
        "restore [ms]": statistics.median(restores),
        "bare OpenVINO [ms]": statistics.median(bare),
        "over bare OpenVINO": round(statistics.median(a / b - 1 for a, b in pairs), 4),  # of the pairs
    }
