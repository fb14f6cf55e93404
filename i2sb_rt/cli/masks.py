"""The masks of i2sb-rt restore: which file is whose, and what of it is a hole."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

from i2sb_rt.cli.jobs import Job, is_folder, is_there
from i2sb_rt.errors import ImageFormatError, ImageMissingError, UsageError
from i2sb_rt.image import FORMATS, U8, Picture, read

WHITE: Final = 128


class Masks:
    """One mask for every image, or a folder of one each. path: the file or the folder; invert: black is the hole.

    max_pixels: of a mask. Raises UsageError where there is no such file or folder.
    """

    def __init__(self, path: Path, invert: bool, max_pixels: int) -> None:
        if not is_there(path):
            raise UsageError(f"--mask {path}: there is no such file or folder")
        self.path, self.invert, self.max_pixels = path, invert, max_pixels
        self._listed: dict[Path, dict[str, list[Path]]] = {}

    def file_of(self, job: Job) -> Path:
        """Return the mask's file: the file itself, or in a folder the one with the image's path and any ending.

        Raises ImageMissingError where the folder has none, UsageError for standard input, which has no name.
        """
        if not is_folder(self.path):
            return self.path
        if job.relative is None:
            raise UsageError("standard input has no name to find its mask by: --mask takes a file with it")
        wanted = self.path / job.relative
        endings = list(dict.fromkeys((wanted.suffix.lower(), *FORMATS)))
        found = [file for file in self._files(wanted.parent).get(wanted.stem, []) if file.suffix.lower() in endings]
        if found:
            return min(found, key=lambda file: (file != wanted, endings.index(file.suffix.lower()), file))
        wanted = wanted.with_suffix(".png")
        raise ImageMissingError(f"{job.source_name} has no mask: there is no {wanted}, nor one with another ending")

    def _files(self, folder: Path) -> dict[str, list[Path]]:
        """Return the files in a folder by their names without endings; it is listed once."""
        if folder not in self._listed:
            files: dict[str, list[Path]] = {}
            try:
                for file in folder.iterdir():
                    if not is_folder(file):
                        files.setdefault(file.stem, []).append(file)
            except FileNotFoundError:
                pass
            except OSError as error:
                raise ImageMissingError(f"the masks in {folder} cannot be read: {error.strerror}") from error
            self._listed[folder] = files
        return self._listed[folder]

    def hole_of(self, file: Path, picture: Picture, image: str) -> U8:
        """Return the hole, uint8 [H, W], 1 where the mask is white: 128 to 255 of a grey or colour file.

        image: what the mask is for, in messages. Raises ImageError for a file that cannot be read, ImageFormatError
        for one with transparency, UsageError for another size than the picture's, and where nothing is known.
        """
        mask = read(file, self.max_pixels)
        if mask.alpha is not None and (mask.alpha != 255).any():
            raise ImageFormatError(f"the mask {file} has transparency; it is white in the hole and black elsewhere")
        if (mask.width, mask.height) != (picture.width, picture.height):
            sizes = f"{mask.width} x {mask.height} pixels, {image} {picture.width} x {picture.height}"
            raise UsageError(f"the mask {file} has {sizes}; they must be of one size")
        grey = mask.colour if mask.colour.ndim == 2 else np.asarray(Image.fromarray(mask.colour).convert("L"))
        hole = np.asarray((grey >= WHITE) != self.invert, np.uint8)
        if hole.all():
            side = "black" if self.invert else "white"
            raise UsageError(
                f"the mask {file} is {side} all over, so nothing of {image} is known; "
                "--mask-invert turns round which side is the hole"
            )
        return hole
