"""The command line as a process of its own: standard streams, signals, limits."""

import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from i2sb_rt import Restorer

U8 = NDArray[np.uint8]
RECIPES = Path(__file__).parents[2] / "train" / "recipes"


@pytest.fixture(autouse=True)
def _inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def command(*arguments: str, **options: Any) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([sys.executable, "-m", "i2sb_rt.cli", *arguments], capture_output=True, **options)


def test_reads_stdin_and_writes_stdout(toy_path: Path, toy: Restorer, photo: U8) -> None:
    buffer = io.BytesIO()
    Image.fromarray(photo).save(buffer, "TIFF")
    run = command("restore", "-n", str(toy_path), "--precision", "fp32", "-", "-o", "-", input=buffer.getvalue())
    assert run.returncode == 0
    with Image.open(io.BytesIO(run.stdout)) as image:
        assert image.format == "PNG"
        np.testing.assert_array_equal(np.asarray(image), toy.restore(photo))
    run = command("restore", "-n", str(toy_path), "-", "-o", "-", input=b"hello")
    assert (run.returncode, run.stdout) == (4, b"")
    assert b"standard input is not a PNG" in run.stderr


def test_a_reader_that_has_gone_is_no_fault(toy_path: Path, photo: U8) -> None:
    Image.fromarray(photo).save("a.png")
    arguments = [sys.executable, "-m", "i2sb_rt.cli", "restore", "-n", str(toy_path), "a.png", "-o", "b.png", "--json"]
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb") as closed:
        run = subprocess.run(arguments, stdout=closed, stderr=subprocess.PIPE)
    assert (run.returncode, run.stderr) == (141, b"")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_cleanly(toy_path: Path, photo: U8, number: int, code: int) -> None:
    Image.fromarray(photo).save("a.png")
    Image.fromarray(np.tile(photo, (60, 60, 1))).save("b.png")
    arguments = ["restore", "-n", str(toy_path), "a.png", "b.png", "-o", "out", "--nfe", "99", "--json"]
    start = [sys.executable, "-m", "i2sb_rt.cli", *arguments]
    with subprocess.Popen(start, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as run:
        assert run.stdout is not None
        assert json.loads(run.stdout.readline())["in"] == "a.png"  # so the large one is at work
        run.send_signal(number)
        out, err = run.communicate(timeout=60)
    assert run.returncode == code
    assert b"stopping" in err
    assert b"Traceback" not in err
    assert json.loads(out)["summary"]["exit_code"] == code
    assert sorted(str(path) for path in Path().rglob("*.*")) == ["a.png", "b.png", "out/a.png"]


@pytest.mark.parametrize(
    ("arguments", "missing", "extra"),
    [
        (["train", "i2sb", str(RECIPES / "tiny.toml")], "torch", "train"),
        (["train", "dsb", str(RECIPES / "dsb" / "moons.toml")], "rich", "train"),
        (["export", "jpeg", "-o", "x.engine"], "onnx", "export"),
        (["verify", "x.onnx", "--against", "x.safetensors"], "onnx", "export"),
    ],
)
def test_a_package_that_is_missing_is_named_with_its_extra(arguments: list[str], missing: str, extra: str) -> None:
    program = "import sys; sys.modules[sys.argv.pop(1)] = None; from i2sb_rt.cli import main; sys.exit(main())"
    run = subprocess.run([sys.executable, "-c", program, missing, *arguments], capture_output=True, text=True)
    assert run.returncode == 2
    assert f"{arguments[0]} needs the package {missing}: pip install 'i2sb-rt[{extra}]'" in run.stderr


STOPPING = """
import os, signal, sys
from i2sb_rt.cli.stop import Stop, nothing_to_stop

number = int(sys.argv[1])
with nothing_to_stop(), Stop() as stop:
    os.kill(os.getpid(), number)
sys.exit(f"noted {stop.signal}")
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_that_is_ignored_stays_ignored(number: signal.Signals) -> None:
    """As after `nohup`, and after a shell's `&`, which ignores SIGINT."""
    ignoring = f'trap "" {number.name.removeprefix("SIG")}; exec "$@"'
    start = ["sh", "-c", ignoring, "sh", sys.executable, "-c", STOPPING, str(int(number))]
    run = subprocess.run(start, capture_output=True)
    assert run.stderr == b"noted None\n"


def test_a_signal_after_the_reader_of_messages_has_gone() -> None:
    read, write = os.pipe()
    os.close(read)
    script = STOPPING.replace("sys.exit(", "print(")
    with os.fdopen(write, "wb") as closed:
        run = subprocess.run(
            [sys.executable, "-c", script, str(int(signal.SIGTERM))], stdout=subprocess.PIPE, stderr=closed
        )
    assert run.stdout == b"noted 15\n"
