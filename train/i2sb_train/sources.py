"""Where clean pictures, or pairs of a clean and a damaged one, are read from: folders of files, and WebDataset shards.

A shard is an uncompressed tar of pictures; of pairs, KEY.clean.EXT and KEY.damaged.EXT. It is read by offsets, so that
any picture can be had at any time, and which one a training sample shows need not depend on a reader's position.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from i2sb_rt.errors import UsageError
from i2sb_train.recipe import Recipe, RecipeError

Pixels = NDArray[np.uint8]
Picture = tuple[Pixels, ...]
"""A clean picture, uint8 [H, W, 3], alone; or a pair of it and the damaged one, of the same shape."""

FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP")
SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp"}


class Place(NamedTuple):
    """The bytes of a picture: a whole file, or `size` bytes of a shard from `offset` on."""

    path: Path
    member: str = ""
    offset: int = 0
    size: int = -1

    @property
    def stem(self) -> str:
        """The name without folders and endings, by which pictures are held out."""
        return Path(self.member).name.partition(".")[0] if self.member else self.path.stem

    def __str__(self) -> str:
        return f"{self.path}:{self.member}" if self.member else str(self.path)

    def pixels(self) -> Pixels:
        """Decode as uint8 RGB [H, W, 3], turned as the EXIF orientation says; UsageError if that cannot be."""
        try:
            with self.path.open("rb") as file:
                file.seek(self.offset)
                with Image.open(io.BytesIO(file.read(self.size)), formats=FORMATS) as image:
                    return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
        except (OSError, Image.DecompressionBombError) as error:
            raise UsageError(f"{self}: cannot be read as a picture ({error}).") from error


class Stored(Sequence[Picture]):
    """Pictures on a disk. As many of the first as fit into `memory` bytes are decoded once, the others at each use."""

    def __init__(self, places: Sequence[tuple[Place, ...]], factor: int = 1, memory: int = 0) -> None:
        self.places = places
        self.factor = factor
        self.kept: list[Picture] = []
        for number in range(len(places)):
            if memory <= 0:
                break
            self.kept.append(self._read(number))
            memory -= sum(pixels.nbytes for pixels in self.kept[-1])

    def __len__(self) -> int:
        return len(self.places)

    @overload
    def __getitem__(self, number: int) -> Picture: ...
    @overload
    def __getitem__(self, number: slice) -> Sequence[Picture]: ...
    def __getitem__(self, number: int | slice) -> Picture | Sequence[Picture]:
        if isinstance(number, slice):
            return [self[i] for i in range(*number.indices(len(self)))]
        return self.kept[number] if number < len(self.kept) else self._read(number)

    def _read(self, number: int) -> Picture:
        clean, *damaged = self.places[number]
        picture = clean.pixels()
        if not damaged:
            return (picture,)
        other = damaged[0].pixels()
        if other.shape[0] * self.factor != picture.shape[0] or other.shape[1] * self.factor != picture.shape[1]:
            sizes = (f"{p.shape[1]} x {p.shape[0]}" for p in (other, picture))
            raise UsageError(
                f"{damaged[0]} and {clean}: {' and '.join(sizes)} pixels are no pair; the clean picture must be "
                f"{'as large' if self.factor == 1 else f'{self.factor} times as large'} (degradation.factor)."
            )
        return picture, other.repeat(self.factor, axis=0).repeat(self.factor, axis=1)


def find(recipe: Recipe, folders: Sequence[Path], damaged: Sequence[Path] = ()) -> list[tuple[Place, ...]]:
    """List every picture below the folders, sorted, in files and in shards; for kind "paired", every pair.

    damaged: for each folder, the one that holds the damaged twins, under the same names (but for their endings); none
    if all pairs lie in shards. Raises RecipeError for a folder that is missing or holds none, and for a lone twin.
    """
    paired = recipe.degradation.kind == "paired"
    if damaged and len(damaged) != len(folders):
        raise RecipeError(f"{len(folders)} folders of clean pictures and {len(damaged)} of damaged ones do not match.")
    found: list[tuple[Place, ...]] = []
    for i, folder in enumerate(folders):
        inside = _files(folder)
        here = _pairs(folder, inside, damaged[i]) if paired and damaged else [(p,) for p in inside]
        if paired and not damaged and here:
            raise RecipeError(
                f"{folder}: holds pictures, but no folder of their damaged twins is given (data.damaged)."
            )
        for shard in sorted(folder.rglob("*.tar")):
            here += _shard_pairs(shard) if paired else [(place,) for place in _members(shard)]
        if not here:
            raise RecipeError(f"the data folder {folder} holds no {'pairs' if paired else 'pictures'}.")
        found += here
    return found


def _files(folder: Path) -> list[Place]:
    if not folder.is_dir():
        raise RecipeError(f"the data folder {folder} does not exist; name another with --data.")
    return [Place(p) for p in sorted(folder.rglob("*")) if p.suffix.lower() in SUFFIXES and p.is_file()]


def _pairs(clean: Path, places: Iterable[Place], damaged: Path) -> list[tuple[Place, ...]]:
    twins = {place.path.relative_to(damaged).with_suffix(""): place for place in _files(damaged)}
    pairs: list[tuple[Place, ...]] = []
    for place in places:
        twin = twins.get(place.path.relative_to(clean).with_suffix(""))
        if twin is None:
            raise RecipeError(f"{place}: has no damaged twin in {damaged}.")
        pairs.append((place, twin))
    return pairs


def _members(shard: Path) -> Iterator[Place]:
    try:
        with tarfile.open(shard, "r:") as archive:
            for member in archive:
                if member.isreg() and Path(member.name).suffix.lower() in SUFFIXES:
                    yield Place(shard, member.name, member.offset_data, member.size)
    except (OSError, tarfile.TarError) as error:
        raise RecipeError(f"{shard}: cannot be read as an uncompressed tar ({error}).") from error


def _shard_pairs(shard: Path) -> list[tuple[Place, ...]]:
    halves: dict[str, dict[str, Place]] = {}
    for place in _members(shard):
        name = Path(place.member)
        key, _, part = name.with_suffix("").name.rpartition(".")
        if part not in ("clean", "damaged"):
            raise RecipeError(f"{place}: is neither KEY.clean{name.suffix} nor KEY.damaged{name.suffix}.")
        halves.setdefault(str(name.with_name(key)), {})[part] = place
    for key, parts in halves.items():
        if len(parts) < 2:
            raise RecipeError(f"{shard}: {key} has no {'damaged' if 'clean' in parts else 'clean'} twin.")
    return [(parts["clean"], parts["damaged"]) for parts in halves.values()]


def split_holdout(
    places: Sequence[tuple[Place, ...]], names: Sequence[str]
) -> tuple[list[tuple[Place, ...]], list[tuple[Place, ...]]]:
    """Part the pictures into those to train on and the held-out ones; variants NAME_* of a held-out one are in neither.

    RecipeError where a name matches no picture: a mistyped name would train on what it should not.
    """
    stems = [clean.stem for clean, *_ in places]
    for name in set(names) - set(stems):
        raise RecipeError(f"data.holdout names {name!r}, but no such picture is there.")
    held = set(names)
    variants = tuple(f"{name}_" for name in names)
    kept = [
        place for place, stem in zip(places, stems, strict=True) if stem not in held and not stem.startswith(variants)
    ]
    return kept, [place for place, stem in zip(places, stems, strict=True) if stem in held]
