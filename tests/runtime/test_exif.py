"""What files tell of their pictures beside the pixels goes with them, and never stops them."""

import io
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from PIL.TiffImagePlugin import IFDRational

from i2sb_rt import Restorer
from i2sb_rt.exif import upright
from i2sb_rt.image import encode, read

KINDS = ["PNG", "JPEG", "WEBP", "TIFF"]
COLOUR = np.random.default_rng(4).integers(0, 256, (6, 10, 3), dtype=np.uint8)
EXPOSURE, PLACE = 0x8769, 0x8825
SAID = {0x010F: "Maker", 0x013B: "Someone"}
OF_EXPOSURE = {0x9003: "2021:02:03 04:05:06", 0x829A: IFDRational(1, 100), 0x9000: b"0230", 0x8827: (100, 200)}
OF_PLACE = {1: "N", 2: (IFDRational(47), IFDRational(30), IFDRational(3, 2))}


def exif(endian: str = "<", orientation: int = 1) -> bytes:
    """EXIF as a camera writes it, with what is of its own file alone: a maker's note and the size in pixels."""
    made = Image.Exif()
    made.endian = endian
    for tag, value in SAID.items():
        made[tag] = value
    made[0x0112] = orientation
    made[EXPOSURE] = {**OF_EXPOSURE, 0x927C: b"note" * 9, 0xA002: 10, 0xA003: 6}
    made[PLACE] = OF_PLACE
    return made.tobytes()


def file_of(kind: str, **options: Any) -> io.BytesIO:
    buffer = io.BytesIO()
    Image.fromarray(COLOUR).save(buffer, kind, **({"lossless": True} if kind == "WEBP" else {}), **options)
    buffer.seek(0)
    return buffer


def check(data: bytes) -> None:
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        found = image.getexif()
        assert {tag: found.get(tag) for tag in (*SAID, 0x0112)} == {**SAID, 0x0112: 1}
        assert found.get_ifd(EXPOSURE) == OF_EXPOSURE
        assert found.get_ifd(PLACE) == OF_PLACE


@pytest.mark.parametrize("source", KINDS)
@pytest.mark.parametrize("target", KINDS)
@pytest.mark.parametrize("endian", ["<", ">"])
def test_exif_goes_from_every_format_to_every_other(source: str, target: str, endian: str) -> None:
    picture = read(file_of(source, exif=exif(endian)))
    data = encode(picture, target)
    check(data)
    assert encode(picture, target) == data
    again = read(io.BytesIO(data))
    check(encode(again, source))
    if "JPEG" not in (source, target):
        np.testing.assert_array_equal(again.colour, picture.colour)


@pytest.mark.parametrize("kind", KINDS)
def test_a_turned_photo_says_that_it_is_upright(kind: str) -> None:
    picture = read(file_of(kind, exif=exif(orientation=6), dpi=(300, 300)))
    assert (picture.width, picture.height) == (6, 10)
    assert picture.dpi == (None if kind == "WEBP" else (300, 300))
    check(encode(picture, kind))
    assert read(io.BytesIO(encode(picture, kind))).width == 6


@pytest.mark.parametrize("source", ["PNG", "JPEG", "TIFF"])
@pytest.mark.parametrize("target", ["PNG", "JPEG", "TIFF"])
def test_the_resolution_is_kept(source: str, target: str) -> None:
    data = encode(read(file_of(source, dpi=(300, 300))), target)
    with Image.open(io.BytesIO(data)) as image:
        assert image.info["dpi"] == pytest.approx((300, 300), abs=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_where_nothing_is_said_nothing_is_written(kind: str) -> None:
    picture = read(file_of(kind))
    assert (picture.exif, picture.dpi) == (None, None)
    with Image.open(io.BytesIO(encode(picture, kind))) as image:
        assert "exif" not in image.info


def test_text_stays_the_bytes_that_it_is() -> None:
    made = Image.Exif()
    made[0x013B] = "José".encode()
    for kind in KINDS:
        assert "José".encode() in encode(read(file_of("JPEG", exif=made)), kind)


def test_the_thumbnail_is_left_out() -> None:
    made = exif()
    (count,) = struct.unpack_from("<H", made, 14)
    behind = made[: 16 + 12 * count] + struct.pack("<I", len(made) - 6) + made[20 + 12 * count :]
    thumbnail = struct.pack("<HHHII", 1, 0x0201, 4, 1, 99) + bytes(4) + b"a small picture"
    kept = upright(behind + thumbnail)
    assert kept == upright(made)
    assert kept is not None
    assert b"a small picture" not in kept


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])  # JPEG cannot hold it either
def test_too_much_is_left_out(kind: str) -> None:
    made = Image.Exif()
    made[0x010E] = "x" * 65_100
    picture = read(file_of(kind, exif=made))
    assert picture.exif is None
    encode(picture, "JPEG")


def entries(count: int, size: int) -> bytes:
    """EXIF of which every entry of the exposure has the same value, so that its values are far more than its bytes."""
    directory = struct.pack("<H", count)
    for tag in range(count):
        directory += struct.pack("<HHII", tag, 7, size, 0)
    return b"II*\0" + struct.pack("<IHHHIII", 8, 1, EXPOSURE, 4, 1, 26, 0) + directory + bytes(4 + size)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"Exif\0\0",
        b"II*\0",
        b"II*\0\xff\xff\xff\xff",
        b"MM\0*\0\0\0\x08\xff\xff" + bytes(9),
        b"II*\0\x08\0\0\0\x01\0" + struct.pack("<HHII", 271, 2, 2**32 - 1, 8) + bytes(4),
        b"II*\0\x08\0\0\0\x01\0" + struct.pack("<HHII", EXPOSURE, 3, 1, 8) + bytes(4),
        exif()[:90],
        entries(2000, 60_000),
    ],
)
def test_damaged_exif_is_left_out(data: bytes) -> None:
    assert upright(data) is None
    for kind in ("PNG", "WEBP"):
        picture = read(file_of(kind, exif=b"Exif\0\0" + data))
        assert picture.exif is None
        np.testing.assert_array_equal(read(io.BytesIO(encode(picture, "TIFF"))).colour, COLOUR)


@given(place=st.integers(0, len(exif()) - 1), value=st.integers(0, 255), end=st.integers(0, len(exif())))
def test_no_exif_stops_a_picture(place: int, value: int, end: int) -> None:
    data = bytearray(exif())
    data[place] = value
    picture = read(file_of("PNG", exif=bytes(data[: max(end, 20)])))
    for kind in KINDS:
        read(io.BytesIO(encode(picture, kind)))


def test_a_restored_photo_keeps_what_its_file_said(toy: Restorer, photo: NDArray[np.uint8]) -> None:
    buffer = io.BytesIO()
    Image.fromarray(photo).save(buffer, "JPEG", exif=exif(orientation=8), dpi=(240, 240))
    with Image.open(buffer) as image:
        restored = toy.restore(image)
    assert (restored.size, restored.info["dpi"]) == ((37, 53), (240, 240))
    buffer = io.BytesIO()
    restored.save(buffer, "PNG", exif=restored.info["exif"])
    check(buffer.getvalue())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("orientation", "expected"), [(3, (200, 100)), (6, (100, 200)), (8, (100, 200))])
def test_the_resolution_is_turned_with_the_picture(kind: str, orientation: int, expected: tuple[int, int]) -> None:
    made = Image.Exif()
    made[0x0112], made[0x011A], made[0x011B], made[0x0128] = orientation, 200.0, 100.0, 2
    picture = read(file_of(kind, exif=made, dpi=(200, 100)))
    if kind != "WEBP":
        assert picture.dpi == expected
    told = Image.Exif()
    told.load(picture.exif)
    assert (told[0x011A], told[0x011B], told[0x0112]) == (*expected, 1)
