"""Plots the log of a training."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

PANELS = {
    "loss": ("loss", "loss_d", "loss_g"),
    "mean sign of the scores": ("real_sign", "fake_sign"),
    "augmentation, p": ("p",),
    "KID to val": ("kid_val",),
    "diversity": ("diversity",),
}
"""Title and columns of each panel; columns that a log does not have are left out."""
RANGES = {"mean sign of the scores": (-1.05, 1.05), "augmentation, p": (-0.05, 1.05), "diversity": (0, None)}
LINEAR_BELOW = 1e-2
"""KID up to which its axis is linear: smaller values are noise, and may be negative."""
COLOURS = ("#1f77b4", "#d95f02", "#1b9e77")

log = logging.getLogger(__name__)


def save_curves(rows: Sequence[Mapping[str, float]], path: Path) -> None:
    """Plot the log over `kimg` into the PNG `path`; without matplotlib, log a warning."""
    try:
        # matplotlib is optional: training alone does not install it.
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        log.warning("%s was not drawn: matplotlib is not installed", path.name)
        return
    seen = set().union(*rows)
    panels = {title: [name for name in names if name in seen] for title, names in PANELS.items() if seen & {*names}}
    figure = Figure(figsize=(8, 1 + 1.7 * len(panels)), dpi=100, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    for (title, names), axes in zip(
        panels.items(), figure.subplots(len(panels), sharex=True, squeeze=False)[:, 0], strict=True
    ):
        for name, colour in zip(names, COLOURS, strict=False):
            there = [row for row in rows if name in row]
            few = "o" if len(there) < 30 else None
            line = [[row[key] for row in there] for key in ("kimg", name)]
            axes.plot(*line, color=colour, linewidth=1.5, marker=few, markersize=3, label=name)
        axes.set_title(title, loc="left", fontsize=10)
        if title in RANGES:
            axes.set_ylim(RANGES[title])
        if title == "KID to val":
            axes.set_yscale("symlog", linthresh=LINEAR_BELOW, subs=(2, 5))
            for say in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
                say("{x:g}")
        if len(names) > 1:
            axes.legend(frameon=False, fontsize=8)
        axes.grid(alpha=0.2)
        axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel("real slices shown, thousands")
    figure.savefig(path)
