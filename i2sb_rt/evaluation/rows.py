"""What an evaluation comes to: a row for each task, sampler and number of network calls."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from i2sb_rt.evaluation.scores import Features, Score, Scorer

# How a metric is called and written in the table.
SHOWN: Final = {
    "psnr": ("PSNR", ".2f"),
    "ssim": ("SSIM", ".4f"),
    "sharpness": ("sharpness", ".1f"),
    "lpips": ("LPIPS", ".4f"),
    "fid": ("FID", ".2f"),
    "kid": ("KID", ".5f"),
}


@dataclass(frozen=True, eq=False)
class Judged:
    """One picture in one task. about: what the JSON line says of it; clean: the features of the clean picture.

    before: the damaged picture's score; after: those of what was restored of it, one a run.
    """

    about: dict[str, Any]
    clean: Features
    before: Score
    after: tuple[Score, ...]


@dataclass(frozen=True, eq=False)
class Row:
    """One way of restoring, over all pictures. before, after: the metrics by name; harmed: pictures whose PSNR fell.

    each: the pictures, with their own figures. harmed is None where PSNR is not measured.
    """

    task: str
    sampler: str
    nfe: int
    before: dict[str, float]
    after: dict[str, float]
    harmed: int | None
    each: tuple[dict[str, Any], ...]

    def record(self) -> dict[str, Any]:
        """Return the row as JSON takes it; what is not finite is None."""
        ways = {"task": self.task, "sampler": self.sampler, "nfe": self.nfe, "pictures": len(self.each)}
        return {**ways, **_figures(self.before, self.after), "harmed": self.harmed, "each": list(self.each)}


def rows_of(task: str, runs: Sequence[tuple[str, int]], judged: Sequence[Judged], scorer: Scorer) -> list[Row]:
    """Return the rows of a task. runs: (sampler, nfe), as in `Judged.after`; judged: one picture or more."""
    clean = [picture.clean for picture in judged]
    before = scorer.summary(clean, [picture.before for picture in judged])
    rows = []
    for number, (sampler, nfe) in enumerate(runs):
        pairs = [(picture.before.values, picture.after[number].values) for picture in judged]
        after = scorer.summary(clean, [picture.after[number] for picture in judged])
        harmed = sum(b["psnr"] > a["psnr"] for b, a in pairs) if "psnr" in before else None
        each = tuple({**picture.about, **_figures(*pair)} for picture, pair in zip(judged, pairs, strict=True))
        rows.append(Row(task, sampler, nfe, before, after, harmed, each))
    return rows


def table(rows: Sequence[Row]) -> str:
    """Write rows, of the same pictures and metrics, as a Markdown table."""
    return markdown([_head(rows[0]), *(_cells(row) for row in rows)], text=2)


def markdown(lines: Sequence[Sequence[str]], text: int) -> str:
    """Write a head and lines of cells as a Markdown table; the first `text` columns hold words, the others numbers."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    rule = ["-" * (width - (k >= text)) + ":" * (k >= text) for k, width in enumerate(widths)]
    forms = [f"{'<' if k < text else '>'}{width}" for k, width in enumerate(widths)]
    return "\n".join("| " + " | ".join(map(format, line, forms)) + " |" for line in (lines[0], rule, *lines[1:]))


def _head(row: Row) -> list[str]:
    head = ["task", "sampler", "NFE"]
    for name in row.before:
        head += [f"{SHOWN[name][0]} before", "after", *(["gain (dB)"] if name == "psnr" else [])]
    return head if row.harmed is None else [*head, f"harmed, of {len(row.each)}"]


def _cells(row: Row) -> list[str]:
    cells = [row.task, row.sampler, str(row.nfe)]
    for name, before in row.before.items():
        after, form = row.after[name], SHOWN[name][1]
        cells += [format(before, form), format(after, form)]
        if name == "psnr":
            cells.append(f"{_gain(before, after):+.2f}")
    return cells if row.harmed is None else [*cells, str(row.harmed)]


def _figures(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float | None]:
    figures: dict[str, float] = {}
    for name in before:
        figures |= {f"{name}_before": before[name], f"{name}_after": after[name]}
        if name == "psnr":
            figures["psnr_gain"] = _gain(before[name], after[name])
    return {name: value if math.isfinite(value) else None for name, value in figures.items()}


def _gain(before: float, after: float) -> float:
    return 0.0 if before == after else after - before  # two equal pictures have an infinite PSNR
