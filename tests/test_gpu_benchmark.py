"""The script that measures a GPU runs, checks and prints its tables; its times mean nothing here."""

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "gpu.py"


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), "--smoke", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_smoke(tmp_path: Path) -> None:
    done = run("--out", tmp_path / "gpu.json")
    assert done.returncode == 0, done.stderr
    for table in done.stdout.split("\n\n")[1:]:
        assert len({len(line.split("|")) for line in table.strip().splitlines()}) == 1
    written = json.loads((tmp_path / "gpu.json").read_text())
    lines = written["lines"]
    assert next(line for line in lines if line["what"] == "kernels are their references")["failed"] == 0
    assert not any("failed" in line["what"] for line in lines)
    for asked in written["asked"]:  # sizes differ here, but what is asked for is told
        assert any(asked["what"].split(": ")[1] in line for line in lines), asked


def test_a_phase_that_fails_stops_no_other(tmp_path: Path) -> None:
    broken = tmp_path / "broken.py"
    broken.write_text(
        "import runpy, sys, torch\n"
        "import i2sb_rt.networks.fused as fused\n"
        "def fail(*_): raise RuntimeError('no memory\\nleft')\n"
        "fused.FusedUNet.set_times = fail\n"
        f"sys.path.insert(0, {str(SCRIPT.parent)!r})\n"
        f"runpy.run_path({str(SCRIPT)!r}, run_name='__main__')\n"
    )
    out = tmp_path / "gpu.json"
    command = [sys.executable, str(broken), "--smoke", "--only", "network", "norm", "restore", "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    lines = {line["what"]: line for line in json.loads(out.read_text())["lines"]}
    assert lines["measure_network failed"]["error"] == "RuntimeError: no memory left"
    assert "measure_restore failed" in lines
    assert any(what.startswith("group_norm_silu") for what in lines)


def test_what_is_counted_is_what_the_page_tells() -> None:
    counts, page = SCRIPT.with_name("counts.py"), SCRIPT.with_name("README.md").read_text()
    done = subprocess.run([sys.executable, str(counts)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout in page
