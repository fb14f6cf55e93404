"""The script that measures a GPU runs, checks and prints its table; its times mean nothing here."""

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "gpu.py"


def test_smoke() -> None:
    done = subprocess.run([sys.executable, SCRIPT, "--smoke"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    table = [line for line in done.stdout.splitlines() if line.startswith("|")]
    assert {len(line.split("|")) for line in table} == {len(table[0].split("|"))}
    for what in (
        "kernels are their references",
        "copy bandwidth",
        "bridge_step",
        "group_norm_silu",
        "network",
        "steps of",
    ):
        assert any(what in line for line in table), f"no line about {what}"
