"""Pictures of a bridge, drawn while it is fitted: its marginals, the ways that lead there, and how near they come."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from torch import Tensor

from i2sb_rt.model_file import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLUMNS: Final = 6
_WAYS: Final = 60
_IMAGES: Final = 8


def draw_paths(states: list[Tensor], wanted: Tensor, title: str, path: Path) -> None:
    """Draw one direction into a .png file.

    states: those of a simulation, each [B, C, H, W]; wanted: held-out states of where it should lead. Points are shown
    by their first two coordinates: their marginals on the way, beside what is wanted, and some whole ways. Images are
    shown on their way, one a row, beside one that is wanted.
    """
    from matplotlib.figure import Figure

    shown = np.linspace(0, len(states) - 1, _COLUMNS).round().astype(int)
    images = states[0].shape[-1] > 1
    rows = min(_IMAGES, len(wanted), len(states[0])) if images else 1
    size = (1.1 * (_COLUMNS + 1), 1.1 * rows + 0.4) if images else (2.2 * (_COLUMNS + 2), 2.6)
    figure = Figure(figsize=size, layout="constrained")
    figure.suptitle(title)
    if images:
        axes = figure.subplots(rows, _COLUMNS + 1, squeeze=False)
        for row in range(rows):
            for column, k in enumerate(shown):
                _show(axes[row, column], states[k][row])
            _show(axes[row, -1], wanted[row])
    else:
        axes = figure.subplots(1, _COLUMNS + 2, sharex=True, sharey=True, squeeze=False)
        for column, k in enumerate(shown):
            _scatter(axes[0, column], states[k], f"state {k}")
        _scatter(axes[0, -2], wanted, "held out")
        ways = np.stack([_plane(state[:_WAYS]) for state in states])
        axes[0, -1].plot(ways[..., 0], ways[..., 1], lw=0.4, color="tab:blue", alpha=0.6)
        axes[0, -1].plot(*ways[-1].T, ".", ms=3, color="tab:orange")
        axes[0, -1].set_title("ways", fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=80)


def draw_measures(measures: list[dict[str, Any]], title: str, path: Path) -> None:
    """Draw the sliced Wasserstein distances of both directions over the iterations into a .png file.

    measures: what was told of each half, its `half`, `direction`, `sliced_wasserstein` and `floor`, which is dashed.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(5, 3.2), layout="constrained")
    axes = figure.subplots()
    for direction, colour in (("backward", "tab:blue"), ("forward", "tab:orange")):
        told = [one for one in measures if one["direction"] == direction]
        iterations = [(one["half"] + 1) // 2 for one in told]
        axes.plot(iterations, [one["sliced_wasserstein"] for one in told], ".-", color=colour, label=direction)
        axes.plot(iterations, [one["floor"] for one in told], "--", color=colour, lw=0.8)
    axes.set(title=title, xlabel="iteration", ylabel="sliced Wasserstein distance", ylim=(0, None))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(title="dashed: two held-out sets")
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=100)


def _plane(points: Tensor) -> Any:
    """Return the first two coordinates of points, [B, 2]; those of a line lie on it."""
    flat = points.flatten(1).cpu().numpy()
    return flat[:, :2] if flat.shape[1] > 1 else np.concatenate([flat, 0 * flat], 1)


def _scatter(axes: Axes, points: Tensor, title: str) -> None:
    axes.plot(*_plane(points).T, ".", ms=1.2, color="black", alpha=0.5)
    axes.set_title(title, fontsize=8)
    axes.tick_params(labelsize=6)
    axes.set_aspect("equal")


def _show(axes: Axes, image: Tensor) -> None:
    pixels = ((image.clamp(-1, 1) + 1) / 2).permute(1, 2, 0).cpu().numpy()
    axes.imshow(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels, cmap="gray", vmin=0, vmax=1)
    axes.set_axis_off()
