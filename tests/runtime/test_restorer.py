import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import i2sb_rt
from i2sb_rt import Restorer, Schedule, load, models
from i2sb_rt.engines.native import cache_folder, openvino_library, prune
from i2sb_rt.errors import CancelledError, DeviceError, ModelFileError, UsageError
from i2sb_rt.model_info import BRIDGE_SAMPLERS

U8 = NDArray[np.uint8]
MakeModel = Callable[..., Path]


def luma(colour: U8) -> U8:
    return np.asarray(Image.fromarray(colour).convert("L"))


def test_restores_as_the_plan_says(make_model: MakeModel, photo: U8) -> None:
    """A restore in NumPy, straight from the definition, of a photo that needs padding on both sides."""
    kernel_free = make_model(side=1, scale=0.05, nfe=1, sampler="ode", clip=True)
    restorer = load(kernel_free, precision="fp32")
    padded = np.pad(photo, ((0, 3), (0, 3), (0, 0)), mode="reflect")
    x1 = padded.astype(np.float32).transpose(2, 0, 1) / 127.5 - 1
    kernel = np.random.default_rng(7).standard_normal((3, 3, 1, 1)).astype(np.float32) * np.float32(0.05)
    schedule = Schedule(100, 0.3)
    out = np.tanh(np.einsum("oi,ihw->ohw", kernel[:, :, 0, 0], x1)) + 1e-4 * schedule.noise_levels[-1]
    x0 = (x1 - schedule.std_fwd[-1] * out).clip(-1, 1)
    weight = schedule.std_fwd[0] ** 2 / schedule.std_fwd[-1] ** 2
    wanted = np.rint(((1 - weight) * x0 + weight * x1 + 1) * 127.5).clip(0, 255)[:, :37, :53].transpose(1, 2, 0)
    result = restorer.restore(photo)
    assert result.dtype == np.uint8
    assert np.abs(result.astype(int) - wanted).max() <= 1
    assert (result == wanted).mean() > 0.999
    assert (result != photo).any()


def test_each_image_comes_back_as_what_it_was_given_as(toy: Restorer, photo: U8) -> None:
    alpha = np.random.default_rng(0).integers(0, 256, photo.shape[:2], dtype=np.uint8)
    colour, grey = toy.restore(photo), luma(toy.restore(np.repeat(photo[..., :1], 3, axis=2)))
    assert colour.shape == photo.shape
    np.testing.assert_array_equal(toy.restore(photo[..., 0]), grey)
    np.testing.assert_array_equal(toy.restore(photo[..., :1])[..., 0], grey)
    np.testing.assert_array_equal(toy.restore(np.dstack([photo[..., 0], alpha])), np.dstack([grey, alpha]))
    np.testing.assert_array_equal(toy.restore(np.dstack([photo, alpha])), np.dstack([colour, alpha]))
    image = toy.restore(Image.fromarray(np.dstack([photo, alpha])))
    assert isinstance(image, Image.Image)
    np.testing.assert_array_equal(np.asarray(image), np.dstack([colour, alpha]))
    both = toy.restore([photo, Image.fromarray(photo[..., 0])])
    np.testing.assert_array_equal(both[0], colour)
    assert both[1].mode == "L"
    assert toy.restore([]) == []
    np.testing.assert_array_equal(toy.restore(photo[::-1][::-1]), colour)


def test_grey_stays_grey_and_white_stays_white(make_model: MakeModel) -> None:
    restorer = load(make_model(scale=0.0, t0=0.0, T=1e-9), precision="fp32")
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16)
    np.testing.assert_array_equal(restorer.restore(ramp, nfe=1), ramp)


def test_the_seed_makes_the_noise(toy: Restorer, photo: U8) -> None:
    first = toy.restore(photo, nfe=4, seed=1)
    np.testing.assert_array_equal(toy.restore(photo, nfe=4, seed=1), first)
    assert (toy.restore(photo, nfe=4, seed=2) != first).any()
    both = toy.restore([photo, photo], nfe=4, seed=[2, 1])
    np.testing.assert_array_equal(both[1], first)
    assert (both[0] != both[1]).any()
    same = toy.restore([photo, photo], nfe=4, seed=1)
    np.testing.assert_array_equal(same[0], same[1])
    deterministic = [toy.restore(photo, nfe=4, sampler="ode", seed=seed) for seed in (1, 2)]
    np.testing.assert_array_equal(*deterministic)


def turned(image: U8, way: int) -> U8:
    image = image[:, ::-1] if way & 1 else image
    image = image[::-1] if way & 2 else image
    return np.ascontiguousarray(image.swapaxes(0, 1) if way & 4 else image)


def laid_back(image: U8, way: int) -> U8:
    image = image.swapaxes(0, 1) if way & 4 else image
    image = image[::-1] if way & 2 else image
    return image[:, ::-1] if way & 1 else image


@pytest.mark.parametrize("ensemble", [2, 4, 8])
@pytest.mark.parametrize("tile", [0, 16])
def test_an_ensemble_is_the_mean_over_mirrored_and_turned_images(toy: Restorer, ensemble: int, tile: int) -> None:
    image = np.random.default_rng(3).integers(0, 256, (32, 48, 3), dtype=np.uint8)  # needs no padding
    options: dict[str, Any] = {"nfe": 3, "seed": 5, "tile": tile}
    each = [laid_back(toy.restore(turned(image, way), **options), way) for way in range(ensemble)]
    assert all((one != each[0]).mean() > 0.2 for one in each[1:])
    found = toy.restore(image, ensemble=ensemble, **options)
    assert np.abs(found - np.mean(each, 0)).max() <= 1.01
    np.testing.assert_array_equal(toy.restore(image, ensemble=1, **options), each[0])


def test_an_ensemble_takes_any_size_and_tells_of_all_its_rows(toy: Restorer, photo: U8) -> None:
    told: list[tuple[str, int, int]] = []
    result = toy.restore(photo, nfe=3, ensemble=8, observer=lambda *event: told.append(event[:3]))
    assert result.shape == photo.shape
    assert [row for phase, row, _ in told if phase == "step"] == list(range(24))
    assert [row for phase, row, _ in told if phase == "prepare"] == list(range(0, 24, 3))
    assert told[-1] == ("finish", 23, 24)
    assert {rows for _, _, rows in told} == {24}
    for refused in (0, 3, 16, "8"):
        with pytest.raises(UsageError, match="ensemble is 1, 2, 4 or 8, not"):
            toy.restore(photo, ensemble=refused)


def test_neither_company_nor_order_nor_threads_change_a_byte(toy_path: Path, photo: U8) -> None:
    rng = np.random.default_rng(4)
    images = [
        rng.integers(0, 256, (*shape, 3), dtype=np.uint8) for shape in ((16, 16), (37, 53), (8, 70), (1, 1), (90, 9))
    ]
    images += [photo, photo[::2]]
    seeds = list(range(7))
    two = load(toy_path, threads=2)
    together = two.restore(images, nfe=3, seed=seeds, threads=2)
    one = load(toy_path, threads=1)
    for index in (5, 2, 0, 6, 4, 1, 3):
        np.testing.assert_array_equal(one.restore(images[index], nfe=3, seed=seeds[index], threads=1), together[index])
        np.testing.assert_array_equal(two.restore(images[index], nfe=3, seed=seeds[index]), together[index])
    for threads, jobs in ((1, 2), (3, 3), (2, 7)):
        at_once = load(toy_path, threads=threads, jobs=jobs).restore(images, nfe=3, seed=seeds)
        for one_result, result in zip(together, at_once, strict=True):
            np.testing.assert_array_equal(result, one_result)


def test_a_pointwise_network_does_not_see_the_tiles(make_model: MakeModel) -> None:
    restorer = load(make_model(side=1, scale=0.3), precision="fp32")
    image = np.random.default_rng(8).integers(0, 256, (75, 101, 3), dtype=np.uint8)
    whole = restorer.restore(image, nfe=3, seed=5, tile=0)
    for tile, overlap in ((32, 0), (32, 16), (48, 32), (64, None)):
        tiled = restorer.restore(image, nfe=3, seed=5, tile=tile, overlap=overlap)
        np.testing.assert_array_equal(tiled, whole)
    assert restorer.tile_of(101, 75, tile=32, overlap=0) == 32
    assert restorer.tile_of(101, 75) == 64
    assert restorer.tile_of(64, 64) == 0


def test_known_pixels_come_back_as_they_were(make_model: MakeModel, photo: U8) -> None:
    toy = load(make_model(task="inpaint"), precision="fp32")
    mask = np.zeros(photo.shape[:2], np.uint8)
    mask[5:20, 10:40] = 255
    result = toy.restore(photo, nfe=3, mask=mask)
    np.testing.assert_array_equal(result[mask == 0], photo[mask == 0])
    assert (result[mask != 0] != photo[mask != 0]).mean() > 0.5
    for other in (mask != 0, mask // 255, Image.fromarray(mask), Image.fromarray(mask).convert("1")):
        np.testing.assert_array_equal(toy.restore(photo, nfe=3, mask=other), result)
    both = toy.restore([photo, photo], nfe=3, mask=[mask, 255 - mask])
    np.testing.assert_array_equal(both[0], result)
    assert (both[1] != result).any()


def test_an_image_that_stands_in_a_list_twice_is_read_once(
    toy_path: Path, photo: U8, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    restorer = load(toy_path, jobs=4)
    monkeypatch.setattr(restorer, "restore_picture", lambda picture, *_: picture)
    Image.fromarray(np.tile(photo, (8, 8, 1))).save(tmp_path / "large.png")
    with Image.open(tmp_path / "large.png") as image:
        for found in restorer.restore([image] * 8):
            np.testing.assert_array_equal(np.asarray(found), np.tile(photo, (8, 8, 1)))


def test_pytorch_says_that_it_was_forked(toy: Restorer, photo: U8) -> None:
    restorer = load("jpeg", engine="torch")
    restorer.engine._process -= 1  # type: ignore[attr-defined]
    with pytest.raises(DeviceError, match="does not survive a fork"):
        restorer.restore(photo)


def test_the_model_tells_the_defaults(make_model: MakeModel, photo: U8) -> None:
    restorer = load(make_model(nfe=3, sampler="ode"), precision="fp32")
    np.testing.assert_array_equal(restorer.restore(photo), restorer.restore(photo, nfe=3, sampler="ode"))
    assert (restorer.restore(photo) != restorer.restore(photo, nfe=3, sampler="sde")).any()
    assert restorer.plan().clip
    assert not load(make_model(clip=False)).plan().clip


def test_a_bridge_without_noise_is_run_without_noise(make_model: MakeModel, photo: U8) -> None:
    restorer = load(make_model(ot_ode=True, sampler="ode"))
    restorer.restore(photo, sampler="ode")
    for sampler in set(BRIDGE_SAMPLERS) - {"ode"}:
        with pytest.raises(UsageError, match=rf"trained without noise.* takes the sampler ode, not {sampler}$"):
            restorer.restore(photo, sampler=sampler)
        with pytest.raises(ModelFileError, match="trained without"):
            make_model(ot_ode=True, sampler=sampler)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"nfe": 0}, "at least 1"),
        ({"nfe": 100}, "from 1 to 99"),
        ({"sampler": "euler"}, "sde, ode, dbim1, dbim2, dbim3 and i3sb"),
        ({"seed": -1}, "seed"),
        ({"seed": [1, 2]}, "2 seeds for 1"),
        ({"seed": 1.5}, "integer"),
        ({"tile": -4}, "tile"),
        ({"tile": "big"}, "tile"),
        ({"tile": 40}, "multiple"),
        ({"tile": 32, "overlap": 32}, "overlap"),
        ({"overlap": -1}, "overlap"),
        ({"eta": 0.5}, "not of sde"),
        ({"sampler": "dbim1", "eta": 1.5}, "eta must be a number from 0 to 1"),
        ({"mask": np.zeros((3, 3), np.uint8)}, r"mask has the shape \[3, 3\]"),
        ({"mask": np.full((37, 53), 7, np.uint8)}, "between"),
        ({"mask": [np.zeros((37, 53), bool)] * 2}, "2 masks"),
        ({"images": np.zeros((4, 4, 3), np.float32)}, "float32"),
        ({"images": np.zeros((4, 4, 5), np.uint8)}, "shape"),
        ({"images": "photo.jpg"}, "str"),
    ],
)
def test_refuses_what_does_not_fit(toy: Restorer, photo: U8, wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        toy.restore(**{"images": photo, **wrong})


def test_an_observer_sees_all_and_may_stop(toy: Restorer, photo: U8) -> None:
    seen: list[tuple[str, int, int]] = []
    toy.restore(photo, nfe=2, observer=lambda phase, row, rows, *rest: seen.append((phase, row, rows)))
    assert [event for event in seen if event[0] == "network"] == [("network", 0, 2), ("network", 1, 2)]
    assert {phase for phase, _, _ in seen} == {"prepare", "network", "step", "finish"}
    with pytest.raises(CancelledError):
        toy.restore(photo, nfe=2, observer=lambda phase, *rest: phase == "network")


def test_a_fault_of_one_image_is_told_and_the_others_are_unharmed(toy_path: Path, photo: U8) -> None:
    restorer = load(toy_path, jobs=2)
    wanted = restorer.restore(photo)
    with pytest.raises(UsageError, match="uint8"):
        restorer.restore([photo, photo.astype(np.float32), photo])
    np.testing.assert_array_equal(restorer.restore(photo), wanted)


def test_says_what_it_runs_on(toy: Restorer, toy_path: Path) -> None:
    assert (toy.engine_name, toy.precision) == ("native", "fp32")
    if load(toy_path).precision == "bf16":
        assert load(toy_path, precision="bf16").precision == "bf16"
    else:
        with pytest.raises(DeviceError, match="bf16"):
            load(toy_path, precision="bf16")


def test_refuses_unknown_engines_models_and_numbers(toy_path: Path, tmp_path: Path) -> None:
    for options in (
        {"engine": "vulkan"},
        {"engine": "native", "precision": "fp16"},
        {"precision": "fp8"},
        {"threads": 0},
        {"jobs": 0},
        {"jobs": 257},
    ):
        with pytest.raises(UsageError):
            load(toy_path, **options)
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(toy_path.read_bytes()[:200])
    for path in (broken, tmp_path / "none.onnx", tmp_path / "weights.bin", "unheard-of"):
        with pytest.raises(ModelFileError):
            load(path)


def test_a_named_openvino_must_exist(toy_path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("I2SB_RT_OPENVINO", str(tmp_path / "libnothing.so"))
    with pytest.raises(DeviceError, match="I2SB_RT_OPENVINO"):
        load(toy_path)
    (tmp_path / "libnothing.so").write_bytes(b"not a library")
    with pytest.raises(DeviceError):
        load(toy_path)


def test_finds_the_installed_openvino_without_importing_it() -> None:
    library = openvino_library()
    assert library is not None
    assert Path(library).name.startswith("libopenvino_c.so")


def test_the_cache_folder_is_the_users_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("I2SB_RT_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    folder = cache_folder("openvino")
    assert folder == tmp_path / "xdg" / "i2sb-rt" / "openvino"
    assert folder.stat().st_mode & 0o777 == 0o700
    folder.chmod(0o777)
    assert cache_folder("openvino") is None
    monkeypatch.setenv("I2SB_RT_CACHE", str(tmp_path / "own"))
    assert cache_folder("openvino") == tmp_path / "own" / "openvino"
    (tmp_path / "file").touch()
    monkeypatch.setenv("I2SB_RT_CACHE", str(tmp_path / "file"))
    assert cache_folder("openvino") is None


def test_a_cache_keeps_what_was_used_last(tmp_path: Path) -> None:
    for age in range(6):
        (tmp_path / str(age)).touch()
        os.utime(tmp_path / str(age), (1e9 - age, 1e9 - 100))
    os.utime(tmp_path / "5", (0, 2e9))
    for name, used in (("old", 0), ("new", 3e9)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").touch()
        for path in (tmp_path / name / "file", tmp_path / name):
            os.utime(path, (used, used))
    prune(tmp_path, 4)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "1", "5", "new"]


def test_models_are_found_by_name_and_by_path(toy_path: Path) -> None:
    assert models.find(toy_path) == toy_path
    for name in models.names():
        assert models.find(name).name == f"{name}.onnx"
    with pytest.raises(ModelFileError, match="come with i2sb-rt"):
        models.find("unheard-of")


def test_a_model_path_that_is_not_utf8_is_refused(toy_path: Path, tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"caf\xe9.onnx")
    path.write_bytes(toy_path.read_bytes())
    with pytest.raises(ModelFileError, match=r"caf.udce9\.onnx' is not UTF-8"):
        models.find(path)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"nfe": 1.5}, r"nfe is a whole number, not 1\.5"),
        ({"nfe": "3"}, "nfe is a whole number, not '3'"),
        ({"eta": "x", "sampler": "dbim1"}, "eta must be a number from 0 to 1, not 'x'"),
        ({"eta": float("nan"), "sampler": "dbim1"}, "eta must be a number from 0 to 1, not nan"),
        ({"tile": 64.0}, r"tile is a whole number, not 64\.0"),
        ({"tile": None}, "or the side of a tile in pixels, not None"),
        ({"tile": 32, "overlap": 2.5}, r"overlap is a whole number, not 2\.5"),
        ({"overlap": 800}, "tile overlap 800"),
    ],
)
def test_values_of_another_type_are_usage_errors(toy: Restorer, photo: U8, options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        toy.restore(photo, **options)


def test_whole_numbers_and_shares_of_any_type_are_taken(toy: Restorer, photo: U8) -> None:
    given: dict[str, Any] = {"nfe": np.int64(2), "tile": np.int32(32), "overlap": np.uint8(16), "seed": np.uint64(3)}
    out = toy.restore(photo, sampler="dbim1", eta=np.float32(0.5), **given)
    np.testing.assert_array_equal(out, toy.restore(photo, 2, "dbim1", 0.5, tile=32, overlap=16, seed=3))


def test_what_is_no_model_and_no_plan_is_a_usage_error(toy: Restorer) -> None:
    with pytest.raises(UsageError, match="a model is a name or a path, not NoneType"):
        load(None)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="threads is a whole number"):
        load(toy.path, threads=1.5)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="a plan is a Plan, such as Plan"):
        i2sb_rt.sample(np.add, np.zeros((1, 3, 8, 8), np.float32), toy.plan().rows)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="x1 is no array of numbers"):
        i2sb_rt.sample(np.add, "x1", toy.plan())


def test_the_short_form_keeps_its_model(toy_path: Path, toy: Restorer, photo: U8) -> None:
    first = i2sb_rt.restore(photo, model=toy_path, seed=3)
    np.testing.assert_array_equal(first, load(toy_path).restore(photo, seed=3))
    image = i2sb_rt.restore(Image.fromarray(photo), model=toy_path, seed=3)
    np.testing.assert_array_equal(np.asarray(image), first)
