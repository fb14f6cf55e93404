"""From the bytes of an image file to pixels, past what would make a decoder exhaust memory or make pixels up.

Pillow decodes. It also takes some files that hold fewer pixels than they promise, and paints the rest black or grey;
those are found out here.
"""

from __future__ import annotations

import ctypes
import io
import logging
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from typing import Final

from PIL import Image, _imaging
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import MAX_TEXT_CHUNK, PngImageFile
from PIL.TiffImagePlugin import ImageFileDirectory_v2, TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from i2sb_rt.errors import ImageBrokenError, ImageError, ImageFormatError, ImageTooLargeError, OutOfMemoryError

_SIGNATURES: Final = (
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"\xff\xd8\xff", "JPEG"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
)
_PLUGINS: Final[dict[str, Callable[[io.BytesIO], Image.Image]]] = {
    "PNG": PngImageFile,
    "JPEG": JpegImageFile,
    "WEBP": WebPImageFile,
    "TIFF": TiffImageFile,
}
_PNG_CHANNELS: Final = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_PNG_PASSES: Final = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
_PNG_SPARE: Final = 2**20  # bytes after the last row that are borne: some writers leave a few
LONGEST_PROFILE: Final = 255 * 65519  # bytes of a colour profile, as JPEG can hold; no PNG is taken that has more
_JPEG_EXIF: Final = 64  # parts, of which Pillow copies all for each; cameras write one
_JPEG_SCANS: Final = 500  # each takes time for the whole image, however short it is; encoders write about ten
_JPEG_END: Final = b"\xff\xd9"
_JPEG_MORE: Final = bytes(2**16) + b"".join(bytes([0xFF, 0xD0 + i % 8]) + bytes(256) for i in range(64))  # restarts
_TIFF_SPARE: Final = 1000  # strips or tiles too many that are borne
_WIDTH, _LENGTH, _BITS_PER_SAMPLE, _STRIPS, _SAMPLES, _ROWS_PER_STRIP, _PLANAR = 256, 257, 258, 273, 277, 278, 284
_TILE_WIDTH, _TILE_LENGTH, _TILES = 322, 323, 324


def kind_of(data: bytes) -> str | None:
    """Return what a file that begins so is, PNG, JPEG, WEBP or TIFF, and None for all else."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    return next((kind for signature, kind in _SIGNATURES if data.startswith(signature)), None)


def plain(kind: str) -> str:
    """Return a kind as people write it."""
    return kind.replace("WEBP", "WebP")


@contextmanager
def blaming(name: str, kind: str) -> Iterator[None]:
    """Raise whatever goes wrong with a file's bytes as an error of ours; `name` is what it calls the file.

    Decoders meet hostile bytes here, so what is neither a refusal nor a lack of memory means that the file is broken.
    """
    try:
        yield
    except ImageError:
        raise
    except Image.DecompressionBombError as error:
        raise ImageTooLargeError(f"{name} has more pixels than PIL.Image.MAX_IMAGE_PIXELS allows") from error
    except MemoryError as error:
        raise OutOfMemoryError(f"{name} does not fit into memory") from error
    except Exception as error:
        raise ImageBrokenError(f"{name} is a damaged or truncated {plain(kind)} file: {error}") from error


def decode(data: bytes, kind: str, name: str, max_pixels: int) -> Image.Image:
    """Decode a whole file of a kind; its size is checked before memory for its pixels is asked for.

    Raises ImageFormatError, ImageTooLargeError, and anything at all where the file is damaged.
    """
    if kind == "WEBP":  # whose decoder asks for the memory as it opens
        _limit(*_webp_size(data), max_pixels, name)
    if kind == "PNG" and data[12:16] != b"IHDR":
        raise ValueError("it does not begin with its header")
    if kind == "TIFF":
        _check_tiff(data, max_pixels, name)
    if kind == "JPEG" and data.count(b"Exif\0\0") > _JPEG_EXIF:
        raise ValueError("it has too much EXIF")
    profile = None
    if kind == "PNG":
        data, profile = _profile_apart(data)
    file = io.BytesIO(data)
    image = _PLUGINS[kind](file)
    first_scan = file.tell()
    _limit(image.width, image.height, max_pixels, name)
    if kind != "TIFF" and getattr(image, "is_animated", False):
        raise ImageFormatError(f"{name} is animated, which is not supported; split it into frames")
    if kind == "PNG":
        _check_png(data, name)
    if kind == "JPEG" and data.count(b"\xff\xda", first_scan, data.find(_JPEG_END, first_scan)) > _JPEG_SCANS:
        raise ValueError(f"it has more than {_JPEG_SCANS} scans")
    image.load()
    if kind == "JPEG":
        _check_jpeg(image, data, first_scan)
    if kind == "PNG":
        _scale_transparency(image, data)
    if profile:
        image.info["icc_profile"] = profile
    return image


def _limit(width: int, height: int, max_pixels: int, name: str) -> None:
    if width * height > max_pixels:
        size = f"{width * height} pixels ({width}x{height})"
        raise ImageTooLargeError(f"{name} has {size}, more than the limit of {max_pixels}")


def _too_deep(name: str, bits: int) -> ImageFormatError:
    return ImageFormatError(f"{name} has {bits} bits a channel, which is not yet supported; convert it to 8 bits")


def _webp_size(data: bytes) -> tuple[int, int]:
    """Return the width and height that a WebP file begins with."""
    chunk, body = data[12:16], data[20:30]
    if len(body) < 10 or chunk not in (b"VP8 ", b"VP8L", b"VP8X"):
        raise ValueError("it does not begin with its size")
    if chunk == b"VP8X":
        return 1 + int.from_bytes(body[4:7], "little"), 1 + int.from_bytes(body[7:10], "little")
    if chunk == b"VP8L":
        bits = int.from_bytes(body[1:5], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    return int.from_bytes(body[6:8], "little") & 0x3FFF, int.from_bytes(body[8:10], "little") & 0x3FFF


def _check_png(data: bytes, name: str) -> None:
    """Refuse more than 8 bits a channel, and raise ValueError unless all rows are there: else Pillow paints black."""
    width, height, bits, colour, _, _, interlaced = struct.unpack(">IIBBBBB", data[16:29])
    if bits > 8:
        raise _too_deep(name, bits)
    pixel = bits * _PNG_CHANNELS[colour]
    wanted = 0
    for left, top, step, leap in _PNG_PASSES if interlaced else ((0, 0, 1, 1),):
        columns, rows = len(range(left, width, step)), len(range(top, height, leap))
        wanted += rows * (1 + (columns * pixel + 7) // 8) if columns else 0
    found, inflate = 0, zlib.decompressobj()
    for body in _png_data(data):
        for start in range(0, len(body), 2**14):  # small pieces, as each may become a thousand times as long
            found += 0 if inflate.eof else len(inflate.decompress(body[start : start + 2**14]))
            if found > wanted + _PNG_SPARE:
                raise ValueError("it holds more rows than its size tells")
    if found < wanted:
        raise ValueError(f"only {found} of {wanted} bytes of its rows are there")


def _png_data(data: bytes) -> Iterator[memoryview]:
    """Yield the data of the pixels; raise ValueError where the file ends early or what decoding needs is damaged."""
    view, headers = memoryview(data), 0
    for name, start, end in _png_parts(data):
        critical = name[:1].isupper()
        if critical and zlib.crc32(view[start - 4 : end]).to_bytes(4, "big") != data[end : end + 4]:
            raise ValueError(f"the checksum of its part {name!r} is wrong")
        headers += name == b"IHDR"
        if headers > 1:
            raise ValueError("it has two headers")
        if name == b"IDAT":
            yield view[start:end]


def _png_parts(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield the name of each part of a PNG, and where what is in it starts and ends."""
    place, name = 8, b""
    while name != b"IEND":
        if place + 12 > len(data):
            raise ValueError("it ends early")
        length, name = struct.unpack_from(">I4s", data, place)
        yield name, place + 8, place + 8 + length
        place += 12 + length


def _profile_apart(data: bytes) -> tuple[bytes, bytes | None]:
    """Return a PNG and None; if its colour profile is too long for Pillow, the PNG without it, and the profile."""
    found = next((part for part in _png_parts(data) if part[0] in (b"iCCP", b"IDAT")), None)
    if found is None or found[0] == b"IDAT":
        return data, None
    _, start, end = found
    packed = data[data.find(b"\0", start, end) + 2 : end]  # after its name and the method
    profile = b""
    with suppress(zlib.error):
        profile = zlib.decompressobj().decompress(packed, LONGEST_PROFILE + 1)
    if len(profile) > LONGEST_PROFILE:
        raise ValueError("its colour profile is too large")
    return (data[: start - 8] + data[end + 4 :], profile) if len(profile) > MAX_TEXT_CHUNK else (data, None)


def _scale_transparency(image: Image.Image, data: bytes) -> None:
    """Scale the clear level of a grey PNG of 2 or 4 bits to 8 bits, as Pillow does with the pixels alone."""
    bits, colour = data[24], data[25]
    if colour == 0 and bits in (2, 4) and "transparency" in image.info:
        most = 2**bits - 1
        image.info["transparency"] = (image.info["transparency"] & most) * (255 // most)


def _check_tiff(data: bytes, max_pixels: int, name: str) -> None:
    """Refuse what cannot be restored by what the first directory says, before anything is made of it."""
    _hush()
    file = io.BytesIO(data)
    directory = ImageFileDirectory_v2(file.read(16 if data[2] == 43 else 8))
    file.seek(directory.next)
    directory.next = -1
    directory.load(file)
    if directory.next < 0:
        raise ValueError("its directory is cut short")
    bits = max(directory.get(_BITS_PER_SAMPLE, (1,)))
    if bits > 8:
        raise _too_deep(name, bits)
    if directory.next:
        raise ImageFormatError(f"{name} holds several pages, which is not supported; split it into files")
    width, height = directory[_WIDTH], directory[_LENGTH]
    across, down = directory.get(_TILE_WIDTH, width), directory.get(_TILE_LENGTH, height)
    _limit(across, down, max_pixels, name)
    if _STRIPS in directory:
        across, down = width, directory.get(_ROWS_PER_STRIP, height)
    if min(across, down) < 1:
        raise ValueError("its strips or tiles are empty")
    planes = directory.get(_SAMPLES, 1) if directory.get(_PLANAR) == 2 else 1
    wanted = -(-width // across) * -(-height // down) * planes
    found = len(directory.get(_STRIPS, directory.get(_TILES, range(wanted))))
    if not wanted <= found <= wanted + _TIFF_SPARE:  # Pillow leaves black what is missing, and is slow with too many
        raise ValueError(f"it has {found} strips or tiles where {wanted} cover it")


@cache
def _hush() -> None:
    """Keep libtiff and Pillow from writing to the terminal what is raised as an error anyway."""
    logging.getLogger("PIL").addHandler(logging.NullHandler())
    with suppress(OSError, AttributeError):
        ctypes.CDLL(_imaging.__file__).TIFFSetErrorHandler(None)


def _check_jpeg(image: Image.Image, data: bytes, scan: int) -> None:
    """Raise ValueError where the end marker comes before the last pixels: libjpeg makes those grey, in silence."""
    corner = image.getpixel((image.width - 1, image.height - 1))
    if not {127, 128}.issuperset(corner if isinstance(corner, tuple) else (corner,)):
        return
    # With more data before the end marker a whole picture stays as it is; one that lacks pixels takes them for its own.
    end = data.find(_JPEG_END, scan)
    longer = JpegImageFile(io.BytesIO(data[:end] + _JPEG_MORE + _JPEG_END))
    longer.load()
    if longer.tobytes() != image.tobytes():
        raise ValueError("its pixels end early")
