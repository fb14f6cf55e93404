import io
import os
import stat
import struct
import zlib
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray
from PIL import Image, ImageCms

from i2sb_rt.errors import (
    ImageBrokenError,
    ImageFormatError,
    ImageMissingError,
    ImageTooLargeError,
    OutputError,
    UsageError,
)
from i2sb_rt.image import Picture, encode, from_array, from_pil, read, to_array, to_pil, write

U8 = NDArray[np.uint8]
RNG = np.random.default_rng(3)
GREY, ALPHA = RNG.integers(0, 256, (2, 5, 7), dtype=np.uint8)
RGB = RNG.integers(0, 256, (5, 7, 3), dtype=np.uint8)
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
LOSSLESS = ["PNG", "WEBP", "TIFF"]


def file_of(image: Image.Image, kind: str, **options: Any) -> io.BytesIO:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    buffer.seek(0)
    return buffer


def same(picture: Picture, colour: U8, alpha: U8 | None = None) -> None:
    np.testing.assert_array_equal(picture.colour, colour)
    assert (picture.alpha is None) == (alpha is None)
    if alpha is not None:
        np.testing.assert_array_equal(picture.alpha, alpha)


def palette_image(transparency: bool) -> tuple[Image.Image, U8, U8]:
    """An image of 4 colours, its RGB and its alpha where index 1 is clear and index 2 half."""
    indices = np.arange(35, dtype=np.uint8).reshape(5, 7) % 4
    colours = np.array([[250, 0, 5], [0, 240, 9], [7, 8, 230], [99, 98, 97]], np.uint8)
    image = Image.fromarray(indices, "P")
    image.putpalette(colours.tobytes())
    levels = np.array([255, 0, 128, 255], np.uint8)
    if transparency:
        image.info["transparency"] = levels.tobytes()
    return image, colours[indices], levels[indices]


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_reads_every_mode(kind: str) -> None:
    same(read(file_of(Image.fromarray(GREY), kind)), GREY)
    same(read(file_of(Image.fromarray(RGB), kind)), RGB)
    same(read(file_of(Image.fromarray(np.dstack([RGB, ALPHA])), kind)), RGB, ALPHA)
    same(read(file_of(Image.fromarray(np.dstack([GREY, ALPHA])), kind)), GREY, ALPHA)
    bits = (GREY > 127).astype(np.uint8) * 255
    same(read(file_of(Image.fromarray(bits).convert("1"), kind)), bits)
    palette, colour, _ = palette_image(transparency=False)
    same(read(file_of(palette, kind)), colour)


def test_reads_transparent_colours_of_png() -> None:
    palette, colour, alpha = palette_image(transparency=True)
    same(read(file_of(palette, "PNG", transparency=palette.info["transparency"])), colour, alpha)
    key = read(file_of(Image.fromarray(GREY), "PNG", transparency=int(GREY[2, 3])))
    same(key, GREY, np.where(GREY[2, 3] == GREY, 0, 255).astype(np.uint8))
    rgb_key = tuple(int(value) for value in RGB[1, 1])
    opaque = (RGB[1, 1] == RGB).all(axis=-1)
    same(
        read(file_of(Image.fromarray(RGB), "PNG", transparency=rgb_key)), RGB, np.where(opaque, 0, 255).astype(np.uint8)
    )


def test_reads_jpeg_grey_and_colour() -> None:
    for array in (GREY, RGB):
        file = file_of(Image.fromarray(array), "JPEG", quality=90)
        with Image.open(io.BytesIO(file.getvalue())) as image:
            wanted = np.asarray(image)
        same(read(file), wanted)


def test_cmyk_becomes_rgb_without_its_profile() -> None:
    inks = Image.fromarray(RNG.integers(0, 256, (5, 7, 4), dtype=np.uint8), "CMYK")
    for kind, icc in product(("JPEG", "TIFF"), (b"not a profile", SRGB)):
        file = file_of(inks, kind, icc_profile=icc)
        with Image.open(io.BytesIO(file.getvalue())) as image:
            wanted = np.asarray(image.convert("RGB"))
        picture = read(file)
        same(picture, wanted)
        assert picture.icc is None


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_applies_the_orientation_once(kind: str, orientation: int) -> None:
    turned = np.kron(np.array([[10, 90, 200], [60, 150, 250]], np.uint8), np.ones((16, 16), np.uint8))
    # What a viewer shows for each value of the EXIF tag, from its definition.
    shown = {
        1: turned,
        2: turned[:, ::-1],
        3: turned[::-1, ::-1],
        4: turned[::-1],
        5: turned.T,
        6: turned.T[:, ::-1],
        7: turned.T[::-1, ::-1],
        8: turned.T[::-1],
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    lossless = {"lossless": True} if kind == "WEBP" else {"quality": 100} if kind == "JPEG" else {}
    picture = read(file_of(Image.fromarray(turned).convert("RGB"), kind, exif=exif, **lossless))
    assert picture.colour.shape == (*shown.shape, 3)
    assert np.abs(picture.colour[..., 0].astype(int) - shown).max() <= (2 if kind == "JPEG" else 0)
    again = read(io.BytesIO(encode(picture, kind)))
    assert again.colour.shape == picture.colour.shape


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_keeps_the_colour_profile(kind: str) -> None:
    picture = read(file_of(Image.fromarray(RGB), kind, icc_profile=SRGB))
    assert picture.icc == SRGB
    assert read(io.BytesIO(encode(picture, kind))).icc == SRGB
    assert from_pil(to_pil(picture)).icc == SRGB


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_what_is_written_of_a_long_profile_is_read_again(kind: str) -> None:
    most = 255 * 65519
    for size in (2**20 + 1, most):
        icc = SRGB + bytes(size - len(SRGB))
        picture = read(io.BytesIO(encode(Picture(RGB, icc=icc), kind)))
        assert picture.icc == icc
        assert picture.colour.shape == RGB.shape
    if kind in ("PNG", "JPEG"):
        with pytest.raises(OutputError, match=f"profile of {most + 1} bytes, and {kind} takes at most {most}"):
            encode(Picture(RGB, icc=bytes(most + 1)), kind)


@pytest.mark.parametrize("kind", LOSSLESS)
@given(array=arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 4))))
def test_lossless_formats_give_back_every_pixel(kind: str, array: U8) -> None:
    picture = from_array(array)
    again = read(io.BytesIO(encode(picture, kind)))
    colour = picture.colour
    if kind == "WEBP" and colour.ndim == 2:  # WebP has no grey
        colour = np.repeat(colour[..., None], 3, axis=2)
    alpha = picture.alpha
    if kind == "WEBP" and alpha is not None and (alpha == 255).all():  # nor does it tell that all is opaque
        alpha = None
    same(again, colour, alpha)


@given(
    array=arrays(np.uint8, array_shapes(min_dims=2, max_dims=2, max_side=6))
    | arrays(np.uint8, st.tuples(st.integers(1, 6), st.integers(1, 6), st.integers(1, 4)))
)
def test_arrays_come_back_as_they_were(array: U8) -> None:
    picture = from_array(array)
    np.testing.assert_array_equal(to_array(picture, array.shape), array)
    assert (picture.height, picture.width) == array.shape[:2]


@pytest.mark.parametrize(
    "array",
    [np.zeros((2, 2), np.float32), np.zeros(4, np.uint8), np.zeros((2, 2, 5), np.uint8), np.zeros((0, 3), np.uint8)],
)
def test_refuses_arrays_that_are_no_image(array: NDArray[Any]) -> None:
    with pytest.raises(UsageError):
        from_array(array)


def png_of_size(width: int, height: int) -> bytes:
    """A PNG whose header tells a size and whose pixels are missing."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [header, b"IDAT", b"IEND"]
    body = b"".join(struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in chunks)
    return b"\x89PNG\r\n\x1a\n" + body


def test_the_size_is_checked_before_pixels_are_decoded() -> None:
    with pytest.raises(ImageTooLargeError, match="30000x20000"):
        read(io.BytesIO(png_of_size(30000, 20000)))
    with pytest.raises(ImageBrokenError):  # within the limit, so that only now the missing pixels are met
        read(io.BytesIO(png_of_size(30, 20)))


def test_the_limit_is_that_which_is_asked_for(tmp_path: Path) -> None:
    for kind in ("PNG", "JPEG", "WEBP", "TIFF"):
        path = tmp_path / f"x.{kind.lower()}"
        Image.fromarray(RGB).save(path, kind)
        assert read(path, max_pixels=35).width == 7
        with pytest.raises(ImageTooLargeError, match="35 pixels"):
            read(path, max_pixels=34)


@pytest.mark.parametrize("kind", ["TIFF", "WEBP"])
def test_pillows_own_limit_is_told_apart(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    file = file_of(Image.fromarray(RGB), kind)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(ImageTooLargeError, match="MAX_IMAGE_PIXELS"):
        read(file)


def test_what_cannot_be_restored_is_refused_by_name() -> None:
    deep = Image.fromarray(GREY.astype(np.uint16) * 257)
    frames = [Image.fromarray(RGB), Image.fromarray(RGB[::-1])]
    refused = {
        "16 bits": [file_of(deep, "PNG"), file_of(deep, "TIFF")],
        "32 bits": [file_of(Image.fromarray(GREY.astype(np.float32)), "TIFF")],
        "animated": [file_of(frames[0], kind, save_all=True, append_images=frames[1:]) for kind in ("PNG", "WEBP")],
        "several pages": [file_of(frames[0], "TIFF", save_all=True, append_images=frames[1:])],
        "not a PNG, JPEG, WebP or TIFF": [
            *(file_of(frames[0], kind) for kind in ("GIF", "BMP", "PPM", "ICO")),
            io.BytesIO(b"RIFF\0\0\0\0WAVEfmt "),
            io.BytesIO(b"hello"),
        ],
    }
    for words, files in refused.items():
        for file in files:
            with pytest.raises(ImageFormatError, match=words):
                read(file)


def test_missing_files_and_folders(tmp_path: Path) -> None:
    with pytest.raises(ImageMissingError, match=r"nothing\.png cannot be read: No such file"):
        read(tmp_path / "nothing.png")
    with pytest.raises(ImageMissingError, match="is a folder, not a file"):
        read(tmp_path)
    with pytest.raises(ImageMissingError, match="cannot be read: embedded null byte"):
        read(tmp_path / "a\0b.png")
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(ImageMissingError, match="is not a file"):
        read(tmp_path / "pipe.png")
    with pytest.raises(ImageBrokenError, match="is empty"):
        read(io.BytesIO())


def test_writes_in_the_format_of_the_ending(tmp_path: Path) -> None:
    kinds = {"png": "PNG", "jpg": "JPEG", "jpeg": "JPEG", "JPG": "JPEG", "webp": "WEBP", "tif": "TIFF", "tiff": "TIFF"}
    for ending, kind in kinds.items():
        path = tmp_path / "new" / "folders" / f"é{ending}.{ending}"
        write(Picture(RGB), path)
        with Image.open(path) as image:
            assert image.format == kind
    with pytest.raises(UsageError, match="png"):
        write(Picture(RGB), tmp_path / "x.gif")


def test_a_written_file_has_the_usual_permissions(tmp_path: Path) -> None:
    write(Picture(RGB), tmp_path / "x.png")
    (tmp_path / "plain").touch()
    assert stat.S_IMODE((tmp_path / "x.png").stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)


def test_jpeg_is_not_given_transparency() -> None:
    with pytest.raises(OutputError, match="transparency"):
        encode(Picture(RGB, ALPHA), "JPEG")


def test_a_failed_write_leaves_everything_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(b"before")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="No space left"):
        write(Picture(RGB), path)
    assert [(entry.name, entry.read_bytes()) for entry in tmp_path.iterdir()] == [("x.png", b"before")]


def test_an_image_too_wide_for_its_format_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="WEBP"):
        write(Picture(np.zeros((1, 16384, 3), np.uint8)), tmp_path / "x.webp")
    assert list(tmp_path.iterdir()) == []
