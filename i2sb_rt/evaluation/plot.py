"""Metrics over the number of network calls, drawn with matplotlib."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from i2sb_rt.errors import UsageError
from i2sb_rt.evaluation.rows import SHOWN, Row
from i2sb_rt.image import write_bytes

ENDINGS: Final = (".png", ".svg", ".pdf")
MARKERS: Final = "osD^vP"
WIDE: Final = 10  # the axis is logarithmic where the largest NFE is so many times the smallest


def check(path: Path) -> None:
    """Raise UsageError for an ending that is not drawn, and where matplotlib is not installed."""
    if path.suffix.lower() not in ENDINGS:
        raise UsageError(f"--plot {path}: the format follows from the ending, one of {', '.join(ENDINGS)}")
    _figure_class()


def plot(rows: Sequence[Row], title: str, path: Path) -> None:
    """Draw a panel a metric, a line a task and sampler, dotted what the damaged pictures have. Raises OutputError."""
    names = list(rows[0].before)
    figure = _figure_class()(figsize=(4.2 * len(names), 4.6), layout="constrained")
    panels = figure.subplots(1, len(names), squeeze=False)[0]
    for name, panel in zip(names, panels, strict=True):
        _draw(panel, rows, name)
    figure.suptitle(title)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize="small")
    buffer = io.BytesIO()
    figure.savefig(buffer, format=path.suffix.lower()[1:], dpi=150)
    write_bytes(buffer.getvalue(), path)


def _draw(panel: Any, rows: Sequence[Row], name: str) -> None:
    tasks, samplers = (list(dict.fromkeys(values)) for values in zip(*((r.task, r.sampler) for r in rows), strict=True))
    for number, task in enumerate(tasks):
        before = next(row.before[name] for row in rows if row.task == task)
        if math.isfinite(before):
            colour = f"C{number % 10}" if len(tasks) > 1 else "grey"
            panel.axhline(before, color=colour, linestyle=":", linewidth=1, label=f"{task}, damaged")
        # A marker a sampler; a colour a task, or with one task a sampler too.
        for index, (marker, sampler) in enumerate(zip(MARKERS, samplers, strict=False)):
            colour = f"C{(number if len(tasks) > 1 else index) % 10}"
            points = sorted((r.nfe, r.after[name]) for r in rows if (r.task, r.sampler) == (task, sampler))
            panel.plot(*zip(*points, strict=True), color=colour, marker=marker, label=f"{task}, {sampler}")
    calls = sorted({row.nfe for row in rows})
    if calls[-1] >= WIDE * calls[0]:
        panel.set_xscale("log")
    panel.set_xticks(calls, labels=[str(count) for count in calls], minor=False)
    panel.minorticks_off()
    panel.set_xlabel("network calls (NFE)")
    panel.set_title({"psnr": "PSNR (dB)", "sharpness": "sharpness (% of clean)"}.get(name, SHOWN[name][0]))


def _figure_class() -> Any:
    try:
        from matplotlib.figure import Figure  # without pyplot, which would have a state for the whole process
    except ImportError as error:
        raise UsageError("--plot needs matplotlib: pip install 'i2sb-rt[eval]'") from error
    return Figure
