"""The core without Python: it configures and builds by itself, and its own tests pass."""

import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_core_builds_without_python_and_its_tests_pass(tmp_path: Path) -> None:
    configure = ["cmake", "-S", str(ROOT), "-B", str(tmp_path), "-DCMAKE_BUILD_TYPE=Release"]
    subprocess.run(configure, check=True, capture_output=True)
    subprocess.run(["cmake", "--build", str(tmp_path), "-j2"], check=True, capture_output=True)
    subprocess.run(["ctest", "--test-dir", str(tmp_path), "--output-on-failure", "--no-tests=error"], check=True)
