"""Where pictures come from: folders, shards and pairs; and what is said of those that do not fit."""

import io
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from i2sb_rt.errors import UsageError
from i2sb_train.recipe import Recipe, RecipeError
from i2sb_train.sources import Place, Stored, find, split_holdout

MakeRecipe = Callable[..., Recipe]
PAIRED: dict[str, Any] = {
    "data": {"folders": ["clean"], "damaged": ["damaged"], "procedural": 0.0},
    "degradation": {"kind": "paired"},
}


def picture(number: int, size: tuple[int, int] = (6, 5)) -> np.ndarray[Any, Any]:
    return np.random.default_rng(number).integers(0, 256, (*size, 3), dtype=np.uint8)


def put(path: Path, number: int, size: tuple[int, int] = (6, 5)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture(number, size)).save(path)


def shard(path: Path, members: dict[str, bytes | int], mode: str = "w") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, content in members.items():
            data = content if isinstance(content, bytes) else png(content)
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


def png(number: int) -> bytes:
    out = io.BytesIO()
    Image.fromarray(picture(number)).save(out, "PNG")
    return out.getvalue()


def test_pictures_are_listed_sorted_and_recursively(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    for name in ("b.png", "sub/a.JPG", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert [str(clean.path.relative_to(tmp_path)) for (clean,) in find(make_recipe(), [tmp_path])] == [
        "b.png",
        "sub/a.JPG",
    ]
    with pytest.raises(RecipeError, match="does not exist"):
        find(make_recipe(), [tmp_path / "none"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(RecipeError, match="holds no pictures"):
        find(make_recipe(), [tmp_path / "empty"])


def test_shards_are_read_by_offset_and_in_any_order(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    put(tmp_path / "lone.png", 9)
    shard(tmp_path / "s" / "b.tar", {"x/3.png": 3, "x/3.json": b"{}", "x/4.png": 4})
    shard(tmp_path / "s" / "a.tar", {"0.png": 0, "1.png": 1, "2.cls": b"7"})
    places = find(make_recipe(), [tmp_path])
    assert [clean.stem for (clean,) in places] == ["lone", "0", "1", "3", "4"]
    assert str(places[3][0]).endswith("b.tar:x/3.png")
    stored = Stored(places)
    for number, seed in ((4, 4), (0, 9), (3, 3), (1, 0), (2, 1), (4, 4)):
        assert np.array_equal(stored[number][0], picture(seed))
    assert [len(pictures) for pictures in stored[1:3]] == [1, 1]


def test_as_many_pictures_are_kept_as_fit(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    for i in range(3):
        put(tmp_path / f"{i}.png", i)
    places = find(make_recipe(), [tmp_path])
    assert [len(Stored(places, memory=memory).kept) for memory in (0, 1, 90, 91, 10**6)] == [0, 1, 1, 2, 3]
    (tmp_path / "0.png").unlink()
    kept = Stored(places[1:], memory=10**6)
    (tmp_path / "1.png").unlink()
    assert np.array_equal(kept[0][0], picture(1))


def test_twins_are_found_by_their_names(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    for i, name in enumerate(("a.png", "sub/b.png")):
        put(tmp_path / "clean" / name, i)
        put((tmp_path / "damaged" / name).with_suffix(".bmp"), i + 10)
    recipe = make_recipe(**PAIRED)
    pairs = find(recipe, [tmp_path / "clean"], [tmp_path / "damaged"])
    stored = Stored(pairs)
    for i in range(2):
        for pixels, seed in zip(stored[i], (i, i + 10), strict=True):
            assert np.array_equal(pixels, picture(seed))
    put(tmp_path / "clean" / "lonely.png", 5)
    with pytest.raises(RecipeError, match=r"lonely\.png: has no damaged twin in .*damaged"):
        find(recipe, [tmp_path / "clean"], [tmp_path / "damaged"])
    with pytest.raises(RecipeError, match=r"no folder of their damaged twins"):
        find(recipe, [tmp_path / "clean"])
    with pytest.raises(RecipeError, match="1 folders of clean pictures and 2 of damaged"):
        find(recipe, [tmp_path / "clean"], [tmp_path / "damaged"] * 2)


def test_pairs_in_shards(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    shard(tmp_path / "p.tar", {"d/1.clean.png": 1, "d/1.damaged.png": 2, "d/2.damaged.png": 4, "d/2.clean.png": 3})
    recipe = make_recipe(**PAIRED)
    pairs = find(recipe, [tmp_path])
    assert [clean.stem for clean, _ in pairs] == ["1", "2"]
    assert all(np.array_equal(a, picture(b)) for a, b in zip(Stored(pairs)[1], (3, 4), strict=True))
    shard(tmp_path / "p.tar", {"1.clean.png": 1, "1.damaged.png": 2, "2.clean.png": 3})
    with pytest.raises(RecipeError, match=r"p\.tar: 2 has no damaged twin"):
        find(recipe, [tmp_path])
    shard(tmp_path / "p.tar", {"1.png": 1})
    with pytest.raises(RecipeError, match=r"1\.png: is neither KEY\.clean\.png nor KEY\.damaged\.png"):
        find(recipe, [tmp_path])


def test_a_compressed_or_broken_shard_is_refused(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    shard(tmp_path / "c.tar", {"1.png": 1}, "w:gz")
    with pytest.raises(RecipeError, match=r"c\.tar: cannot be read as an uncompressed tar"):
        find(make_recipe(), [tmp_path])
    (tmp_path / "c.tar").write_bytes(b"no tar at all" * 100)
    with pytest.raises(RecipeError, match=r"c\.tar: cannot be read"):
        find(make_recipe(), [tmp_path])


def test_small_twins_are_enlarged_and_others_refused(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    put(tmp_path / "clean" / "a.png", 0, (8, 12))
    put(tmp_path / "damaged" / "a.png", 1, (4, 6))
    places = [(Place(tmp_path / "clean" / "a.png"), Place(tmp_path / "damaged" / "a.png"))]
    clean, damaged = Stored(places, factor=2)[0]
    assert clean.shape == damaged.shape == (8, 12, 3)
    assert np.array_equal(damaged[::2, 1::2], picture(1, (4, 6)))
    with pytest.raises(UsageError, match=r"6 x 4 and 12 x 8 pixels are no pair.*as large"):
        Stored(places)[0]
    with pytest.raises(UsageError, match="4 times as large"):
        Stored(places, factor=4)[0]


def test_held_out_pictures_and_their_variants_are_not_trained_on() -> None:
    places = [(Place(Path(f"{stem}.jpg")),) for stem in ("a_1", "a_1_crop0", "a_12", "b")]
    kept, held = split_holdout(places, ["a_1"])
    assert [clean.stem for (clean,) in kept] == ["a_12", "b"]
    assert [clean.stem for (clean,) in held] == ["a_1"]
    assert split_holdout(places, []) == (places, [])
    with pytest.raises(RecipeError, match="'a_2'"):
        split_holdout(places, ["a_2"])


def test_pictures_are_read_upright_or_refused(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = 6
    Image.new("L", (4, 8)).save(tmp_path / "turned.jpg", exif=exif)
    assert Place(tmp_path / "turned.jpg").pixels().shape == (4, 8, 3)
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    with pytest.raises(UsageError, match=r"broken\.jpg: cannot be read"):
        Place(tmp_path / "broken.jpg").pixels()
