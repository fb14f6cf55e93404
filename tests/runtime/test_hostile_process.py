"""The command as a process of its own among limits, full disks, closed streams and impatient users."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hostile_files import RGB, encoded
from PIL import Image

Run = subprocess.CompletedProcess[str]


@pytest.fixture(autouse=True)
def _inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def command(*arguments: str, before: str = "", **options: Any) -> Run:
    """Run the command line in a process of its own, after the Python statements `before`."""
    script = f"import sys; {before}\nfrom i2sb_rt.cli import main; sys.exit(main(sys.argv[1:]))"
    start = [sys.executable, "-c", script, *arguments]
    return subprocess.run(start, text=True, **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options})


def files() -> list[str]:
    return sorted(path.as_posix() for path in Path().rglob("*") if not path.is_dir())


@pytest.mark.parametrize("limit", [500, 5000])
def test_a_limit_on_the_size_of_files(toy_path: Path, limit: int) -> None:
    """The cache of compiled networks meets the limit too; an image that fits under it is restored all the same."""
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 90, 3), dtype=np.uint8)).save("large.png")
    Image.fromarray(RGB[:4, :4]).save("small.png")
    before = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))"
    environment = {**os.environ, "I2SB_RT_CACHE": "cache"}
    arguments = ("restore", "-n", str(toy_path), "large.png", "small.png", "-o", "out")
    run = command(*arguments, before=before, env=environment)
    assert run.returncode == 3, run.stderr
    assert "i2sb-rt: out/large.png cannot be written: File too large" in run.stderr
    assert "Traceback" not in run.stderr
    assert [path.name for path in Path("out").iterdir()] == ["small.png"]
    assert command(*arguments, env=environment).returncode == 0  # so what was cached, if anything, is whole


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
@pytest.mark.parametrize("buffered", [True, False])
@pytest.mark.parametrize("arguments", [["a.png", "-o", "-"], ["a.png", "-o", "x.png", "--json"], None])
def test_a_full_disk_behind_standard_output(toy_path: Path, buffered: bool, arguments: list[str] | None) -> None:
    Path("a.png").write_bytes(encoded(Image.fromarray(RGB), "PNG"))
    words = ["models"] if arguments is None else ["restore", "-n", str(toy_path), *arguments]
    environment = {**os.environ, "PYTHONUNBUFFERED": "" if buffered else "1"}
    with Path("/dev/full").open("w") as full:
        run = command(*words, stdout=full, env=environment)
    assert run.returncode == 4
    assert "standard output cannot be written: No space left on device" in run.stderr
    assert len(run.stderr.splitlines()) == 1


def test_closed_streams(toy_path: Path) -> None:
    Path("a.png").write_bytes(encoded(Image.fromarray(RGB), "PNG"))
    restore = [sys.executable, "-m", "i2sb_rt.cli", "restore", "-n", str(toy_path)]

    def shell(arguments: str) -> Run:
        return subprocess.run(["sh", "-c", f'exec "$@" {arguments}', "sh", *restore], capture_output=True, text=True)

    run = shell("a.png -o - >&-")
    assert (run.returncode, run.stdout) == (4, "")
    assert "standard output is closed" in run.stderr
    run = shell("- -o x.png <&-")
    assert run.returncode == 4
    assert "standard input is closed" in run.stderr
    run = shell("a.png missing.png -o out 2>&-")
    assert (run.returncode, run.stdout, run.stderr) == (3, "", "")
    assert files() == ["a.png", "out/a.png"]


def test_standard_input_is_judged_by_what_it_holds(toy_path: Path) -> None:
    arguments = ("restore", "-n", str(toy_path), "-", "-o", "x.png", "--max-pixels", "1k")
    for data, words in (
        (b"", "is empty"),
        (bytes(100), "is not a PNG"),
        (encoded(Image.fromarray(RGB), "PNG")[:90], "trunc"),
    ):
        Path("data").write_bytes(data)
        with Path("data").open("rb") as file:
            run = command(*arguments, stdin=file)
        assert run.returncode == 4
        assert words in run.stderr
    with Path("/dev/zero").open("rb") as endless:
        run = command(*arguments, stdin=endless)
    assert run.returncode == 4
    assert "longer than" in run.stderr
    assert files() == ["data"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_ends_the_command_at_once(make_model: Callable[..., Path], number: signal.Signals) -> None:
    """One network call takes seconds here, so that the second signal comes within it."""
    slow = make_model(side=25)
    Image.fromarray(np.zeros((2000, 2000, 3), np.uint8)).save("large.png")
    Image.fromarray(RGB).save("small.png")
    arguments = ["small.png", "large.png", "-o", "out", "-t", "0", "--threads", "2", "--precision", "fp32", "--json"]
    start = [sys.executable, "-m", "i2sb_rt.cli", "restore", "-n", str(slow), *arguments]
    with subprocess.Popen(start, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        assert run.stderr is not None
        assert "small.png" in run.stdout.readline()  # so the large one, begun beside it, is at work
        run.send_signal(number)
        assert "once more" in run.stderr.readline()
        run.send_signal(number)
        assert run.wait(timeout=60) == -number
        assert "Traceback" not in run.stderr.read()
    assert files() == ["large.png", "out/small.png", "small.png"]


def test_ctrl_c_while_the_command_starts(toy_path: Path) -> None:
    """NumPy's import turns whatever is raised within it into an ImportError that tells how to install it."""
    before = """
import os, signal, time
class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == "numpy":
            try:
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(9)
            except KeyboardInterrupt:
                raise ImportError("NumPy is not well installed")
sys.meta_path.insert(0, Interrupting())"""
    run = command("restore", "-n", str(toy_path), "a.png", "-o", "out.png", before=before)
    assert (run.returncode, run.stdout, run.stderr) == (-signal.SIGINT, "", "")
