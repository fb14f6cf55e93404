"""The tables of a model card: JPEG photos before and after, through the product's own public API.

    python -m i2sb_train.evaluate MODEL --images FOLDER [--qualities 5 10 20 40] [--nfe 1] [--json FILE]

Clean pictures are compressed by Pillow with its own subsampling, restored whole files at a time by
`i2sb_rt.load(MODEL).restore`, and compared in RGB.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from i2sb_rt.errors import I2SBError, UsageError
from i2sb_train.data import list_pictures, read_picture
from i2sb_train.degrade import jpeg
from i2sb_train.metrics import Pixels, psnr, ssim

Restore = Callable[[Pixels, int], Pixels]


@dataclass(frozen=True)
class Row:
    """Means over all pictures at one quality and number of network calls; seconds is the time of a picture."""

    quality: int
    nfe: int
    psnr_before: float
    psnr_after: float
    ssim_before: float
    ssim_after: float
    harmed: int
    seconds: float


def evaluate(restore: Restore, pictures: Sequence[Pixels], qualities: Sequence[int], nfes: Sequence[int]) -> list[Row]:
    """Score restore(damaged, nfe) on clean pictures, uint8 [H, W, 3]; `harmed` counts pictures whose PSNR fell."""
    rows = []
    for quality in qualities:
        damaged = [jpeg(picture, quality) for picture in pictures]
        before = [(psnr(c, d), ssim(c, d)) for c, d in zip(pictures, damaged, strict=True)]
        for nfe in nfes:
            began = time.perf_counter()
            restored = [restore(d, nfe) for d in damaged]
            seconds = (time.perf_counter() - began) / len(pictures)
            after = [(psnr(c, r), ssim(c, r)) for c, r in zip(pictures, restored, strict=True)]
            harmed = sum(a[0] < b[0] for a, b in zip(after, before, strict=True))
            (p0, s0), (p1, s1) = np.mean(before, axis=0), np.mean(after, axis=0)
            rows.append(Row(quality, nfe, float(p0), float(p1), float(s0), float(s1), harmed, seconds))
    return rows


def table(rows: Sequence[Row]) -> str:
    """Write rows as a Markdown table."""
    lines = [
        "| QF | NFE | PSNR before | after | gain (dB) | SSIM before | after | pictures harmed |",
        "|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for r in rows:
        gain = r.psnr_after - r.psnr_before
        psnrs = f"{r.psnr_before:.2f} | {r.psnr_after:.2f} | {gain:+.2f}"
        lines.append(f"| {r.quality} | {r.nfe} | {psnrs} | {r.ssim_before:.4f} | {r.ssim_after:.4f} | {r.harmed} |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; 0, or 2 with a sentence for what the user can correct."""
    parser = argparse.ArgumentParser(prog="python -m i2sb_train.evaluate", description="Score a JPEG model.")
    parser.add_argument("model", help="a shipped model's name or an .onnx file")
    parser.add_argument("--images", type=Path, required=True, metavar="DIR", help="clean pictures")
    parser.add_argument("--qualities", type=int, nargs="+", default=[5, 10, 20, 40], metavar="QF")
    parser.add_argument("--nfe", type=int, nargs="+", default=[1], metavar="N")
    parser.add_argument("--sampler", help="in place of the model's own")
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows there as well")
    args = parser.parse_args(argv)
    try:
        rows = _evaluate_model(args)
        if args.json is not None:
            args.json.write_text(json.dumps([dataclasses.asdict(row) for row in rows], indent=1) + "\n")
    except (I2SBError, OSError) as error:
        print(f"evaluate: {error}", file=sys.stderr)
        return 2
    print(table(rows))
    return 0


def _evaluate_model(args: argparse.Namespace) -> list[Row]:
    from i2sb_rt import load

    if min(args.qualities) < 1 or max(args.qualities) > 95:
        raise UsageError(f"--qualities must be within 1 to 95, not {args.qualities}")
    pictures = [read_picture(path) for path in list_pictures([args.images])]
    model = load(args.model, engine=args.engine)

    def restore(damaged: Pixels, nfe: int) -> Pixels:
        return np.asarray(model.restore(damaged, nfe=nfe, sampler=args.sampler), np.uint8)

    return evaluate(restore, pictures, args.qualities, args.nfe)


if __name__ == "__main__":
    sys.exit(main())
