"""EXIF on its way from a picture's file to its result's: what tells of the photo stays, what no longer holds goes.

EXIF is a TIFF file without pixels (CIPA DC-008): a directory of entries, and behind two of them a directory each, of
the exposure and of the place. Values are carried as the bytes that they are.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from typing import Final, Literal, NamedTuple

PREFIX: Final = b"Exif\0\0"
"""What EXIF begins with in a JPEG file, and in Pillow."""

_MOST: Final = 65_000  # bytes; a JPEG file holds 65533
_ORDERS: Final = {b"II*\0": "<", b"MM\0*": ">"}
# The bytes that a type swaps.
_UNITS: Final = {1: 1, 2: 1, 3: 2, 4: 4, 5: 4, 6: 1, 7: 1, 8: 2, 9: 4, 10: 4, 11: 4, 12: 8, 13: 4}
_FRACTIONS: Final = (5, 10)  # types of two units
_SHORT, _LONG = 3, 4
_ORIENTATION: Final = 274
_ON_ITS_SIDE: Final = (5, 6, 7, 8)  # the orientations that a picture is turned a quarter from
_SUBS: Final = (34665, 34853)  # the exposure, the place
# Description, make, model, resolution and unit, software, date, artist, host, rating twice, copyright, Windows' words.
_KEPT: Final = (270, 271, 272, 282, 283, 296, 305, 306, 315, 316, 18246, 18249, 33432, *range(40091, 40096))
# The maker's note holds places in its old file; then the size in pixels and what is counted in them; more directories.
_DROPPED: Final = (37500, 40962, 40963, 37396, 41492, 40965)


class _Entry(NamedTuple):
    kind: int
    number: int
    value: bytes


_Directory = dict[int, _Entry]


def upright(exif: bytes) -> bytes | None:
    """Return what a picture's EXIF says beside its pixels, as EXIF of the upright picture; None if that is nothing.

    exif: with or without `PREFIX`; a TIFF file will do. The thumbnail, the maker's note and what is told in pixels are
    left out. So is all of it where it is damaged or does not fit into a JPEG file.
    """
    try:
        data = exif.removeprefix(PREFIX)
        order, place = _head(data)
        whole = _read(data, order, place, lambda tag: tag in (*_KEPT, *_SUBS, _ORIENTATION), _MOST)
        if _is_on_its_side(whole.pop(_ORIENTATION, None), order):
            places = {282: 283, 283: 282}  # the resolutions
            whole |= {places[tag]: whole.pop(tag) for tag in places if tag in whole}
        subs = _behind(whole, data, order, lambda tag: tag not in _DROPPED, _MOST)
    except (struct.error, ValueError):
        return None
    subs = {tag: sub for tag, sub in subs.items() if sub}
    if not whole and not subs:
        return None
    whole[_ORIENTATION] = _Entry(_SHORT, 1, struct.pack(order + "H", 1))
    head = data[:4] + struct.pack(order + "I", 8)
    made = PREFIX + head + _written(whole, subs, order, len(head))
    return made if len(made) <= _MOST else None


def added_to_tiff(file: bytes, exif: bytes) -> bytes:
    """Return a TIFF file with the entries of `upright` EXIF among its own, which come first where both have one."""
    data = exif.removeprefix(PREFIX)
    order, place = _head(file)
    theirs, first = _head(data)
    whole = _read(data, theirs, first)
    subs = _behind(whole, data, theirs)
    if order != theirs:
        whole, subs = _swapped(whole), {tag: _swapped(sub) for tag, sub in subs.items()}
    whole |= _read(file, order, place)
    body = file + bytes(len(file) % 2)
    return body[:4] + struct.pack(order + "I", len(body)) + body[8:] + _written(whole, subs, order, len(body))


def is_on_its_side(exif: bytes) -> bool:
    """Whether EXIF says that the picture is to be turned a quarter; what is damaged says nothing."""
    try:
        data = exif.removeprefix(PREFIX)
        order, place = _head(data)
        found = _read(data, order, place, lambda tag: tag == _ORIENTATION, _MOST)
    except (struct.error, ValueError):
        return False
    return _is_on_its_side(found.get(_ORIENTATION), order)


def _is_on_its_side(orientation: _Entry | None, order: str) -> bool:
    byteorder: Literal["little", "big"] = "little" if order == "<" else "big"
    return orientation is not None and int.from_bytes(orientation.value, byteorder) in _ON_ITS_SIDE


def _head(data: bytes) -> tuple[str, int]:
    """Return the order of bytes and the place of the first directory."""
    if data[:4] not in _ORDERS:
        raise ValueError("this is no EXIF")
    order = _ORDERS[data[:4]]
    return order, struct.unpack_from(order + "I", data, 4)[0]


def _every(tag: int) -> bool:
    return True


def _read(
    data: bytes, order: str, place: int, wanted: Callable[[int], bool] = _every, most: float = math.inf
) -> _Directory:
    """Return the wanted entries of the directory at a place; those of unknown types or without a value say nothing.

    Raises struct.error or ValueError where it is damaged, or its values have more bytes than `most`: entries may share
    theirs, so a short file can hold any number.
    """
    found: _Directory = {}
    (count,) = struct.unpack_from(order + "H", data, place)
    for start in range(place + 2, place + 2 + 12 * count, 12):
        tag, kind, number = struct.unpack_from(order + "HHI", data, start)
        size = _UNITS.get(kind, 0) * number * (2 if kind in _FRACTIONS else 1)
        if not size or not wanted(tag):
            continue
        begin = start + 8 if size <= 4 else struct.unpack_from(order + "I", data, start + 8)[0]
        most -= size
        if most < 0 or begin + size > len(data):
            raise ValueError(f"the entry {tag} is damaged or too long")
        found[tag] = _Entry(kind, number, data[begin : begin + size])
    return found


def _behind(
    whole: _Directory, data: bytes, order: str, wanted: Callable[[int], bool] = _every, most: float = math.inf
) -> dict[int, _Directory]:
    """Take the entries that name further directories out of a directory, and return what those name."""
    places = {tag: struct.unpack(order + "I", whole.pop(tag).value)[0] for tag in _SUBS if tag in whole}
    return {tag: _read(data, order, place, wanted, most) for tag, place in places.items()}


def _written(whole: _Directory, subs: dict[int, _Directory], order: str, place: int) -> bytes:
    """Return a directory and those behind it as they stand at a place of a file."""
    whole = whole | dict.fromkeys(subs, _Entry(_LONG, 1, bytes(4)))
    end, behind = place + len(_laid_out(whole, order, place)), b""
    for tag, sub in subs.items():
        whole[tag] = _Entry(_LONG, 1, struct.pack(order + "I", end + len(behind)))
        behind += _laid_out(sub, order, end + len(behind))
    return _laid_out(whole, order, place) + behind


def _laid_out(directory: _Directory, order: str, place: int) -> bytes:
    """Return one directory as it stands at a place, with the values that are longer than four bytes behind it."""
    table, values = struct.pack(order + "H", len(directory)), b""
    behind = place + 2 + 12 * len(directory) + 4
    for tag, (kind, number, value) in sorted(directory.items()):
        table += struct.pack(order + "HHI", tag, kind, number)
        if len(value) > 4:
            table += struct.pack(order + "I", behind + len(values))
            values += value + bytes(len(value) % 2)
        else:
            table += value.ljust(4, b"\0")
    return table + bytes(4) + values


def _swapped(directory: _Directory) -> _Directory:
    """Return the entries in the other order of bytes."""
    return {tag: _Entry(kind, number, _turned(value, _UNITS[kind])) for tag, (kind, number, value) in directory.items()}


def _turned(value: bytes, unit: int) -> bytes:
    return b"".join(value[k : k + unit][::-1] for k in range(0, len(value), unit))
