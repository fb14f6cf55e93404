"""Makes the builders beside the tests importable (tests are not a package), and opens what they build."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from i2sb_rt import _core

sys.path.insert(0, str(Path(__file__).parent))

from onnx_files import make_onnx


@pytest.fixture
def open_model(tmp_path: Path) -> Callable[..., _core.Model]:
    """Open a tiny model with changes to its metadata."""
    return lambda **changes: _core.Model(str(make_onnx(tmp_path / "model.onnx", **changes)))
