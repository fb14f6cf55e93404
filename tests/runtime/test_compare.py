import numpy as np
import pytest

from i2sb_rt.compare import compare
from i2sb_rt.image import Picture

RNG = np.random.default_rng(5)


def picture(height: int, width: int, channels: int = 3) -> Picture:
    shape = (height, width) if channels == 1 else (height, width, channels)
    return Picture(RNG.integers(0, 256, shape, dtype=np.uint8))


def test_both_pictures_stand_on_the_sheet_pixel_for_pixel() -> None:
    before, after = picture(300, 400), picture(300, 400)
    sheet = compare(before, after, ("before: a.jpg", "after: jpeg")).colour
    bar = sheet.shape[0] - 300
    assert bar > 0
    np.testing.assert_array_equal(sheet[bar:, :400], before.colour)
    np.testing.assert_array_equal(sheet[bar:, -400:], after.colour)
    gap = sheet[:, 400:-400]
    assert gap.size > 0
    assert (gap == sheet[0, 400]).all()


def test_each_picture_has_its_own_label() -> None:
    before = picture(300, 400)
    plain = compare(before, before, ("", "")).colour
    left = compare(before, before, ("one", "")).colour
    right = compare(before, before, ("", "one")).colour
    bar = plain.shape[0] - 300
    assert (plain[:bar] == plain[0, 0]).all()
    assert (left[:bar, :400] != plain[0, 0]).any()
    assert (left[:bar, 400:] == plain[0, 0]).all()
    np.testing.assert_array_equal(right[:bar, -400:], left[:bar, :400])


def test_a_smaller_picture_before_is_enlarged() -> None:
    before, after = picture(100, 75), picture(400, 300)
    sheet = compare(before, after, ("", "")).colour
    bar = sheet.shape[0] - 400
    np.testing.assert_array_equal(sheet[bar:, :300], before.colour.repeat(4, axis=0).repeat(4, axis=1))
    np.testing.assert_array_equal(sheet[bar:, -300:], after.colour)
    for other in (picture(401, 300), picture(400, 301), picture(50, 75)):
        with pytest.raises(ValueError, match="differ in size"):
            compare(before, other, ("", ""))


def test_wide_pictures_stand_above_each_other_and_small_ones_are_enlarged() -> None:
    before, after = picture(20, 60), picture(20, 60)
    sheet = compare(before, after, ("a", "b")).colour
    factor = sheet.shape[1] // 60
    assert sheet.shape[1] == 60 * factor >= 256
    large = np.kron(after.colour, np.ones((factor, factor, 1), np.uint8))
    np.testing.assert_array_equal(sheet[-20 * factor :], large)


def test_a_long_label_is_cut() -> None:
    before = picture(300, 300)
    sheet = compare(before, before, ("w" * 500, "")).colour
    bar = sheet.shape[0] - 300
    assert (sheet[:bar, :300] != sheet[0, 0]).any()
    assert (sheet[:bar, 300:] == sheet[0, 0]).all()


def test_grey_and_transparent_pictures_are_drawn() -> None:
    grey = picture(300, 300, 1)
    clear = Picture(np.full((300, 300, 3), 255, np.uint8), np.zeros((300, 300), np.uint8))
    sheet = compare(grey, clear, ("", "")).colour
    np.testing.assert_array_equal(sheet[-300:, :300], np.repeat(grey.colour[..., None], 3, axis=2))
    assert (sheet[-300:, -300:] == sheet[0, 0]).all()


def test_refuses_two_sizes() -> None:
    with pytest.raises(ValueError, match="size"):
        compare(picture(3, 4), picture(4, 3), ("", ""))
