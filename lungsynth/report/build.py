"""Pictures of a build of slices: what was taken, what was rejected and why, and how the scans were made."""

from collections.abc import Mapping, Sequence
from functools import cache
from itertools import zip_longest
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont
from matplotlib.ticker import MaxNLocator
from PIL import Image, ImageDraw, ImageFont, ImageOps

from lungsynth.dataset.store import HU_BINS, SliceDataset
from lungsynth.dataset.vocabulary import SPLITS
from lungsynth.files import whole_file
from lungsynth.report.figures import INKS, OTHER, OUTLINE, SHEET_GREYS, SYNTHETIC

PICTURES = ("contact_sheet.png", "rejected.png", "histograms.png")
ACROSS, MOST = 6, 24
TILE = 224  # pixels
GAP, EDGE, LINE = 10, 16, 22  # pixels: between tiles, around the sheet, of a line of text
TEXT_LINES = 5
"""Lines of text under a rejected case at most; the rest is in the table of series."""
GROUND, INK = ((grey, grey, grey) for grey in SHEET_GREYS)
EMPTY = (232, 232, 232)
COLOURS = dict(zip(SPLITS, (SYNTHETIC, OTHER, INKS["light"]), strict=True))


def draw_build(dataset: SliceDataset) -> None:
    """Write `contact_sheet.png`, `rejected.png` and `histograms.png` into the dataset's folder, if they are not there.

    What they show was collected while the slices were cut; see `slicing.contact`.
    """
    folder, arrays = dataset.folder, dataset.figures
    if all((folder / name).exists() for name in PICTURES):
        return
    captions = arrays.get("captions", np.array([], str))
    images, outlines = (arrays.get(name, np.empty((0, TILE, TILE), bool)) for name in ("images", "outlines"))
    patients = len(np.unique(arrays["patient"])) if "patient" in arrays else None
    _save(
        contact_sheet(images, outlines, captions.tolist(), slices=len(dataset.table), patients=patients),
        folder / "contact_sheet.png",
    )
    rejected = dict(zip(arrays.get("rejected_uids", ()), arrays.get("rejected", ()), strict=True))
    _save(rejected_sheet(dataset.series, rejected), folder / "rejected.png")
    counts = {split: arrays[f"hu_{split}"] for split in SPLITS if f"hu_{split}" in arrays}
    histograms(dataset.table, counts, folder / "histograms.png")


def _save(sheet: Image.Image, path: Path) -> None:
    """Whole or not at all: another run may be copying the folder."""
    with whole_file(path, beside=path.parent) as part:
        sheet.save(part, "png", optimize=True)


def contact_sheet(
    previews: np.ndarray, outlines: np.ndarray, captions: Sequence[str], *, slices: int, patients: int | None = None
) -> Image.Image:
    """Some of `slices` slices, outlined by the lung mask, and their captions: uint8 K×P×P, bool K×P×P, K texts."""
    tiles = [_outlined(preview, outline) for preview, outline in zip(previews, outlines, strict=True)]
    of = f" of {patients} patients" if patients else ""
    title = f"{len(tiles)} of {slices} slices{of}, spread over splits and classes; outlined: lung mask"
    return _sheet([title if tiles else "no slices"], tiles, [caption.splitlines() for caption in captions])


def rejected_sheet(series: pd.DataFrame, pictures: Mapping[str, np.ndarray]) -> Image.Image:
    """Up to `MOST` rejected series with reason and detail, as many of each reason as there is room for."""
    lost = series[series["state"] == "rejected"].reset_index(drop=True)
    if lost.empty:
        return _sheet([f"none of {len(series)} series was rejected"], [], [])
    counts = lost["reason"].value_counts()
    title = f"{len(lost)} of {len(series)} series rejected: " + ", ".join(f"{why} {n}" for why, n in counts.items())
    # Those with a picture first, and the reasons in turn.
    lost = lost.iloc[np.argsort(~lost["series_uid"].isin(pictures.keys()), kind="stable")]
    groups = [[row for row in lost.to_dict("records") if row["reason"] == reason] for reason in counts.index]
    rows = [row for turn in zip_longest(*groups) for row in turn if row is not None][:MOST]
    tiles = [_tile(pictures.get(row["series_uid"])) for row in rows]
    pen = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    texts = [[row["reason"], *_wrap(pen, row["detail"], TILE)[: TEXT_LINES - 1]] for row in rows]
    return _sheet(_wrap(pen, title, ACROSS * (TILE + GAP) - GAP), tiles, texts)


def histograms(slices: pd.DataFrame, hu_histograms: Mapping[str, np.ndarray], path: Path) -> None:
    """PNG: pixel spacing and slice thickness of the scans that gave slices, and HU of their slices, by split."""
    figure = Figure(figsize=(12, 3.4), dpi=120, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    spacing, thickness, hu = figure.subplots(1, 3)
    scans = slices.drop_duplicates("series_uid")
    _series_histogram(
        spacing, scans, "pixel_mm", edges=np.arange(0.3, 1.2001, 0.05), label="pixel spacing of the scan, mm"
    )
    _series_histogram(thickness, scans, "thickness_mm", edges=np.arange(0, 10.001, 0.5), label="slice thickness, mm")
    for split in SPLITS:
        if split in hu_histograms and (total := hu_histograms[split].sum()):
            share = hu_histograms[split] / total
            hu.stairs(share, HU_BINS, color=COLOURS[split], linewidth=1.8, label=split)
    hu.set_yscale("log")
    _style(hu, "HU of the slices taken", "share of voxels")
    with whole_file(path, beside=path.parent) as part:
        figure.savefig(part, format="png")


def _series_histogram(axes: Axes, scans: pd.DataFrame, column: str, *, edges: np.ndarray, label: str) -> None:
    # Values beyond the edges count in the outermost bins.
    parts = {split: scans.loc[scans["split"] == split, column].dropna().clip(edges[0], edges[-1]) for split in SPLITS}
    axes.hist(
        list(parts.values()), list(edges), stacked=True, color=[COLOURS[split] for split in parts], label=list(parts)
    )
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    _style(axes, label, "series")


def _style(axes: Axes, label: str, counted: str) -> None:
    ink = INKS["light"]
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(ink)
    axes.tick_params(which="both", colors=ink, length=0, labelsize=10)
    axes.set_xlabel(label, color=ink, size=11)
    axes.set_ylabel(counted, color=ink, size=11)
    axes.grid(axis="y", color=ink, alpha=0.15)
    axes.set_axisbelow(True)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, labelcolor=ink, fontsize=10)


def _outlined(preview: np.ndarray, outline: np.ndarray) -> Image.Image:
    pixels = np.repeat(preview[..., None], 3, axis=-1)
    pixels[outline] = OUTLINE
    return Image.fromarray(pixels)


def _tile(picture: np.ndarray | None) -> Image.Image:
    """The picture, fitted into a tile, or a grey one that says that there is none."""
    tile = Image.new("RGB", (TILE, TILE), EMPTY)
    if picture is None:
        ImageDraw.Draw(tile).text((TILE // 2, TILE // 2), "not read", INK, _font(), anchor="mm")
        return tile
    fitted = ImageOps.contain(Image.fromarray(picture), (TILE, TILE), Image.Resampling.BICUBIC)
    tile.paste(fitted, ((TILE - fitted.width) // 2, (TILE - fitted.height) // 2))
    return tile


def _sheet(title: Sequence[str], tiles: Sequence[Image.Image], texts: Sequence[Sequence[str]]) -> Image.Image:
    """Tiles in rows of `ACROSS` with lines of text under each, below a title of some lines."""
    tall = TILE + GAP + LINE * max(map(len, texts), default=0) + GAP
    top = EDGE + LINE * len(title) + GAP
    rows = -(-len(tiles) // ACROSS)
    sheet = Image.new("RGB", (2 * EDGE + ACROSS * (TILE + GAP) - GAP, top + rows * tall + EDGE - GAP), GROUND)
    pen, font = ImageDraw.Draw(sheet), _font()
    for line, text in enumerate(title):
        pen.text((EDGE, EDGE + line * LINE), text, INK, font)
    for place, (tile, lines) in enumerate(zip(tiles, texts, strict=True)):
        down, along = divmod(place, ACROSS)
        x, y = EDGE + along * (TILE + GAP), top + down * tall
        sheet.paste(tile.resize((TILE, TILE), Image.Resampling.BICUBIC), (x, y))
        for line, text in enumerate(lines):
            pen.text((x, y + TILE + GAP // 2 + line * LINE), text, INK, font)
    return sheet


@cache
def _font() -> ImageFont.FreeTypeFont:
    # Pillow's own font has no ×.
    return ImageFont.truetype(findfont("DejaVu Sans"), 15)


def _wrap(pen: ImageDraw.ImageDraw, text: str, width: int) -> list[str]:
    """Break a text into lines of at most `width` pixels, within words where they are longer, as UIDs are."""
    lines = [""]
    for word in text.split():
        joined = f"{lines[-1]} {word}".strip()
        if pen.textlength(joined, _font()) <= width:
            lines[-1] = joined
            continue
        lines.append("")
        for letter in word:
            if pen.textlength(lines[-1] + letter, _font()) > width:
                lines.append("")
            lines[-1] += letter
    return [line for line in lines if line]
