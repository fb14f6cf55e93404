"""The tree keeps its promises: what may shadow what, and which imports point up."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = {
    "i2sb_rt": ROOT / "i2sb_rt",
    "i2sb_kernels": ROOT / "kernels" / "i2sb_kernels",
    "i2sb_export": ROOT / "export" / "i2sb_export",
    "i2sb_train": ROOT / "train" / "i2sb_train",
}


@pytest.mark.parametrize("folder", ["kernels", "export", "train", "benchmarks", "tests"])
def test_outer_folders_are_not_packages(folder: str) -> None:
    # A folder named kernels with an __init__.py would shadow the PyPI package of that name.
    assert (ROOT / folder).is_dir()
    assert not (ROOT / folder / "__init__.py").exists()


@pytest.mark.parametrize("op", ["bridge_step", "noise"])
def test_an_op_has_one_stem_everywhere(op: str) -> None:
    for name in ("reference", "gpu", "cpu"):
        assert (PACKAGES["i2sb_kernels"] / op / f"{name}.py").is_file()
    assert (ROOT / "kernels" / "native" / "src" / f"{op}.cpp").is_file()
    assert (ROOT / "tests" / "kernels" / f"test_{op}.py").is_file()


def test_imports_run_one_way() -> None:
    subprocess.run([Path(sys.executable).parent / "lint-imports", "--no-cache"], cwd=ROOT, check=True)


def test_readme_has_two_commands() -> None:
    start = (ROOT / "README.md").read_text().split("## Quick start", 1)[1]
    commands = [block.strip() for block in re.findall(r"^```\w*\n(.*?)^```", start, re.S | re.M)[:2]]
    assert len(commands) == 2
    assert all("\n" not in command for command in commands)


def test_the_version_is_one() -> None:
    import i2sb_rt
    from i2sb_rt import _core

    pyproject = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.M)
    cmake = re.search(r"project\(i2sb_rt VERSION (\S+)", (ROOT / "CMakeLists.txt").read_text())
    assert pyproject is not None
    assert cmake is not None
    assert pyproject[1] == cmake[1] == _core.version() == i2sb_rt.__version__
