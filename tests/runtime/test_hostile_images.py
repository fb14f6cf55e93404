"""Images that are unusual, damaged or meant to hurt: the right pixels, or one sentence."""

import io
import json
import os
import re
import struct
import subprocess
import sys
import warnings
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hostile_files import ENDINGS, GREY, RGB, U8, adam7, chunk, encoded, mutants, png, sound_files, tiff, tiff_tags
from PIL import Image, ImageFile

from i2sb_rt.errors import ImageBrokenError, ImageError, ImageFormatError, ImageTooLargeError
from i2sb_rt.image import Picture, encode, read

# Pillow's, of metadata that it cannot read; the command line is silent about them.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")

FLAT = np.full((40, 56), 128, np.uint8)
ROWS = b"".join(b"\0" + row.tobytes() for row in RGB)


@pytest.fixture(scope="module")
def photo_files() -> dict[str, bytes]:
    """A noisy picture in every way that it can be stored, so that no part of a file is without pixels."""
    noise = np.random.default_rng(5).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    image = Image.fromarray(noise).resize((96, 96), Image.Resampling.BICUBIC)
    files = {
        "png": encoded(image, "PNG"),
        "interlaced": adam7(np.asarray(image)[..., 1]),
        "webp": encoded(image, "WEBP"),
        "lossless": encoded(image, "WEBP", lossless=True),
    }
    for name, options in {
        "jpeg": {},
        "progressive": {"progressive": True},
        "restarts": {"restart_marker_rows": 2},
    }.items():
        files[name] = encoded(image, "JPEG", **options)
    for compression in ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"):
        files[f"tiff {compression}"] = encoded(image, "TIFF", compression=compression)
    return files


def of(data: bytes, **options: Any) -> Picture:
    return read(io.BytesIO(data), **options)


def test_every_file_that_is_cut_short_is_broken(photo_files: dict[str, bytes]) -> None:
    for name, data in photo_files.items():
        sound = of(data).colour
        assert sound.shape[:2] == (96, 96), name
        for tenth in range(10):
            with pytest.raises(ImageBrokenError, match=r"empty|truncated"):
                of(data[: len(data) * tenth // 10])
        with suppress(ImageBrokenError):  # only an end marker may be cut, and no pixel
            assert np.array_equal(of(data[:-1]).colour, sound)


def test_random_bytes_are_refused_under_every_ending(tmp_path: Path) -> None:
    rng, signatures = np.random.default_rng(8), {"png": 8, "jpg": 3, "webp": 12, "tif": 4}
    for ending, kind in ENDINGS.items():
        head = encoded(Image.fromarray(RGB), kind)[: signatures[ending]]
        path = tmp_path / f"x.{ending}"
        path.write_bytes(rng.bytes(3000))
        with pytest.raises(ImageFormatError, match=rf"x\.{ending} is not a PNG, JPEG, WebP or TIFF image"):
            read(path)
        path.write_bytes(head + bytes(8) + rng.bytes(3000))
        with pytest.raises(ImageBrokenError, match=rf"x\.{ending} is a damaged"):
            read(path)


def test_a_name_that_tells_another_format_is_refused(tmp_path: Path) -> None:
    shown = {"png": "PNG", "jpg": "JPEG", "webp": "WebP", "tif": "TIFF"}
    for held, kind in ENDINGS.items():
        data = encoded(Image.fromarray(RGB), kind)
        for ending in (*ENDINGS, "JPEG", "tiff"):
            path = tmp_path / f"my.photo.{ending}"
            path.write_bytes(data)
            if {"jpeg": "jpg", "tiff": "tif"}.get(ending.lower(), ending) == held:
                assert read(path).width == 23
                continue
            sentence = rf"photo\.{ending} holds a {shown[held]} image; name it my\.photo\.{held} or convert it"
            with pytest.raises(ImageFormatError, match=sentence):
                read(path)
        for name in ("photo", "photo.jpg.part", "photo.gif"):
            (tmp_path / name).write_bytes(data)
            assert read(tmp_path / name).width == 23


def test_a_png_that_lacks_rows_is_not_black() -> None:
    assert np.array_equal(of(png(23, 19, ROWS)).colour, RGB)
    assert np.array_equal(of(png(23, 19, ROWS + b"spare")).colour, RGB)
    assert np.array_equal(of(adam7(GREY)).colour, GREY)
    damaged = {
        "only 700 of 1330": png(23, 19, ROWS[:700]),
        "only 1260 of 1330": png(23, 19, ROWS[: 18 * 70]),
        "only 0 of 1330": png(23, 19, b""),
        "only 1330 of 2660": png(23, 38, ROWS),
        "only 1330 of 1348": png(23, 19, ROWS, adam7=1),
        "more rows": png(23, 19, ROWS + bytes(10**7)),
        "two headers": png(23, 19, ROWS, before=chunk(b"IHDR", struct.pack(">IIBBBBB", 23, 19, 16, 2, 0, 0, 0))),
        "checksum": png(23, 19, ROWS).replace(b"IDAT", b"IDAT\0", 1),
        "its header": b"\x89PNG\r\n\x1a\n" + chunk(b"tEXt", b"a" * 40) + png(23, 19, ROWS)[8:],
        "ends early": png(23, 19, ROWS)[:-12],
    }
    for words, data in damaged.items():
        with pytest.raises(ImageBrokenError, match=words):
            of(data)


def test_a_tiff_that_lacks_strips_is_not_black() -> None:
    strip, apart = RGB.tobytes(), {**tiff_tags(23, 19), 284: 2}
    assert np.array_equal(of(tiff(tiff_tags(23, 19), strip)).colour, RGB)
    start = len(tiff({**apart, 273: [0, 0, 0]}))
    planes = tiff({**apart, 273: [start, start + 437, start + 874]}, RGB.transpose(2, 0, 1).tobytes())
    assert np.array_equal(of(planes).colour, RGB)
    for tags in (
        {**tiff_tags(23, 19), 278: 10},
        {**tiff_tags(23, 38), 278: 19},
        {**tiff_tags(23, 19), 278: 0},
        {**tiff_tags(23, 19), 278: 10, 273: [8] * 5000},
        {**apart, 273: [start, start + 437]},
        {**tiff_tags(23, 19), 322: 16, 323: 16, 324: [8] * 3},
    ):
        if 322 in tags:
            del tags[273], tags[278]
        with pytest.raises(ImageBrokenError, match="strips or tiles"):
            of(tiff(tags, strip * 4))


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("options", [{}, {"restart_marker_rows": 1}, {"restart_marker_blocks": 3}, {"optimize": True}])
def test_a_jpeg_that_ends_early_is_not_grey(mode: str, options: dict[str, Any], photo_files: dict[str, bytes]) -> None:
    photo = Image.open(io.BytesIO(photo_files["png"])).convert(mode)
    data = encoded(photo, "JPEG", **options)
    start = data.rindex(b"\xff\xda") + 2
    start += int.from_bytes(data[start : start + 2], "big")
    for percent in (0, 20, 50, 75, 96):
        end = start + (len(data) - start) * percent // 100
        with pytest.raises(ImageBrokenError):
            of(data[:end] + b"\xff\xd9")
    for restart in list(re.finditer(rb"\xff[\xd0-\xd7]", data))[:-3]:  # the last ones may be taken for lost
        with pytest.raises(ImageBrokenError, match="end early"):
            of(data[: restart.start()] + b"\xff\xd9")


@pytest.mark.parametrize("options", [{}, {"restart_marker_rows": 1}, {"progressive": True}, {"quality": 5}])
def test_a_jpeg_that_is_grey_is_restored(options: dict[str, Any]) -> None:
    half = np.hstack([np.arange(40 * 56, dtype=np.uint8).reshape(40, 56), FLAT])
    for image in (FLAT, half, np.vstack([half[:, :56], FLAT])):
        picture = of(encoded(Image.fromarray(image), "JPEG", **options) + b"after the end \xff\xd9")
        assert picture.colour.shape == image.shape
        assert (picture.colour[-8:, -8:] == 128).all()


def test_what_is_no_pixel_is_bounded() -> None:
    """Compressed text and profiles that swell, and metadata that points everywhere."""
    swollen = zlib.compress(bytes(2 * 10**7))
    for name in (b"iCCP", b"zTXt"):
        with pytest.raises(ImageBrokenError, match="too large"):
            of(png(23, 19, ROWS, before=chunk(name, b"k\0\0" + swollen)))
    entries = b"".join(struct.pack("<HHII", tag, 7, 10**6, 8) for tag in range(60000))
    exif = b"II*\0\x08\0\0\0" + struct.pack("<H", 60000) + entries + bytes(10**6)
    assert np.array_equal(of(png(23, 19, ROWS, before=chunk(b"eXIf", exif))).colour, RGB)
    progressive = encoded(Image.fromarray(FLAT), "JPEG", progressive=True)
    scan = progressive[progressive.rindex(b"\xff\xda") : -2]
    with pytest.raises(ImageBrokenError, match="500 scans"):
        of(progressive[:-2] + scan * 600 + b"\xff\xd9")
    part = b"\xff\xe1\0\x10Exif\0\0MM\0*\0\0\0\x08"
    assert np.array_equal(of(progressive[:2] + part * 64 + progressive[2:]).colour, FLAT)
    with pytest.raises(ImageBrokenError, match="too much EXIF"):
        of(progressive[:2] + part * 65 + progressive[2:])


@pytest.mark.parametrize("value", [b"a text", [1, 2, 3], 7])
def test_a_profile_of_another_type_is_none(value: Any) -> None:
    picture = of(tiff({**tiff_tags(23, 19), 34675: value}, RGB.tobytes()))
    assert picture.icc is None or isinstance(value, bytes)
    assert of(encode(picture, "PNG")).width == 23


def test_more_than_8_bits_are_refused_by_their_number() -> None:
    whole = bytes(23 * 19 * 16)
    deep = {
        16: [png(23, 19, whole, bits=16, colour=colour) for colour in (0, 2, 4, 6)],
        32: [tiff({**tiff_tags(23, 19), 258: [32] * 3, 339: [3] * 3}, whole)],
    }
    deep[16] += [tiff({**tiff_tags(23, 19), 258: [16] * 3}, whole), encoded(Image.new("I;16", (5, 4)), "TIFF")]
    for bits, files in deep.items():
        for data in files:
            with pytest.raises(
                ImageFormatError, match=f"{bits} bits a channel, which is not yet supported; convert it"
            ):
                of(data)


# Of 100 megapixels at least, in files of a few kilobytes.
BOMBS = {
    "png": png(60000, 60000, bytes(10**7)),
    "webp": b"RIFF\x64\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0" + (10**4).to_bytes(3, "little") * 2 + bytes(70),
    "lossless": b"RIFF\x64\0\0\0WEBPVP8L\x50\0\0\0\x2f" + struct.pack("<I", 10**4 << 14 | 10**4) + bytes(75),
    "lossy": b"RIFF\x64\0\0\0WEBPVP8 \x50\0\0\0\x10\x02\0\x9d\x01\x2a" + struct.pack("<HH", 10**4, 10**4) + bytes(70),
    "jpeg": encoded(Image.fromarray(FLAT), "JPEG").replace(struct.pack(">HH", 40, 56), b"\xff\xff" * 2),
    "tiff": tiff(tiff_tags(60000, 60000), b"x"),
    "tile": tiff({**tiff_tags(23, 19, 8), 322: 2**15, 323: 2**15, 324: 300, 325: 9}, b"x"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_nothing_is_decoded_of_too_large_an_image(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*_: object) -> None:
        raise AssertionError("it was decoded")

    monkeypatch.setattr(ImageFile.ImageFile, "load", load)
    monkeypatch.setattr("PIL._webp.WebPAnimDecoder", load)
    with pytest.raises(ImageTooLargeError, match="more than the limit of 10000000"):
        of(BOMBS[name], max_pixels=10**7)


def test_too_large_images_take_no_memory(tmp_path: Path) -> None:
    for name, data in BOMBS.items():
        (tmp_path / name).write_bytes(data)
    with (tmp_path / "long").open("wb") as file:
        file.write(BOMBS["png"][:100])
        file.truncate(2**33)
    script = (
        "import resource, sys; from pathlib import Path; import i2sb_rt.image as image\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "for path in sorted(Path(sys.argv[1]).iterdir()):\n"
        "  try: image.read(path, 10**6)\n"
        "  except image.ImageTooLargeError: print(path.name, end=' ')\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    run = subprocess.run([sys.executable, "-c", script, tmp_path], capture_output=True, text=True, check=True)
    *refused, kilobytes = run.stdout.split()
    assert refused == sorted([*BOMBS, "long"])
    assert int(kilobytes) < 150_000  # of which the long file, that is read until it is too long, takes half


def test_what_is_damaged_is_a_picture_or_an_error_of_ours() -> None:
    outcomes: dict[str, set[str]] = {ending: set() for ending in ENDINGS}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for name, data in mutants(6000, seed=20):
            picture, outcome = None, "picture"
            try:
                picture = of(data, max_pixels=10**5)
            except ImageError as error:
                outcome, sentence = error.code, str(error)
            if picture is None:
                assert sentence.startswith("standard input ")
                assert len(sentence.splitlines()) == 1
            else:
                assert 0 < picture.width * picture.height <= 10**5
                assert picture.colour.dtype == np.uint8
                assert picture.colour.shape[2:] in ((), (3,))
                assert picture.alpha is None or picture.alpha.shape == (picture.height, picture.width)
                assert picture.icc is None or isinstance(picture.icc, bytes)
            outcomes[name.split(".")[-1]].add(outcome)
    for found in outcomes.values():
        assert found >= {"picture", "image_broken", "image_format"}
    assert {Path(warning.filename).parent.name for warning in caught} <= {"PIL"}


def test_decoders_do_not_write_to_the_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    for tags in (tiff_tags(23, 19, 8), tiff_tags(23, 19, 5), {**tiff_tags(23, 19), 258: [8] * 9, 277: 9}):
        with pytest.raises(ImageBrokenError):
            of(tiff({**tags, 279: 50}, b"no strip" * 9))
    assert capfd.readouterr() == ("", "")


def test_damaged_files_through_the_command(tmp_path: Path, toy_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for i, (name, data) in enumerate(mutants(24, seed=4)):
        (tmp_path / f"in/{i:02}_{name}").write_bytes(data)
    (tmp_path / "in/sound.png").write_bytes(sound_files()["rgba.png"])
    arguments = ["restore", "-n", str(toy_path), "in", "-o", "out", "--json", "--max-pixels", "20k"]
    start = [sys.executable, "-m", "i2sb_rt.cli", *arguments]
    run = subprocess.run(
        start, capture_output=True, text=True, cwd=tmp_path, env={**os.environ, "PYTHONWARNINGS": "always"}
    )
    assert run.returncode == 3
    *images, last = [json.loads(line) for line in run.stdout.splitlines()]
    failed = [image for image in images if image["status"] == "failed"]
    assert (len(images), last["summary"]["failed"]) == (25, len(failed))
    assert 5 < len(failed) < 25
    for image in failed:
        assert image["error"]["code"] in {"image_broken", "image_format", "image_too_large"}
        assert image["error"]["message"].startswith(image["in"])
    told = run.stderr.splitlines()
    assert [line for line in told if not line.startswith(("i2sb-rt: in/", "  in/"))] == [
        f"i2sb-rt: {len(failed)} of 25 failed:"
    ]
    written = {path.relative_to(tmp_path).as_posix() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert written == {image["out"] for image in images if image["status"] == "ok"}
    assert "out/sound.png" in written


def test_grey_alpha_and_palettes_of_few_bits() -> None:
    """What Pillow writes itself is tested elsewhere; these rows are packed by hand."""
    levels: U8 = np.arange(12, dtype=np.uint8).reshape(3, 4) % 4
    packed = b"".join(b"\0" + bytes([row[0] << 6 | row[1] << 4 | row[2] << 2 | row[3]]) for row in levels.tolist())
    assert np.array_equal(of(png(4, 3, packed, bits=2, colour=0)).colour, levels * 85)
    colours = np.array([[9, 8, 7], [250, 1, 2], [3, 240, 4], [5, 6, 230]], np.uint8)
    before = chunk(b"PLTE", colours.tobytes()) + chunk(b"tRNS", b"\x80\0")
    picture = of(png(4, 3, packed, before=before, bits=2, colour=3))
    assert np.array_equal(picture.colour, colours[levels])
    assert picture.alpha is not None
    assert np.array_equal(picture.alpha, np.array([128, 0, 255, 255], np.uint8)[levels])


@pytest.mark.parametrize("interlaced", [0, 1])
@pytest.mark.parametrize("bits", [1, 2, 4])
def test_the_clear_level_of_grey_of_few_bits(bits: int, interlaced: int) -> None:
    """One row of one pixel, which is the first pass of an interlaced one too."""
    most = 2**bits - 1
    for clear in range(most + 1):
        before = chunk(b"tRNS", struct.pack(">H", clear))
        for level in range(most + 1):
            row = bytes([0, level << 8 - bits])
            picture = of(png(1, 1, row, before=before, bits=bits, colour=0, adam7=interlaced))
            assert picture.colour.item() == level * 255 // most
            assert picture.alpha is not None
            assert picture.alpha.item() == (0 if level == clear else 255)
