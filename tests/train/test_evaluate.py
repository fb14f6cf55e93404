"""The evaluation table: what it counts, and that mistakes are sentences."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from i2sb_train import evaluate as module
from i2sb_train.degrade import jpeg
from i2sb_train.evaluate import evaluate, main, table
from i2sb_train.metrics import Pixels, psnr, ssim
from i2sb_train.procedural import dead_leaves


def clean(count: int = 2) -> list[Pixels]:
    return [dead_leaves(32, np.random.default_rng(i)) for i in range(count)]


def test_a_restorer_that_does_nothing_gains_nothing() -> None:
    pictures = clean()
    rows = evaluate(lambda damaged, _: damaged, pictures, [5, 40], [1, 3])
    assert [(row.quality, row.nfe) for row in rows] == [(5, 1), (5, 3), (40, 1), (40, 3)]
    for row in rows:
        damaged = [jpeg(p, row.quality) for p in pictures]
        assert (
            row.psnr_before == row.psnr_after == np.mean([psnr(p, d) for p, d in zip(pictures, damaged, strict=True)])
        )
        assert (
            row.ssim_before == row.ssim_after == np.mean([ssim(p, d) for p, d in zip(pictures, damaged, strict=True)])
        )
        assert row.harmed == 0


def test_harm_is_counted() -> None:
    rows = evaluate(lambda damaged, nfe: damaged if nfe == 1 else 255 - damaged, clean(3), [20], [1, 2])
    assert [row.harmed for row in rows] == [0, 3]


def test_the_table_has_a_line_a_row() -> None:
    text = table([module.Row(10, 1, 26.0, 27.234, 0.7, 0.75, 0, 0.1)])
    assert text.splitlines()[-1] == "| 10 | 1 | 26.00 | 27.23 | +1.23 | 0.7000 | 0.7500 | 0 |"


def test_mistakes_are_sentences(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.fromarray(clean(1)[0]).save(tmp_path / "a.png")
    for arguments, message in (
        (["jpeg", "--images", str(tmp_path / "none")], "does not exist"),
        (["jpeg", "--images", str(tmp_path), "--qualities", "0"], "within 1 to 95"),
        ([str(tmp_path / "none.onnx"), "--images", str(tmp_path)], "none.onnx"),
    ):
        assert main(arguments) == 2
        assert message in capsys.readouterr().err
