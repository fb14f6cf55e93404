"""Image files, PIL images and arrays, to and from one plain form: 8-bit colour or grey, alpha apart, upright."""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from i2sb_rt import exif
from i2sb_rt.decoders import LONGEST_PROFILE, blaming, decode, kind_of, plain
from i2sb_rt.errors import (
    ImageBrokenError,
    ImageFormatError,
    ImageMissingError,
    ImageTooLargeError,
    OutOfMemoryError,
    OutputError,
    UsageError,
)
from i2sb_rt.model_file import replacing

U8 = NDArray[np.uint8]

MAX_PIXELS: Final = 128_000_000
# What each output format is asked for: the pixels as they are where it can (JPEG cannot), and a quick encoder.
_ENCODERS: Final[dict[str, dict[str, Any]]] = {
    "PNG": {"compress_level": 1},
    "JPEG": {"quality": 95, "subsampling": 0},
    "WEBP": {"lossless": True, "exact": True, "quality": 0, "method": 0},
    "TIFF": {"compression": "tiff_lzw", "tiffinfo": {317: 2}},  # 317 is the predictor, 2 takes differences
}
FORMATS: Final = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".webp": "WEBP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
}
_ORIENTATION: Final = 0x0112
_UPRIGHT: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True, eq=False)
class Picture:
    """An upright 8-bit picture, and what its file says of it.

    colour: [H, W, 3], or [H, W] for grey; alpha: [H, W] or None; icc: a colour profile; exif: as `exif.upright` makes
    it; dpi: pixels an inch, across and down.
    """

    colour: U8
    alpha: U8 | None = None
    icc: bytes | None = None
    exif: bytes | None = None
    dpi: tuple[float, float] | None = None

    @property
    def height(self) -> int:
        """The number of rows."""
        return len(self.colour)

    @property
    def width(self) -> int:
        """The number of columns."""
        return len(self.colour[0])


def files_of(path: Path) -> list[Path]:
    """Return the pictures directly in a folder, by name, or the file itself. Raises UsageError where there are none."""
    if not path.exists():
        raise UsageError(f"{path}: there is no such file or folder")
    files = sorted(one for one in path.iterdir() if one.suffix.lower() in FORMATS) if path.is_dir() else [path]
    if not files:
        raise UsageError(f"{path}: this folder holds no pictures")
    return files


def read(source: Path | IO[bytes], max_pixels: int = MAX_PIXELS) -> Picture:
    """Read a PNG, JPEG, WebP or TIFF; a name that ends as that of another of them is refused.

    source: a path or an open file. The size is checked before any pixel is decoded.
    Raises ImageMissingError, ImageFormatError, ImageTooLargeError, ImageBrokenError, OutOfMemoryError.
    """
    name = str(source) if isinstance(source, Path) else "standard input"
    try:
        if not isinstance(source, Path):
            data = _contents(source, name, max_pixels)
        elif source.exists() and not (source.is_file() or source.is_dir()):
            raise ImageMissingError(f"{name} is not a file")
        else:
            with source.open("rb") as file:
                data = _contents(file, name, max_pixels)
    except IsADirectoryError as error:
        raise ImageMissingError(f"{name} is a folder, not a file") from error
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        raise ImageMissingError(f"{name} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    except MemoryError as error:
        raise OutOfMemoryError(f"{name} does not fit into memory") from error
    if not data:
        raise ImageBrokenError(f"{name} is empty")
    kind = kind_of(data)
    if kind is None:
        raise ImageFormatError(f"{name} is not a PNG, JPEG, WebP or TIFF image")
    if isinstance(source, Path):
        _refuse_misnamed(source, kind)
    with blaming(name, kind):
        return from_pil(decode(data, kind, name, max_pixels), name, data if kind == "TIFF" else None)


def from_pil(image: Image.Image, name: str = "the image", tiff: bytes | None = None) -> Picture:
    """Bring a PIL image of any 8-bit mode to the plain form; EXIF orientation is applied.

    tiff: the file that the image is of, if it is a TIFF, where EXIF is part of the file. Raises ImageFormatError for
    modes of more than 8 bits a channel and those without a conversion to RGB.
    """
    if image.mode.startswith(("I", "F")):
        raise ImageFormatError(f"{name} has more than 8 bits a channel (mode {image.mode}), which is not yet supported")
    icc = _profile(image)
    clear = image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info
    grey = image.mode in ("1", "L", "LA", "La")
    words = _words(image, tiff)
    upright = _upright(image)
    if image.mode == "CMYK":
        upright, icc = _cmyk_to_rgb(upright, icc), None
    mode = ("L" if grey else "RGB") + ("A" if clear else "")
    try:
        pixels = np.asarray(upright.convert(mode))
    except ValueError as error:
        raise ImageFormatError(f"{name} has the colour mode {image.mode}, which is not supported") from error
    if not clear:
        return Picture(pixels, None, icc, *words)
    colour = pixels[..., 0] if grey else pixels[..., :3]
    return Picture(np.ascontiguousarray(colour), np.ascontiguousarray(pixels[..., -1]), icc, *words)


def to_pil(picture: Picture) -> Image.Image:
    """Return the PIL image: mode L, LA, RGB or RGBA; the colour profile, EXIF and resolution in `info`."""
    image = Image.fromarray(picture.colour)
    if picture.alpha is not None:
        image.putalpha(Image.fromarray(picture.alpha))
    if picture.icc:
        image.info["icc_profile"] = picture.icc
    image.info.update(_said(picture))
    return image


def from_array(array: NDArray[Any]) -> Picture:
    """Read uint8 [H, W] or [H, W, channels] as grey (1), grey and alpha (2), RGB (3), RGB and alpha (4).

    Raises UsageError for another type or shape.
    """
    if array.dtype != np.uint8:
        raise UsageError(f"an image array is uint8, 0 .. 255, not {array.dtype}")
    if array.ndim not in (2, 3) or 0 in array.shape or array.shape[2:] > (4,):
        raise UsageError(f"an image array has the shape [H, W] or [H, W, 1 to 4], not {list(array.shape)}")
    channels = 1 if array.ndim == 2 else array.shape[2]
    planes = array.reshape(*array.shape[:2], channels)
    colour = planes[..., 0] if channels < 3 else planes[..., :3]
    alpha = np.ascontiguousarray(planes[..., -1]) if channels in (2, 4) else None
    return Picture(np.ascontiguousarray(colour), alpha)


def to_array(picture: Picture, shape: tuple[int, ...]) -> U8:
    """Return the array form of a picture, laid out as the array it came from, whose shape this was."""
    if len(shape) == 2:
        return picture.colour
    planes = [picture.colour.reshape(picture.height, picture.width, -1)]
    if picture.alpha is not None:
        planes.append(picture.alpha[..., None])
    return np.concatenate(planes, axis=2)


def format_of(path: Path) -> str:
    """Return the image format that a file name asks for; raises UsageError for one that cannot be written."""
    try:
        return FORMATS[path.suffix.lower()]
    except KeyError:
        raise UsageError(f"{path}: the format follows from the ending, one of {', '.join(FORMATS)}") from None


def encode(picture: Picture, kind: str, name: str = "the image") -> bytes:
    """Encode a picture as PNG, JPEG, WEBP or TIFF; all but JPEG keep every pixel.

    Raises OutputError where the format cannot hold the picture.
    """
    if kind == "JPEG" and picture.alpha is not None:
        raise OutputError(f"{name} has transparency, which JPEG cannot hold; write PNG, WebP or TIFF")
    if kind in ("PNG", "JPEG") and picture.icc and len(picture.icc) > LONGEST_PROFILE:
        size = f"a colour profile of {len(picture.icc)} bytes"
        raise OutputError(f"{name} has {size}, and {kind} takes at most {LONGEST_PROFILE}; write WebP or TIFF")
    buffer, said = io.BytesIO(), _said(picture)
    if kind == "TIFF":  # into which libtiff writes no EXIF
        said.pop("exif", None)
    try:
        to_pil(picture).save(buffer, kind, icc_profile=picture.icc, **said, **_ENCODERS[kind])
    except (OSError, ValueError, OverflowError) as error:
        raise OutputError(f"{name} cannot be written as {kind}: {error}") from error
    data = buffer.getvalue()
    return exif.added_to_tiff(data, picture.exif) if kind == "TIFF" and picture.exif else data


def write(picture: Picture, path: Path) -> None:
    """Write a picture in the format of the file's ending, whole or not at all; folders are made as needed.

    Raises UsageError for an unknown ending and OutputError where it cannot be written.
    """
    write_bytes(encode(picture, format_of(path), str(path)), path)


def write_bytes(data: bytes, path: Path) -> None:
    """Write a file whole or not at all; folders are made as needed. Raises OutputError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            temporary.write_bytes(data)
    except FileExistsError as error:
        raise OutputError(f"{path} cannot be written: {path.parent} is not a folder") from error
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        raise OutputError(f"{path} cannot be written: {getattr(error, 'strerror', None) or error}") from error


def _contents(file: IO[bytes], name: str, max_pixels: int) -> bytes:
    """Read a file to its end, once: what others do to it meanwhile cannot then hurt a decoder."""
    limit, pieces = 64 * 2**20 + 8 * max_pixels, io.BytesIO()
    while piece := file.read(2**20):
        if pieces.tell() + len(piece) > limit:
            raise ImageTooLargeError(f"{name} is longer than {limit} bytes, the limit for {max_pixels} pixels")
        pieces.write(piece)
    return pieces.getvalue()


def _refuse_misnamed(path: Path, kind: str) -> None:
    """Refuse a name that ends as that of another format; one that tells no format says nothing wrong."""
    if FORMATS.get(path.suffix.lower(), kind) != kind:
        ending = next(ending for ending, written in FORMATS.items() if written == kind)
        right = path.with_suffix(ending).name
        raise ImageFormatError(f"{path} holds a {plain(kind)} image; name it {right} or convert it")


def _upright(image: Image.Image) -> Image.Image:
    """Apply the EXIF orientation; damaged EXIF says nothing."""
    orientation = None
    with contextlib.suppress(Exception):
        orientation = image.getexif().get(_ORIENTATION)
    transpose = _UPRIGHT.get(orientation) if isinstance(orientation, int) else None
    return image if transpose is None else image.transpose(transpose)


def _words(image: Image.Image, tiff: bytes | None) -> tuple[bytes | None, tuple[float, float] | None]:
    """Return an image's EXIF, as of the upright picture, and its resolution; what is damaged says nothing."""
    found, dpi = tiff or image.info.get("exif"), None
    with contextlib.suppress(Exception):
        found = found or image.getexif().tobytes()
    with contextlib.suppress(Exception):
        across, down = (round(float(value), 2) for value in image.info["dpi"])
        if all(1 < value < 65535 for value in (across, down)):  # 1: Pillow's word for a TIFF that says nothing
            dpi = across, down
    if not isinstance(found, bytes):
        return None, dpi
    return exif.upright(found), dpi[::-1] if dpi and exif.is_on_its_side(found) else dpi


def _said(picture: Picture) -> dict[str, Any]:
    """Return what a file says of a picture beside its colours, as Pillow calls it."""
    return {name: value for name, value in (("exif", picture.exif), ("dpi", picture.dpi)) if value is not None}


def _profile(image: Image.Image) -> bytes | None:
    """Return the colour profile; what a damaged TIFF has in its place may be of any type."""
    icc = image.info.get("icc_profile")
    return icc if isinstance(icc, bytes) and icc else None


def _cmyk_to_rgb(image: Image.Image, icc: bytes | None) -> Image.Image:
    """Convert CMYK to sRGB by its own profile where it has a sound one, else by the plain formula."""
    if icc:
        from PIL import ImageCms

        with contextlib.suppress(ImageCms.PyCMSError, OSError):
            source = ImageCms.ImageCmsProfile(io.BytesIO(icc))
            converted = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
            if converted is not None:
                return converted
    return image.convert("RGB")
