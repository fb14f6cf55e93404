"""AOTInductor packages: compiled here, equal to PyTorch, and run by a C++ program without Python."""

import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from i2sb_export.aoti import open_package
from i2sb_rt.cli import main
from i2sb_rt.errors import ModelFileError
from i2sb_rt.model_file import read_info
from i2sb_rt.networks.loading import load_network

Exported = Any
EXAMPLE = Path(__file__).parents[2] / "examples" / "aoti"


@pytest.fixture(scope="module")
def package(compact: Exported, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("package") / "compact.pt2"
    assert main(["export", str(compact.source), "-o", str(path)]) == 0
    return path


def test_a_package_holds_network_and_metadata(package: Path, compact: Exported) -> None:
    info, network, device = open_package(package)
    assert device == "cpu"
    assert info == read_info(compact.source)
    reference, draw = load_network(compact.source), torch.Generator().manual_seed(0)
    for batch, height, width in ((1, 32, 20), (3, 64, 48), (2, 8, 10)):
        x = torch.randn(batch, info.in_channels, height, width, generator=draw)
        t = 1000 * torch.rand(batch, generator=draw)
        with torch.no_grad():
            wanted, found = reference(x, t), network(x, t)
        assert (found - wanted).abs().max() <= 1e-4 * wanted.abs().max()
    assert [path.name for path in package.parent.iterdir()] == [package.name]


@pytest.mark.slow  # libtorch's headers take half a minute to compile
def test_a_program_in_cpp_runs_it(package: Path, compact: Exported, tmp_path: Path) -> None:
    build, prefix = tmp_path / "build", torch.utils.cmake_prefix_path
    options = ["-DCMAKE_BUILD_TYPE=Release", f"-DCMAKE_PREFIX_PATH={prefix}"]
    for command in (["cmake", "-B", str(build), str(EXAMPLE), *options], ["cmake", "--build", str(build)]):
        made = subprocess.run(command, capture_output=True, text=True, check=False)
        assert made.returncode == 0, made.stdout + made.stderr
    program, info = str(build / "network"), read_info(compact.source)
    told = subprocess.run([program, str(package)], capture_output=True, text=True, check=True).stdout
    facts = dict(line.split(" ", 1) for line in told.splitlines())
    assert {key: value for key, value in facts.items() if key.startswith("i2sb.")} == info.to_metadata()
    x = np.random.default_rng(0).standard_normal((2, info.in_channels, 32, 48), dtype=np.float32)
    x.tofile(tmp_path / "x.f32")
    call = [program, str(package), str(tmp_path / "x.f32"), "2", "32", "48", "321", str(tmp_path / "out.f32")]
    subprocess.run(call, check=True)
    with torch.no_grad():
        wanted = load_network(compact.source)(torch.from_numpy(x), torch.full((2,), 321.0)).numpy()
    found = np.fromfile(tmp_path / "out.f32", np.float32).reshape(wanted.shape)
    assert np.abs(found - wanted).max() <= 1e-4 * np.abs(wanted).max()
    wrong = subprocess.run([*call[:4], "31", *call[5:]], capture_output=True, text=True, check=False)
    assert (wrong.returncode, "multiples of 2" in wrong.stderr) == (1, True)
    assert len((EXAMPLE / "network.cpp").read_text().splitlines()) <= 80


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["-o", "m.pt", "--to", "aoti"], "the name of a package ends in .pt2"),
        (["-o", "none/m.pt2"], "none is not a folder"),
        (["-o", "m.pt2", "--device", "cuda"], "no CUDA device to compile for"),
    ],
)
def test_what_cannot_be_compiled_is_said(
    compact: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    options: list[str], words: str,
) -> None:  # fmt: skip
    if "cuda" in options and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    monkeypatch.chdir(tmp_path)
    assert main(["export", str(compact.source), *options]) in (2, 4, 6)
    assert words in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_no_package_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.pt2").write_bytes(b"no package" * 9)
    for name in ("m.pt2", "none.pt2"):
        with pytest.raises(ModelFileError, match=name.replace(".", r"\.")):
            open_package(tmp_path / name)


def test_the_compiler_s_failure_is_a_sentence(
    compact: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise RuntimeError("no compiler")

    monkeypatch.setattr(torch._inductor, "aoti_compile_and_package", fails)
    assert main(["export", str(compact.source), "-o", str(tmp_path / "m.pt2")]) == 6
    assert "cannot compile the network here: no compiler" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
