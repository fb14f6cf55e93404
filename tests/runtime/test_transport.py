"""Bridges of diffusion Schrodinger type at work: both engines, seeds, twins, and the two commands."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")

from i2sb_export.onnx import export_onnx  # noqa: E402
from i2sb_export.verify import verify  # noqa: E402
from i2sb_rt import load_transport, noise  # noqa: E402
from i2sb_rt.cli import main  # noqa: E402
from i2sb_rt.engines.native import openvino_library  # noqa: E402
from i2sb_rt.errors import DeviceError, ModelFileError, UsageError  # noqa: E402
from i2sb_rt.model_file import ModelInfo, save_safetensors  # noqa: E402
from i2sb_rt.networks import MLP, UNet  # noqa: E402

pytestmark = pytest.mark.skipif(openvino_library() is None, reason="OpenVINO is not installed")

INFO = ModelInfo(
    name="points", task="dsb", prediction="drift", sampler="dsb", gammas=(0.02, 0.1, 0.2, 0.1, 0.02), nfe=5,
    direction="forward", prior=1.5, channels=2, multiple=1, minimum=1, tile=16, overlap=0, batch=4,
    network={"mlp": {"dim": 2, "width": 16, "depth": 2}}, trained_on="nothing", license="Apache-2.0",
)  # fmt: skip
UNET: dict[str, Any] = {
    "image_size": 8, "in_channels": 1, "out_channels": 1, "model_channels": 8, "num_res_blocks": 1,
    "channel_mult": [1, 2], "attention": False,
}  # fmt: skip
IMAGES = replace(
    INFO, name="grey", channels=1, multiple=2, minimum=8, prediction="residual", batch=2, network=UNET, prior=1.0
)


def write(folder: Path, info: ModelInfo, scale: float) -> None:
    torch.manual_seed(len(info.direction))
    network = MLP(**info.network["mlp"]) if info.holds_points else UNet(**info.network)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, 0, scale)
    source = folder / f"{info.name}-{info.direction}.safetensors"
    save_safetensors(source, {name: p.detach().numpy() for name, p in network.named_parameters()}, info)
    export_onnx(source, source.with_suffix(".onnx"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both directions of a bridge of points, and of one of grey images."""
    path = tmp_path_factory.mktemp("models")
    for direction in ("forward", "backward"):
        write(path, replace(INFO, direction=direction), 0.3)
        write(path, replace(IMAGES, direction=direction), 0.05)
        write(path, replace(INFO, name="still", direction=direction), 0.0)
    write(path, replace(INFO, name="pair", prior=0.0), 0.3)
    write(path, replace(INFO, name="three", channels=3, network={"mlp": {"dim": 3}}), 0.1)
    return path


@pytest.mark.parametrize("name", ["points", "grey"])
def test_engines_give_the_same_samples_for_the_same_seeds(folder: Path, name: str) -> None:
    native, eager = (
        load_transport(folder / name, "backward", engine, precision="fp32") for engine in ("native", "torch")
    )
    found, wanted = native.sample(11, seed=5), eager.sample(11, seed=5)
    assert found.shape == (11, *native.shape)
    assert np.abs(found - wanted).max() <= 1e-4 * max(1, np.abs(wanted).max())
    assert found.std() > 0.1
    back, again = (
        load_transport(folder / name, "forward", engine, precision="fp32").translate(found, 9)
        for engine in ("native", "torch")
    )
    assert np.abs(back - again).max() <= 1e-4 * max(1, np.abs(again).max())


@pytest.mark.parametrize("engine", ["native", "torch"])
def test_points_are_carried_in_fp32_unless_asked_otherwise(folder: Path, engine: str) -> None:
    """Their coordinates are not rounded to 8 bits afterwards, as the pixels of pictures are."""
    assert load_transport(folder / "points", "backward", engine).engine.precision == "fp32"


def test_a_sample_depends_on_its_seed_alone(folder: Path) -> None:
    many = load_transport(folder / "points", "backward", states=23).sample(23, seed=7)
    one = load_transport(folder / "points", "backward")
    for k in (0, 3, 4, 22):
        np.testing.assert_array_equal(one.sample(1, seed=7 + k)[0], many[k])
    np.testing.assert_array_equal(one.sample(5, seed=2**64 - 2)[2:], one.sample(3, seed=0))


def test_a_sample_begins_with_the_prior(folder: Path) -> None:
    path = load_transport(folder / "points", "backward")
    start = 1.5 * noise(3, (2, 1, 1), 0, 3)
    np.testing.assert_array_equal(path.sample(1, seed=3)[0], path.translate(start[None], [3])[0])


def test_points_are_rows_or_states_and_have_seeds_of_their_own(folder: Path) -> None:
    transport = load_transport(folder / "points")
    assert transport.info.direction == "forward"
    points = np.zeros((6, 2), np.float64)
    carried = transport.translate(points, 4)
    assert carried.shape == (6, 2)
    assert carried.dtype == np.float32
    assert len(np.unique(carried[:, 0])) == 6
    np.testing.assert_array_equal(transport.translate(points[..., None, None], 4)[..., 0, 0], carried)
    np.testing.assert_array_equal(transport.translate(points, range(4, 10)), carried)
    np.testing.assert_array_equal(transport.translate(points[::-1], range(9, 3, -1))[::-1], carried)


def test_there_and_back_with_one_seed_meets_no_noise_twice(folder: Path) -> None:
    """Without a drift a state moves by its noise alone."""
    zero = np.zeros((500, 2))
    there, back = (load_transport(folder / "still", way).translate(zero, 3) for way in ("forward", "backward"))
    assert there.std() == pytest.approx((2 * 0.42) ** 0.5, rel=0.1)
    assert abs(np.corrcoef(there.ravel(), back.ravel())[0, 1]) < 0.15


def test_a_trajectory_ends_in_the_result(folder: Path) -> None:
    transport = load_transport(folder / "points", "backward")
    path = transport.sample(3, seed=1, trajectory=True)
    assert path.shape == (3, 5, 2, 1, 1)
    np.testing.assert_array_equal(path[:, 0], transport.sample(3, seed=1))
    assert transport.sample(3, nfe=2, trajectory=True).shape == (3, 2, 2, 1, 1)


def test_what_does_not_fit_is_refused(folder: Path) -> None:
    transport = load_transport(folder / "points", "backward")
    for states, right in (
        (np.zeros((3, 3)), r"states of points are \[n, 2\], not \[3, 3\]"),
        (np.zeros((0, 2)), r"not \[0, 2\]"),
        (np.zeros(2), r"not \[2\]"),
        (np.array([["a", "b"]]), "states are numbers"),
        (np.zeros((3, 2), complex), "states are numbers"),
    ):
        with pytest.raises(UsageError, match=right):
            transport.translate(states)
    with pytest.raises(UsageError, match="2 seeds for 3 images"):
        transport.translate(np.zeros((3, 2)), [1, 2])
    with pytest.raises(UsageError, match=r"lies in 1 \.\. 10000000, not 0"):
        transport.sample(0)
    grey = load_transport(folder / "grey")
    for sides in ((9, 8), (6, 8)):
        with pytest.raises(UsageError, match=r"sides of grey's states are multiples of 2, at least 8, not"):
            grey.translate(np.zeros((2, 1, *sides)))
    with pytest.raises(UsageError, match="nfe must be from 1 to 5"):
        transport.sample(1, nfe=6)
    with pytest.raises(UsageError, match="runs forward; samples are made backward"):
        load_transport(folder / "points", "forward").sample(1)
    with pytest.raises(UsageError, match="direction is forward or backward"):
        load_transport(folder / "points", "up")
    with pytest.raises(DeviceError, match=r"points run in the engines native and torch|finds no CUDA device"):
        load_transport(folder / "points", engine="cuda")


def test_a_direction_is_found_by_either_name_or_told_to_be_missing(folder: Path, tmp_path: Path) -> None:
    for name in ("points", "points-forward.onnx", "points-backward.onnx"):
        for direction in ("forward", "backward"):
            assert load_transport(folder / name, direction).path.name == f"points-{direction}.onnx"
    with pytest.raises(ModelFileError, match=r"pair-forward\.onnx runs forward; its twin .*pair-backward\.onnx"):
        load_transport(folder / "pair-forward.onnx", "backward")
    with pytest.raises(ModelFileError, match=r"there is no model file .*none-forward\.onnx"):
        load_transport(tmp_path / "none")
    with pytest.raises(ModelFileError, match="jpeg is no diffusion Schrodinger bridge; `restore` runs it"):
        load_transport("jpeg")
    wrong = tmp_path / "points-backward.onnx"
    wrong.write_bytes((folder / "points-forward.onnx").read_bytes())
    (tmp_path / "points-forward.onnx").write_bytes(wrong.read_bytes())
    with pytest.raises(ModelFileError, match="does not run backward, as its name says"):
        load_transport(tmp_path / "points-forward.onnx", "backward")


def test_the_commands_carry_points_there_and_back(folder: Path, tmp_path: Path, capfd: Any) -> None:
    samples, carried = tmp_path / "s.npy", tmp_path / "c.npy"
    assert main(["sample", str(folder / "points"), "-n", "9", "-o", str(samples), "--seed", "3"]) == 0
    assert "9 of points (native" in capfd.readouterr().err
    drawn = np.load(samples)
    np.testing.assert_array_equal(drawn, load_transport(folder / "points", "backward").sample(9, 3)[..., 0, 0])
    assert main(["translate", str(folder / "points"), str(samples), "-o", str(carried), "-q"]) == 0
    assert capfd.readouterr().err == ""
    np.testing.assert_array_equal(np.load(carried), load_transport(folder / "points").translate(drawn, 0))
    assert main(["translate", str(folder / "points"), str(samples), "-o", str(carried), "--reverse", "-q"]) == 0
    reverse = load_transport(folder / "points", "backward").translate(drawn, 0)
    np.testing.assert_array_equal(np.load(carried), reverse)
    assert main(["sample", str(folder / "points"), "-n", "2", "-o", str(samples), "--trajectory"]) == 0
    assert np.load(samples).shape == (2, 5, 2)


def test_the_commands_carry_images(folder: Path, tmp_path: Path) -> None:
    grid, out = tmp_path / "grid.png", tmp_path / "out"
    assert main(["sample", str(folder / "grey"), "-n", "5", "-o", str(grid), "-q"]) == 0
    whole = np.asarray(Image.open(grid))
    assert whole.shape == (2 * 9 - 1, 3 * 9 - 1)
    states = load_transport(folder / "grey", "backward").sample(5)
    tile = np.rint((states[4, 0].clip(-1, 1) + 1) * 127.5)
    np.testing.assert_array_equal(whole[9:, 9:17], tile)
    assert (whole[8] == 255).all()
    for name in ("a", "b"):
        Image.fromarray(whole[:8, :8]).save(tmp_path / f"{name}.png")
    inputs = [str(tmp_path / f"{name}.png") for name in ("a", "b")]
    assert main(["translate", str(folder / "grey"), *inputs, "-o", str(out) + "/", "-q"]) == 0
    one, two = (np.asarray(Image.open(out / f"{name}.png")) for name in ("a", "b"))
    assert one.shape == (8, 8)
    np.testing.assert_array_equal(one, two)
    x = whole[None, None, :8, :8] / np.float32(127.5) - 1
    carried = load_transport(folder / "grey", "forward").translate(x, [0])[0, 0]
    assert np.abs(np.rint((carried.clip(-1, 1) + 1) * 127.5) - one).max() <= 1


@pytest.mark.parametrize(
    ("arguments", "right"),
    [
        (["sample", "{m}/points", "-o", "{t}/a.png"], "makes points, which are written to a .npy file"),
        (["sample", "{m}/grey", "-o", "{t}/a.png", "--trajectory"], "a trajectory is written to a .npy file"),
        (["sample", "{m}/grey", "-o", "{t}/a.txt"], "the format follows from the ending"),
        (["sample", "{m}/pair-forward.onnx", "-o", "{t}/a.npy"], "its twin"),
        (["sample", "jpeg", "-o", "{t}/a.npy"], "no diffusion Schrodinger bridge"),
        (["sample", "{m}/points", "-n", "0", "-o", "{t}/a.npy"], "a count of samples lies in 1"),
        (["sample", ".", "-o", "{t}/a.npy"], "names no model file"),
        (["translate", "{m}/points", "{t}/wide.npy", "-o", "{t}/a.npy", "--json"], "--json tells of images"),
        (["translate", "{m}/three-forward.onnx", "{t}/rgb.png", "-o", "{t}/a.png"], "this model carries points"),
        (["translate", "{m}/points", "{t}/header.npy", "-o", "{t}/a.npy"], "header.npy is not a .npy file of numbers"),
        (["sample", "{m}/points", "--seed", "-1", "-o", "{t}/a.npy"], "a seed lies in"),
        (["translate", "{m}/points", "{t}/none.npy", "-o", "{t}/a.npy"], "none.npy cannot be read"),
        (["translate", "{m}/points", "{t}/bad.npy", "-o", "{t}/a.npy"], "bad.npy is not a .npy file of numbers"),
        (["translate", "{m}/points", "{t}/pickle.npy", "-o", "{t}/a.npy"], "pickle.npy is not a .npy file of numbers"),
        (["translate", "{m}/points", "{t}/wide.npy", "-o", "{t}/a.npy"], "wide.npy: states of points are"),
        (["translate", "{m}/points", "{t}/wide.npy", "-o", "{t}/wide.npy"], "is an input and would be replaced"),
        (["translate", "{m}/points", "{t}/wide.npy", "-o", "{t}/a.png"], "from one .npy file to one .npy file"),
        (["translate", "{m}/grey", "{t}/rgb.png", "-o", "{t}/a.png"], "works on grey images, and this one has colour"),
    ],
)
def test_failures_are_one_sentence_and_leave_nothing(
    arguments: list[str], right: str, folder: Path, tmp_path: Path, capfd: Any
) -> None:
    (tmp_path / "bad.npy").write_bytes(b"\x93NUMPY\x01\x00nonsense")
    np.save(tmp_path / "pickle.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    np.save(tmp_path / "wide.npy", np.zeros((3, 5)))
    (tmp_path / "header.npy").write_bytes(b"\x93NUMPY\x01\x00\x10\x00{(((            ")
    Image.new("RGB", (8, 8), (200, 10, 10)).save(tmp_path / "rgb.png")
    before = sorted(tmp_path.iterdir())
    code = main([text.format(m=folder, t=tmp_path) for text in arguments])
    told = capfd.readouterr().err
    assert code != 0
    assert right in told
    assert "Traceback" not in told
    assert sorted(tmp_path.iterdir()) == before


def test_a_name_may_tell_its_direction(folder: Path, tmp_path: Path, capfd: Any) -> None:
    for number, name in enumerate(("points", "points-backward", "points-forward")):
        assert main(["sample", f"{folder}/{name}", "-n", "2", "-o", f"{tmp_path}/{number}.npy"]) == 0
    assert (tmp_path / "0.npy").read_bytes() == (tmp_path / "1.npy").read_bytes() == (tmp_path / "2.npy").read_bytes()
    capfd.readouterr()
    assert main(["sample", f"{folder}/nothing-backward", "-n", "2", "-o", f"{tmp_path}/a.npy"]) == 5
    assert "nothing-backward.onnx" in capfd.readouterr().err


def test_points_that_are_there_already_are_told_of(folder: Path, tmp_path: Path, capfd: Any) -> None:
    np.save(tmp_path / "in.npy", np.zeros((3, 2), np.float32))
    (tmp_path / "out.npy").write_bytes(b"as it is")
    command = ["translate", f"{folder}/points", f"{tmp_path}/in.npy", "-o", f"{tmp_path}/out.npy", "--skip-existing"]
    assert main(command) == 0
    assert "out.npy (skipped: it exists)" in capfd.readouterr().err
    assert (tmp_path / "out.npy").read_bytes() == b"as it is"


@pytest.mark.parametrize("command", ["sample", "translate"])
def test_the_page_tells_every_option(command: str, capfd: Any) -> None:
    assert main([command, "--help"]) == 0
    options = set(re.findall(r"(?<!\S)--?[a-z][a-z-]*", capfd.readouterr().out)) - {"-h", "--help", "-"}
    page = (Path(__file__).parents[2] / "docs" / "cli.md").read_text()
    section = page.split(f"## i2sb-rt {command}\n", 1)[1].split("\n## ", 1)[0]
    assert len(options) > 8
    assert options <= set(re.findall(r"--?[a-z][a-z-]*", section))


def test_an_export_is_proved_along_its_whole_plan(folder: Path) -> None:
    checks = verify(folder / "points-backward.onnx", folder / "points-backward.safetensors")
    assert [check.what for check in checks if not check.holds] == []
    judged = [check.what for check in checks if check.limit is not None]
    assert sum(what.startswith("transport 3 x 1 x 1, 5 calls") for what in judged) == 2
