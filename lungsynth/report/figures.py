"""Pictures of a run: real beside synthetic slices, intervals by arm, and the losses."""

from collections.abc import Mapping
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont

from lungsynth.evaluation.scorecard import Metric
from lungsynth.slicing.render import outline
from lungsynth.verdict.comparison import CHOSEN

THEMES = ("light", "dark")
INKS = {"light": "#33404d", "dark": "#c3ccd6"}
"""Colour of text and axes by theme: legible on the page's light or dark background."""
SYNTHETIC, OTHER = "#0f8b8d", "#c9772b"
OUTLINE = (255, 176, 46)
"""Colour of a mask's edge on grey slices."""
SHEET_GREYS = 255, 32  # ground and text
COLUMNS, ROWS = 4, 2
TILE = 96  # pixels, so that the sheet is about as wide as a README
GAP, GUTTER, BAND = 4, 28, 40  # pixels: between slices, between real and synthetic, above each class


def sample_sheet(real: np.ndarray, synthetic: np.ndarray, classes: tuple[str, ...]) -> Image.Image:
    """Real slices on the left, synthetic ones on the right, one labelled band for each class.

    Args:
        real: uint8, classes × (`ROWS`·`COLUMNS`) × H × W; and so is `synthetic`.
        classes: names, in the order of the arrays' first axis.
    """
    ground, ink = SHEET_GREYS
    width, band = COLUMNS * (TILE + GAP) - GAP, BAND + ROWS * (TILE + GAP)
    sheet = Image.new("L", (2 * width + GUTTER, len(classes) * band - GAP), ground)
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=24)
    for row, name in enumerate(classes):
        for left, kind, slices in ((0, "real", real[row]), (width + GUTTER, "synthetic", synthetic[row])):
            pen.text((left, row * band + BAND // 2), f"{name}, {kind}", fill=ink, font=font, anchor="lm")
            grey, opaque = block(slices, COLUMNS, TILE).split()
            sheet.paste(grey, (left, row * band + BAND), opaque)
    return sheet


def block(slices: np.ndarray, across: int, tile: int, *, masks: np.ndarray | None = None) -> Image.Image:
    """Slices (uint8, K×H×W) in rows of `across`, each `tile` pixels wide and high; the gaps between are transparent.

    Args:
        masks: of the slices, uint8 K×H×W of 0 and 1, to be outlined; the picture is in colour then.
    """
    down, step = -(-len(slices) // across), tile + GAP
    picture = Image.new("LA" if masks is None else "RGBA", (across * step - GAP, down * step - GAP))
    for place, pixels in enumerate(slices):
        resized = Image.fromarray(pixels).resize((tile, tile), Image.Resampling.BICUBIC)
        if masks is not None:
            mask = Image.fromarray(masks[place] * np.uint8(255)).resize((tile, tile), Image.Resampling.BICUBIC)
            edge = outline((np.asarray(mask) > 127).astype(np.uint8))
            resized = resized.convert("RGB")
            resized.paste(OUTLINE, mask=Image.fromarray(edge))
        picture.paste(resized.convert(picture.mode), (place % across * step, place // across * step))
    return picture


def forest(rows: Mapping[str, Metric], label: str, theme: str, *, mark: float | None = None) -> bytes:
    """PNG: each metric with its 95 % interval; `mark` draws a dashed line, as at no gain."""
    ink = INKS[theme]
    figure, axes = _axes(ink, height=0.9 + 0.4 * len(rows))
    if mark is not None:
        axes.axvline(mark, color=ink, linewidth=1, linestyle=(0, (4, 3)))
    names = list(rows)[::-1]
    for place, name in enumerate(names):
        metric = rows[name]
        colour = SYNTHETIC if "synthetic@" in name or name == CHOSEN else OTHER if "champion@" in name else ink
        if metric.low is not None and metric.high is not None:
            axes.plot([metric.low, metric.high], [place, place], color=colour, linewidth=2.5, solid_capstyle="round")
        axes.plot(metric.value, place, "o", color=colour, markersize=8)
    axes.set_yticks(range(len(rows)), names)
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.set_xlabel(label)
    axes.locator_params(axis="x", nbins=5)
    axes.grid(axis="x", color=ink, alpha=0.15)
    return _png(figure)


def moves(synthetic: Mapping[str, Metric], floor: Mapping[str, Metric], label: str, *, theme: str) -> bytes:
    """PNG: a distance under several normalisations, filled for synthetic slices and hollow for held-out ones."""
    ink = INKS[theme]
    figure, axes = _axes(ink, height=0.9 + 0.45 * len(synthetic))
    names = list(synthetic)[::-1]
    sides = ((synthetic, SYNTHETIC, SYNTHETIC, 0.13, "synthetic slices"), (floor, ink, "none", -0.13, "real slices"))
    for metrics, colour, fill, shift, side in sides:
        places = [place + shift for place in range(len(names))]
        bounds = [(metrics[name].low, metrics[name].high) for name in names]
        axes.hlines(places, *zip(*bounds, strict=True), color=colour, linewidth=2.5)
        values = [metrics[name].value for name in names]
        axes.plot(values, places, "o", color=colour, markerfacecolor=fill, markersize=8, label=side)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(-0.6, len(names) - 0.4)
    axes.set_xlabel(label)
    axes.locator_params(axis="x", nbins=5)
    axes.grid(axis="x", color=ink, alpha=0.15)
    axes.legend(frameon=False, labelcolor=ink, fontsize=12)
    return _png(figure)


def power_curve(chances: Mapping[int, float], theme: str) -> bytes:
    """PNG: the chance of a promotion by number of test patients; dashed at 80 %."""
    ink = INKS[theme]
    figure, axes = _axes(ink, height=2.8)
    axes.axhline(0.8, color=ink, linewidth=1, linestyle=(0, (4, 3)))
    axes.plot(list(chances), list(chances.values()), "o-", color=SYNTHETIC, linewidth=2, markersize=7)
    for count, chance in chances.items():
        above = chance < 0.7  # nearer to the top are the dashed line and the edge
        place, side = ((0, 9), "bottom") if above else ((0, -9), "top")
        axes.annotate(
            f"{chance:.0%}",
            (count, chance),
            place,
            textcoords="offset points",
            ha="center",
            va=side,
            color=ink,
            size=12,
        )
    axes.set_xscale("log", base=2)
    axes.set_xticks(list(chances), [f"{count:,}" for count in chances])
    axes.minorticks_off()
    axes.set_ylim(0, 1.03)
    axes.set_xlabel("test patients")
    axes.set_ylabel("power", color=ink)
    axes.grid(color=ink, alpha=0.15)
    return _png(figure)


def losses(log: Path, theme: str) -> bytes:
    """PNG: the losses over training, from `training_log.jsonl`: of both networks, or of the only one."""
    table = pd.read_json(log, lines=True)
    figure, axes = _axes(INKS[theme], height=3.0)
    networks = {"loss_d": (OTHER, "discriminator"), "loss_g": (SYNTHETIC, "generator"), "loss": (SYNTHETIC, "denoiser")}
    for name, (colour, label) in networks.items():
        if name in table:
            axes.plot(table["kimg"], table[name], color=colour, linewidth=2, label=label)
    axes.set_xlabel("real slices shown, thousands")
    axes.set_ylabel("loss", color=INKS[theme])
    axes.grid(axis="y", color=INKS[theme], alpha=0.15)
    axes.legend(frameon=False, labelcolor=INKS[theme], fontsize=12)
    return _png(figure)


def _axes(ink: str, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(6.4, height), dpi=160, layout="constrained", facecolor="none")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot(facecolor="none")
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(ink)
    axes.tick_params(colors=ink, length=0, labelsize=12)
    axes.xaxis.label.set(color=ink, size=12)
    axes.yaxis.label.set(color=ink, size=12)
    axes.set_axisbelow(True)
    return figure, axes


def _png(figure: Figure) -> bytes:
    content = BytesIO()
    figure.savefig(content, format="png", transparent=True)
    return content.getvalue()
