"""Small image files of every kind, and ways to damage them. The same every time."""

import io
import struct
import zlib
from collections.abc import Iterator
from itertools import cycle
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

U8 = NDArray[np.uint8]

_Y, _X = np.mgrid[:19, :23]
RGB: U8 = np.stack([_X * 11, _Y * 13, (_X + _Y) * 6], axis=-1).astype(np.uint8)
GREY: U8 = RGB[..., 2]
ALPHA: U8 = (_X * _Y % 256).astype(np.uint8)
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
ENDINGS = {"png": "PNG", "jpg": "JPEG", "webp": "WEBP", "tif": "TIFF"}


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def oriented(value: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = value
    return exif


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png(
    width: int, height: int, rows: bytes, before: bytes = b"", bits: int = 8, colour: int = 2, adam7: int = 0
) -> bytes:
    """A PNG of raw rows, each after the byte of its filter; `before` are chunks before the pixels."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, adam7))
    return b"\x89PNG\r\n\x1a\n" + header + before + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def adam7(image: U8) -> bytes:
    """An interlaced PNG of a grey image."""
    passes = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
    parts = [image[top::leap, left::step] for left, top, step, leap in passes]
    rows = b"".join(b"\0" + row.tobytes() for part in parts if part.size for row in part)
    return png(image.shape[1], image.shape[0], rows, colour=0, adam7=1)


def tiff(tags: dict[int, int | list[int] | bytes], body: bytes = b"", following: int = 0, order: str = "<") -> bytes:
    """A TIFF of one directory; numbers are stored as LONG. `body` begins where the tag 273 or 324 holds -1."""
    head = struct.pack(order + "2sHI", b"II" if order == "<" else b"MM", 42, 8)
    end = 8 + 2 + 12 * len(tags) + 4
    sizes = {
        tag: len(value) if isinstance(value, bytes) else 4 * len(np.atleast_1d(value)) for tag, value in tags.items()
    }
    start = end + sum(size for size in sizes.values() if size > 4)
    entries: list[bytes] = []
    tails: list[bytes] = []
    for tag, value in sorted(tags.items()):
        if isinstance(value, bytes):
            data, kind, count = value, 7, len(value)
        else:
            numbers = [start if number == -1 else number for number in np.atleast_1d(value).tolist()]
            data, kind, count = struct.pack(f"{order}{len(numbers)}I", *numbers), 4, len(numbers)
        place = data.ljust(4, b"\0") if len(data) <= 4 else struct.pack(order + "I", end)
        entries.append(struct.pack(order + "HHI", tag, kind, count) + place)
        if len(data) > 4:
            tails.append(data)
            end += len(data)
    head += struct.pack(order + "H", len(tags))
    return b"".join([head, *entries, struct.pack(order + "I", following), *tails, body])


def tiff_tags(width: int, height: int, compression: int = 1, **more: Any) -> dict[int, Any]:
    """The tags of an RGB TIFF in one strip, to change."""
    return {256: width, 257: height, 258: [8, 8, 8], 259: compression, 262: 2, 273: -1, 277: 3, 278: height, **more}


def sound_files() -> dict[str, bytes]:
    """Files that are to be restored, NAME.ending."""
    rgb, grey, rgba = Image.fromarray(RGB), Image.fromarray(GREY), Image.fromarray(np.dstack([RGB, ALPHA]))
    two, palette = Image.fromarray(np.dstack([GREY, ALPHA])), rgb.quantize(13)
    bits, inks = grey.convert("1"), rgb.convert("CMYK")
    turned, strip = {"exif": oriented(6), "icc_profile": SRGB}, RGB.tobytes()
    tiles = {256: 23, 257: 19, 258: 8, 259: 1, 262: 1, 277: 1, 322: 32, 323: 32, 324: -1, 325: 1024}
    return {
        "rgb.png": encoded(rgb, "PNG", **turned),
        "rgba.png": encoded(rgba, "PNG"),
        "grey.png": encoded(grey, "PNG"),
        "grey_alpha.png": encoded(two, "PNG"),
        "bits.png": encoded(bits, "PNG"),
        "palette.png": encoded(palette, "PNG"),
        "palette_clear.png": encoded(palette, "PNG", transparency=bytes(range(13))),
        "interlaced.png": adam7(GREY),
        "rgb.jpg": encoded(rgb, "JPEG", **turned),
        "progressive.jpg": encoded(rgb, "JPEG", progressive=True),
        "restarts.jpg": encoded(rgb, "JPEG", restart_marker_rows=1),
        "grey.jpg": encoded(grey, "JPEG"),
        "cmyk.jpg": encoded(inks, "JPEG"),
        "stereo.jpg": encoded(rgb, "MPO", save_all=True, append_images=[rgb]),
        "lossy.webp": encoded(rgb, "WEBP", **turned),
        "lossless.webp": encoded(rgb, "WEBP", lossless=True),
        "alpha.webp": encoded(rgba, "WEBP"),
        "alpha_lossless.webp": encoded(rgba, "WEBP", lossless=True),
        "rgb.tif": encoded(rgb, "TIFF", **turned),
        "lzw.tif": encoded(rgb, "TIFF", compression="tiff_lzw"),
        "deflate.tif": encoded(rgba, "TIFF", compression="tiff_adobe_deflate"),
        "packbits.tif": encoded(grey, "TIFF", compression="packbits"),
        "jpeg.tif": encoded(rgb, "TIFF", compression="jpeg"),
        "group4.tif": encoded(bits, "TIFF", compression="group4"),
        "palette.tif": encoded(palette, "TIFF"),
        "cmyk.tif": encoded(inks, "TIFF"),
        "big.tif": encoded(rgb, "TIFF", big_tiff=True),
        "motorola.tif": tiff(tiff_tags(23, 19), strip, order=">"),
        "tiles.tif": tiff(tiles, np.pad(GREY, ((0, 13), (0, 9))).tobytes()),
    }


def refused_files() -> dict[str, bytes]:
    """Whole files of kinds that are not restored, NAME.ending."""
    frames = [Image.fromarray(RGB), Image.fromarray(RGB[::-1])]
    deep = Image.fromarray(GREY.astype(np.uint16) * 257)
    several = {"save_all": True, "append_images": frames[1:]}
    return {
        "animated.png": encoded(frames[0], "PNG", **several),
        "animated.webp": encoded(frames[0], "WEBP", **several),
        "pages.tif": encoded(frames[0], "TIFF", **several),
        "deep.png": encoded(deep, "PNG"),
        "deep.tif": encoded(deep, "TIFF"),
    }


def mutants(count: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """Yield `count` damaged files, each with the name of the sound one it was, all kinds in turn."""
    rng, files = np.random.default_rng(seed), {**sound_files(), **refused_files()}
    data = list(files.values())
    ways = cycle((_flip, _overwrite, _numbers, _splice, _cut, _swap, _repeat))
    for name, _ in zip(cycle(files), range(count), strict=False):
        hurt = next(ways)(files[name], rng, data)
        yield name, _mended(hurt) if name.endswith(".png") and rng.random() < 0.7 else hurt


Rng = np.random.Generator


def _flip(data: bytes, rng: Rng, _: list[bytes]) -> bytes:
    hurt = bytearray(data)
    for place in rng.integers(0, len(hurt), rng.integers(1, 9)):
        hurt[place] ^= 1 << int(rng.integers(8))
    return bytes(hurt)


def _overwrite(data: bytes, rng: Rng, _: list[bytes]) -> bytes:
    place, size = int(rng.integers(len(data))), int(rng.integers(1, 17))
    filler = rng.bytes(size) if rng.random() < 0.5 else bytes([int(rng.choice([0, 255]))]) * size
    return data[:place] + filler + data[place + size :]


def _numbers(data: bytes, rng: Rng, _: list[bytes]) -> bytes:
    """Put an extreme number somewhere, such as where a length stands; the heads of files are full of them."""
    place = int(rng.integers(min(len(data) - 4, 200 if rng.random() < 0.7 else len(data))))
    number = int(rng.choice([0, 1, 2, 127, 255, 256, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1]))
    return data[:place] + number.to_bytes(4, "little" if rng.random() < 0.5 else "big") + data[place + 4 :]


def _splice(data: bytes, rng: Rng, others: list[bytes]) -> bytes:
    other = others[int(rng.integers(len(others)))]
    start, end = sorted(rng.integers(0, len(other), 2).tolist())
    place = int(rng.integers(len(data)))
    return data[:place] + other[start:end] + data[place + (end - start) * int(rng.integers(2)) :]


def _cut(data: bytes, rng: Rng, _: list[bytes]) -> bytes:
    place = int(rng.integers(len(data)))
    return data[:place] if rng.random() < 0.5 else data[:place] + data[place + int(rng.integers(1, 40)) :]


def _swap(data: bytes, rng: Rng, _: list[bytes]) -> bytes:
    a, b, c, d = sorted(rng.integers(0, len(data), 4).tolist())
    return data[:a] + data[c:d] + data[b:c] + data[a:b] + data[d:]


def _repeat(data: bytes, rng: Rng, _: list[bytes]) -> bytes:
    start, end = sorted(rng.integers(0, len(data), 2).tolist())
    return data[:end] + data[start:end] * int(rng.integers(1, 5)) + data[end:]


def _mended(data: bytes) -> bytes:
    """Make the checksums of a PNG's chunks right again, so that the damage gets past them."""
    place, parts = 8, [data[:8]]
    while place + 12 <= len(data):
        length = struct.unpack_from(">I", data, place)[0]
        if place + 12 + length > len(data):
            break
        parts.append(chunk(data[place + 4 : place + 8], data[place + 8 : place + 8 + length]))
        place += 12 + length
    return b"".join(parts) + data[place:]
