"""Programs outside of the repository: they build against the library in every way there is, and restore what the
command line restores; and every example of examples/embedding does what its first lines say."""

import itertools
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import i2sb_rt
from i2sb_rt import Plan, Schedule
from i2sb_rt.__main__ import main
from i2sb_rt.engines.native import openvino_library
from i2sb_rt.model_file import read_info
from i2sb_rt.models import find

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples" / "embedding"
OUTSIDE = Path(__file__).parent / "embedding"
PAGE = ROOT / "docs" / "embedding.md"
JPEG = find("jpeg")
STRICT = "-Wall -Wextra -Wpedantic -Werror"
CROPS = {"left": (0, 0, 160, 128), "right": (300, 200, 460, 328), "odd": (31, 17, 131, 90)}
Environment = Mapping[str, str]
Pixels = NDArray[np.uint8]
Restores = Callable[[Path, Environment], None]


def ask(*command: object, env: Environment | None = None) -> tuple[int, str]:
    """Run a command; its exit code and what it said on standard error."""
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, env=env, check=False)
    return done.returncode, done.stderr


def run(*command: object, env: Environment | None = None) -> str:
    """Run a command that must succeed; what it said on standard output."""
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 0, f"{command} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
    return done.stdout


def tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not on the path")
    return found


def build(source: Path, into: Path, *options: str) -> Path:
    """Configure and build a CMake project; the folder of its programs."""
    run(tool("cmake"), "-S", source, "-B", into, "-DCMAKE_BUILD_TYPE=Release", f"-DEXAMPLES={EXAMPLES}", *options)
    run(tool("cmake"), "--build", into, "-j2")
    return into


def pkg_config(below: Path, *options: str) -> list[str]:
    (file,) = below.rglob("i2sb_rt.pc")
    return run(tool("pkg-config"), *options, "i2sb_rt", env={**os.environ, "PKG_CONFIG_PATH": str(file.parent)}).split()


def compile_restore(program: Path, *flags: str) -> Path:
    run(tool("cc"), "-std=c99", *STRICT.split(), EXAMPLES / "restore.c", "-o", program, *flags)
    return program


def folder(option: str) -> Path:
    return Path(run(sys.executable, "-m", "i2sb_rt", option).strip())


def pixels(path: Path) -> Pixels:
    with Image.open(path) as image:
        return np.asarray(image)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Parts of the photo, as PPM files."""
    made = tmp_path_factory.mktemp("photos")
    with Image.open(ROOT / "examples" / "photo.jpg") as photo:
        for name, box in CROPS.items():
            photo.crop(box).save(made / f"{name}.ppm")
    return {name: made / f"{name}.ppm" for name in CROPS}


@pytest.fixture(scope="module")
def expected(photos: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Pixels]:
    """What the command line makes of them."""
    made = tmp_path_factory.mktemp("expected")
    for name, path in photos.items():
        with Image.open(path) as photo:
            photo.save(made / f"{name}.png")
    run(sys.executable, "-m", "i2sb_rt", "restore", *made.glob("*.png"), "-o", made / "out")
    return {name: pixels(made / "out" / f"{name}.png") for name in photos}


@pytest.fixture
def restores(photos: dict[str, Path], expected: dict[str, Pixels], tmp_path: Path) -> Restores:
    """Asserts that a program restores a photo as the command line does."""

    def check(program: Path, env: Environment) -> None:
        run(program, JPEG, photos["left"], tmp_path / "restored.ppm", env=env)
        assert (pixels(tmp_path / "restored.ppm") == expected["left"]).all()
        assert (expected["left"] != pixels(photos["left"])).any()

    return check


@pytest.fixture(scope="module")
def named() -> Environment:
    """For programs whose library lies where no OpenVINO is near: it is named."""
    library = openvino_library()
    if library is None:
        pytest.skip("OpenVINO is not installed")
    return {**os.environ, "I2SB_RT_OPENVINO": library}


@pytest.fixture(scope="module")
def bare() -> Environment:
    """For programs whose library must find OpenVINO by itself."""
    return {name: value for name, value in os.environ.items() if name not in ("I2SB_RT_OPENVINO", "LD_LIBRARY_PATH")}


@pytest.fixture(scope="module")
def beside(bare: Environment) -> Environment:
    """The same, where OpenVINO is installed beside the Python package."""
    if not list((folder("--library-dir").parents[2] / "openvino" / "libs").glob("libopenvino_c.so*")):
        pytest.skip("OpenVINO is not installed beside this package")
    return bare


@pytest.fixture(scope="module")
def subdirectory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A program that takes the repository in as a folder, and whose own floating-point options are others."""
    options = (f"-DI2SB_RT_SOURCE={ROOT}", "-DCMAKE_CXX_FLAGS=-ffast-math", "-DCMAKE_C_FLAGS=-ffast-math")
    return build(OUTSIDE, tmp_path_factory.mktemp("subdirectory"), *options)


@pytest.fixture(scope="module")
def prefix(subdirectory: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library installed, and then moved elsewhere."""
    first = tmp_path_factory.mktemp("first") / "prefix"
    run(tool("cmake"), "--install", subdirectory, "--prefix", first)
    return first.rename(tmp_path_factory.mktemp("second") / "prefix")


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The examples, built against the installed Python package."""
    flags = (f"-DCMAKE_C_FLAGS={STRICT}", f"-DCMAKE_CXX_FLAGS={STRICT}")
    return build(EXAMPLES, tmp_path_factory.mktemp("programs"), f"-Di2sb_rt_DIR={folder('--cmake-dir')}", *flags)


# ---- ways to build ----


@pytest.mark.parametrize("name", ["restore", "restore_static"])
def test_with_the_repository_as_a_folder(subdirectory: Path, name: str, restores: Restores, named: Environment) -> None:
    restores(subdirectory / name, named)


def test_with_cmake_from_a_moved_installation_in_c_alone(
    prefix: Path, restores: Restores, named: Environment, tmp_path: Path
) -> None:
    built = build(EXAMPLES, tmp_path / "build", f"-DCMAKE_PREFIX_PATH={prefix}", "-DWITH_CXX=OFF")
    assert "CMAKE_CXX_COMPILER" not in (built / "CMakeCache.txt").read_text()
    restores(built / "restore", named)


def test_with_cmake_and_the_static_library(
    prefix: Path, restores: Restores, named: Environment, tmp_path: Path
) -> None:
    restores(build(OUTSIDE, tmp_path / "build", f"-DCMAKE_PREFIX_PATH={prefix}") / "restore_static", named)


def test_with_pkg_config_in_c_alone(prefix: Path, restores: Restores, named: Environment, tmp_path: Path) -> None:
    (library,) = pkg_config(prefix, "--variable=libdir")
    flags = [*pkg_config(prefix, "--cflags", "--libs"), f"-Wl,-rpath,{library}"]
    restores(compile_restore(tmp_path / "restore", *flags), named)


def test_with_pkg_config_and_the_static_library(
    prefix: Path, restores: Restores, named: Environment, tmp_path: Path
) -> None:
    flags = pkg_config(prefix, "--static", "--cflags", "--libs")
    flags[flags.index("-li2sb_rt")] = "-l:libi2sb_rt.a"
    program = compile_restore(tmp_path / "restore", *flags)
    assert "libi2sb_rt" not in run(tool("readelf"), "-d", program)
    restores(program, named)


def test_with_the_python_package_and_its_openvino(
    programs: Path, restores: Restores, beside: Environment, tmp_path: Path
) -> None:
    restores(programs / "restore", beside)
    flags = pkg_config(folder("--pkgconfig-dir"), "--cflags", "--libs")
    assert Path(flags[0].removeprefix("-I")).samefile(folder("--include-dir"))
    library = f"-Wl,-rpath,{folder('--library-dir')}"
    restores(compile_restore(tmp_path / "restore", *flags, library), beside)


def test_with_an_installed_wheel(
    restores: Restores, named: Environment, bare: Environment, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A wheel in a folder of packages, OpenVINO beside it: no editable install, no variable, nothing of this tree."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    packages, build_folder = tmp_path / "packages", tmp_path_factory.mktemp("wheel")
    made = ["wheel", "--no-deps", "--no-build-isolation", f"-Cbuild-dir={build_folder}", "-w", tmp_path, ROOT]
    run(*pip, *made, env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"})
    (wheel,) = tmp_path.glob("i2sb_rt-*.whl")
    run(*pip, "install", "--no-deps", "--target", packages, wheel)
    (packages / "openvino").symlink_to(Path(named["I2SB_RT_OPENVINO"]).parents[1])
    alone = {**bare, "PYTHONPATH": str(packages)}  # with -P and -S nothing else is looked into
    (config,) = run(sys.executable, "-P", "-S", "-m", "i2sb_rt", "--cmake-dir", env=alone).splitlines()
    assert Path(config).is_relative_to(packages)
    restores(build(EXAMPLES, tmp_path / "build", f"-Di2sb_rt_DIR={config}", "-DWITH_CXX=OFF") / "restore", bare)


def test_openvino_is_taken_from_beside_the_package_only(
    prefix: Path, photos: dict[str, Path], bare: Environment, tmp_path: Path
) -> None:
    """The newest of a package `openvino` is tried beside i2sb_rt/sdk, and no folder that merely lies likewise."""
    program = compile_restore(tmp_path / "restore", *pkg_config(prefix, "--cflags", "--libs"))
    (tmp_path / "openvino" / "libs").mkdir(parents=True)
    for release in (1, 3, 2):
        (tmp_path / "openvino" / "libs" / f"libopenvino_c.so.{release}").write_bytes(b"no library")
    said = {}
    for place in ("i2sb_rt/sdk/lib", "other/sdk/lib", "i2sb_rt/other/lib"):
        shutil.copytree(next(prefix.rglob("libi2sb_rt.so")).parent, tmp_path / place)
        env = {**bare, "LD_LIBRARY_PATH": str(tmp_path / place)}
        said[place] = ask(program, JPEG, photos["left"], tmp_path / "out.ppm", env=env)[1]
    assert f"cannot be opened: {tmp_path}/openvino/libs/libopenvino_c.so.3" in said.pop("i2sb_rt/sdk/lib")
    assert not any(f"{tmp_path}/openvino" in words for words in said.values())


def test_the_shared_library_exports_what_the_header_declares() -> None:
    header = (folder("--include-dir") / "i2sb_rt.h").read_text()
    symbols = run(tool("nm"), "-D", "--defined-only", folder("--library-dir") / "libi2sb_rt.so")
    assert {line.split()[-1] for line in symbols.splitlines()} == set(re.findall(r"\b(i2sb_\w+)\(", header))


# ---- the package's word of where it lies ----


def test_the_folders_are_those_of_the_installed_package() -> None:
    holds = {
        "--cmake-dir": "i2sb_rt-config.cmake",
        "--include-dir": "i2sb_rt.hpp",
        "--library-dir": "libi2sb_rt.so",
        "--pkgconfig-dir": "i2sb_rt.pc",
        "--models-dir": "jpeg.onnx",
    }
    assert all((folder(option) / file).is_file() for option, file in holds.items())


def test_with_other_words_it_is_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == i2sb_rt.__version__
    assert main(["--cmake-dir", "--include-dir"]) == 2
    assert "usage: i2sb-rt" in capsys.readouterr().err


# ---- the page ----


def test_the_page_s_first_program_restores_as_it_says(
    expected: dict[str, Pixels], photos: dict[str, Path], beside: Environment, tmp_path: Path
) -> None:
    shell, program = (re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(), re.S)[0] for language in ("bash", "c"))
    install, *commands = shell.splitlines()
    assert install.startswith("pip install .")
    (tmp_path / "first.c").write_text(program)
    with Image.open(photos["left"]) as photo:
        photo.save(tmp_path / "photo.png")
    script = "\n".join(commands).replace("photo.jpg", "photo.png").replace("cc ", f"{tool('cc')} {STRICT} ")
    path = f"{Path(sys.executable).parent}:{beside['PATH']}"
    subprocess.run(["bash", "-euc", script], cwd=tmp_path, env={**beside, "PATH": path}, check=True)
    assert (pixels(tmp_path / "restored.ppm") == expected["left"]).all()


def test_the_page_s_pieces_compile(tmp_path: Path) -> None:
    text = PAGE.read_text()
    outside, inside = "", ""
    for piece in re.findall(r"```c\n(.*?)```", text, re.S)[1:]:
        if piece.startswith("static"):
            outside += piece
        else:
            inside += f"static int piece(const i2sb_model* model, i2sb_session* session) {{\n{piece}return 0;\n}}\n"
    assert outside
    assert inside
    includes = "#include <i2sb_rt.h>\n#include <signal.h>\n#include <stdio.h>\n"
    around = "int failed(void);\nint my_network(void*, const float*, const float*, float*, size_t);\n"
    (tmp_path / "pieces.c").write_text(includes + around + outside + inside)
    (in_cpp,) = re.findall(r"```cpp\n(.*?)```", text, re.S)
    head = "#include <i2sb_rt.hpp>\n#include <vector>\nvoid piece(const uint8_t* pixels, int width, int height) {\n"
    (tmp_path / "pieces.cpp").write_text(head + in_cpp + "}\n")
    flags = (*STRICT.split(), "-Wno-unused", "-fsyntax-only", f"-I{folder('--include-dir')}")
    run(tool("cc"), "-std=c99", *flags, tmp_path / "pieces.c")
    run(tool("c++"), "-std=c++17", *flags, tmp_path / "pieces.cpp")


# ---- the examples ----


def test_restore_enlarges_and_fills(
    programs: Path, photos: dict[str, Path], expected: dict[str, Pixels], beside: Environment, tmp_path: Path
) -> None:
    large, masked, mask = (tmp_path / name for name in ("large.ppm", "masked.ppm", "mask.pgm"))
    run(programs / "restore", find("sr4x"), photos["odd"], large, env=beside)
    assert pixels(large).shape == (4 * 73, 4 * 100, 3)
    hole = np.zeros((128, 160), np.uint8)
    hole[40:60, 50:90] = 255
    Image.fromarray(hole).save(mask)
    run(programs / "restore", find("inpaint"), photos["left"], masked, mask, env=beside)
    before, after = pixels(photos["left"]), pixels(masked)
    assert (after[hole == 0] == before[hole == 0]).all()
    assert (after[hole != 0] != before[hole != 0]).any()


def test_restore_takes_grey_images(
    programs: Path, photos: dict[str, Path], beside: Environment, tmp_path: Path
) -> None:
    with Image.open(photos["left"]) as photo:
        photo.convert("L").save(tmp_path / "grey.pgm")
        photo.convert("L").save(tmp_path / "grey.png")
    run(programs / "restore", JPEG, tmp_path / "grey.pgm", tmp_path / "out.pgm", env=beside)
    run(sys.executable, "-m", "i2sb_rt", "restore", tmp_path / "grey.png", "-o", tmp_path / "out.png")
    assert (pixels(tmp_path / "out.pgm") == pixels(tmp_path / "out.png")).all()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is neither a PPM"),
        (b"P3 2 2 255 ", "is neither a PPM"),
        (b"P6\n2 0\n255\n", "has no size"),
        (b"P6\n2 -2\n255\n", "has no size"),
        (b"P6\n# 2\n2 65536\n255\n", "has no size, or one above 65535"),
        (b"P6\n99999999999999999999 2\n255\n", "has no size, or one above 65535"),
        (b"P6\n65535 65535\n255\n", "has too many pixels"),
        (b"P6\n2 2\n65535\n" + bytes(24), "does not have 255"),
        (b"P6\n2 2\n15\n" + bytes(12), "does not have 255"),
        (b"P6\n2 2\n255#" + bytes(12), "has no white space"),
        (b"P6\n2 2\n255\n" + bytes(11), "ends before its last pixel"),
        (b"P6\n2 2\n255\n" + bytes(13), "goes on behind its last pixel"),
        (b"P5 # comment", "has no size"),
    ],
)
def test_restore_refuses_broken_images(programs: Path, content: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / "in.ppm").write_bytes(content)
    code, said = ask(programs / "restore", JPEG, tmp_path / "in.ppm", tmp_path / "out.ppm")
    assert (code, f"in.ppm {words}" in said) == (3, True), said
    assert not (tmp_path / "out.ppm").exists()


def test_restore_says_what_failed(programs: Path, photos: dict[str, Path], beside: Environment, tmp_path: Path) -> None:
    program, photo, out = programs / "restore", photos["left"], tmp_path / "out.ppm"
    commented = b"P6#a\n #b\n160\t#c\n128 255 " + pixels(photo).tobytes()
    (tmp_path / "commented.ppm").write_bytes(commented)
    for command, code, words in (
        ([], 2, "usage"),
        ([JPEG, tmp_path / "none.ppm", out], 3, "none.ppm cannot be opened"),
        ([JPEG, photo, tmp_path / "none" / "out.ppm"], 3, "out.ppm cannot be written"),
        ([tmp_path / "none.onnx", photo, out], 14, "there is no such file"),
        ([photo, photo, out], 14, "left.ppm"),
        ([JPEG, photo, out, photos["odd"]], 12, "the mask must have one channel and the image's size"),
    ):
        ended, said = ask(program, *command, env=beside)
        assert (ended, words in said) == (code, True), said
    assert not out.exists()
    run(program, JPEG, tmp_path / "commented.ppm", out, env=beside)
    assert out.read_bytes().startswith(b"P6\n160 128\n255\n")


def test_threads_restores_each_as_if_alone(
    programs: Path, photos: dict[str, Path], expected: dict[str, Pixels], beside: Environment, tmp_path: Path
) -> None:
    eight = [tmp_path / f"{number}.ppm" for number in range(8)]
    for link, photo in zip(eight, itertools.cycle(photos.values()), strict=False):
        link.symlink_to(photo)
    (tmp_path / "out").mkdir()
    run(programs / "threads", JPEG, 8, 0, tmp_path / "out", *eight, env=beside)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {link.name for link in eight}
    for link, wanted in zip(eight, itertools.cycle(expected.values()), strict=False):
        assert (pixels(tmp_path / "out" / link.name) == wanted).all()
    broken = tmp_path / "broken.ppm"
    broken.write_bytes(b"P6")
    code, said = ask(programs / "threads", JPEG, 1, 0, tmp_path, broken, photos["odd"], env=beside)
    assert (code, "broken.ppm has no size" in said, "odd.ppm: 1 of 1 steps" in said) == (1, True, True)


@pytest.fixture
def album(tmp_path: Path) -> list[Path]:
    """More photos than are restored in a second."""
    with Image.open(ROOT / "examples" / "photo.jpg") as photo:
        photo.crop((0, 0, 384, 384)).save(tmp_path / "photo.ppm")
    (tmp_path / "out").mkdir()
    names = [tmp_path / f"{number}.ppm" for number in range(500)]
    for name in names:
        name.symlink_to("photo.ppm")
    return names


def test_threads_stops_on_ctrl_c(programs: Path, album: list[Path], beside: Environment, tmp_path: Path) -> None:
    command = list(map(str, [programs / "threads", JPEG, 2, 0, tmp_path / "out", *album]))
    with subprocess.Popen(command, env=beside, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert "0 of 1 steps" in process.stderr.readline()
        time.sleep(0.1)  # the network is being compiled: the sessions are at work
        process.send_signal(signal.SIGINT)
        said = process.stderr.read()
    assert (process.returncode, "stopped by the caller" in said) == (130, True), said
    done = list((tmp_path / "out").iterdir())  # none on a machine that is not busy
    assert len(done) < len(album)
    assert {path.stat().st_size for path in done} <= {(tmp_path / "photo.ppm").stat().st_size}


def test_threads_stops_in_time(programs: Path, album: list[Path], beside: Environment, tmp_path: Path) -> None:
    code, said = ask(programs / "threads", JPEG, 2, 1, tmp_path / "out", *album, env=beside)
    assert code == 142, said
    written = list((tmp_path / "out").iterdir())
    assert len(written) < len(album)
    assert {path.stat().st_size for path in written} <= {(tmp_path / "photo.ppm").stat().st_size}


def box_mean(image: Pixels, radius: int) -> NDArray[np.float64]:
    padded = np.pad(image.astype(np.float64), ((radius, radius), (radius, radius), (0, 0)), mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (2 * radius + 1, 2 * radius + 1), axis=(0, 1))
    return np.asarray(windows.mean(axis=(-2, -1)))


def test_an_engine_of_one_s_own(programs: Path, photos: dict[str, Path], bare: Environment, tmp_path: Path) -> None:
    program, out, photo = programs / "own_engine", tmp_path / "out.ppm", pixels(photos["left"])
    info = read_info(JPEG)
    schedule = Schedule(info.interval, info.beta_max, info.t0, info.T)
    stays = float(Plan.posterior(schedule, info.nfe, prediction="mean").rows[0, 3])  # of the state, beside x0
    told = run(program, JPEG, photos["left"], out, 3, env=bare)
    assert re.fullmatch(r"1 network calls, \d{7,8} bytes at most, 0 left\n", told)
    wanted = stays * photo + (1 - stays) * box_mean(photo, 3)
    assert np.abs(pixels(out) - wanted).max() <= 0.51
    run(program, JPEG, photos["left"], out, 0, env=bare)
    assert (pixels(out) == photo).all()
    out.unlink()
    code, said = ask(program, JPEG, photos["left"], out, 200, env=bare)
    assert (code, "own_engine: the image is smaller than the radius" in said) == (15, True)
    assert f"own_engine: model file {JPEG}: jpeg" in said
    assert ask(program, JPEG, photos["left"], out, 3, 7, env=bare)[0] == 13
    assert not out.exists()


def test_the_server_answers_and_stays_up(
    programs: Path, photos: dict[str, Path], expected: dict[str, Pixels], beside: Environment, tmp_path: Path
) -> None:
    a, b, c = (tmp_path / f"{name}.ppm" for name in "abc")
    with subprocess.Popen(
        [programs / "server", JPEG], env=beside, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for request, answer in (
            (f"{photos['left']} {a}", r"ok \d+"),
            (f"{tmp_path}/none.ppm {b}", r"error \S+none.ppm cannot be opened"),
            (f"{photos['left']} {b} -1", "error the seed is not a number from 0 to .*"),
            (f"{photos['left']} {b} 18446744073709551616", "error the seed is not a number from 0 to .*"),
            ("", r"error a request is IN.ppm OUT.ppm \[SEED\]"),
            ("a b 1 2", r"error a request is IN.ppm OUT.ppm \[SEED\]"),
            ("x" * 10000 + f" {b}", "error the request is too long"),
            (f"{photos['odd']} {tmp_path}/none/b.ppm", r"error \S+ cannot be written"),
            (f"{photos['odd']} {b} 18446744073709551615", r"ok \d+"),
            (f"{photos['left']} {c} 0", r"ok \d+"),
        ):
            process.stdin.write(request + "\n")
            assert re.fullmatch(answer, process.stdout.readline().rstrip("\n"))
        process.stdin.close()
        assert process.stdout.read() == ""
    assert process.returncode == 0
    assert (pixels(a) == expected["left"]).all()
    assert (pixels(c) == expected["left"]).all()
    assert b.exists()
