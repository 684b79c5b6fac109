"""Tables for a terminal about a cohort: funnel, patients, evidence, sizes of downloads, licences and citations.

Counts only: no patient, study or series is named.
"""

import html
import re
from collections.abc import Iterable
from numbers import Integral
from pathlib import Path
from typing import Literal

import pandas as pd
from rich.console import Group
from rich.table import Table
from rich.text import Text

from lungsynth.cohort.cohort import ROLES, Cohort
from lungsynth.cohort.descriptions import maker
from lungsynth.dataset.vocabulary import SPLITS

UNKNOWN = "not known"


def preview(cohort: Cohort) -> Group:
    """Five tables for `rich.print`: funnel, patients, evidence, what would be fetched, licences with citations."""
    images = cohort.images.assign(maker=maker(cohort.images["manufacturer"]).fillna(UNKNOWN))
    return Group(
        _funnel(cohort.funnel),
        _patients(images, cohort.classes),
        _evidence(cohort),
        _to_fetch(cohort.series),
        _licences(cohort.series),
    )


def _table(title: str, *columns: str, text: int = 1) -> Table:
    """An empty table of which the first `text` columns are text and the others numbers."""
    table = Table(title=f"\n{title}", title_justify="left", title_style="bold", caption_justify="left")
    for position, name in enumerate(columns):
        whole = name in ("class", "scanner", "evidence", "GB")  # these stay readable where a terminal is narrow
        justify: Literal["left", "right"] = "left" if position < text else "right"
        table.add_column(name, justify=justify, overflow="fold", no_wrap=whole)
    return table


def _add(table: Table, cells: Iterable[object], strong: bool = False) -> None:
    """Add a row of cells as `Text`, since DICOM names and citations may contain rich's markup."""
    shown = ["" if cell is pd.NA else f"{cell:,}" if isinstance(cell, Integral) else str(cell) for cell in cells]
    table.add_row(*(Text(cell, style="bold" if strong else "") for cell in shown))


def _funnel(funnel: pd.DataFrame) -> Table:
    table = _table("How the cohort came about", "rule", "series left", "removed", "patients left", "removed")
    removed = -funnel[["series", "patients"]].diff().fillna(0).astype(int)
    columns = (funnel["rule"], funnel["series"], removed["series"], funnel["patients"], removed["patients"])
    for cells in zip(*columns, strict=True):
        _add(table, cells)
    return table


def _patients(images: pd.DataFrame, classes: tuple[str, ...]) -> Table:
    """Patients by class, split and maker; patients with studies from two makers count for both."""
    table = _table("Patients", "class", "scanner", *SPLITS, "all", "median age", "women", text=2)
    for label in classes:
        of_class = images[images["label"] == label]
        _add(table, (label, "all", *_by_split(of_class), *_demography(of_class)), strong=True)
        for name in of_class.groupby("maker")["patient_key"].nunique().sort_values(ascending=False).index:
            of_maker = of_class[of_class["maker"] == name]
            _add(table, ("", name, *_by_split(of_maker), *_demography(of_maker)))
    return table


def _by_split(images: pd.DataFrame) -> list[int]:
    counts = images.groupby("split")["patient_key"].nunique().reindex(SPLITS, fill_value=0)
    return [*map(int, counts), images["patient_key"].nunique()]


def _demography(images: pd.DataFrame) -> tuple[str, str]:
    """Median age in years and fraction of women, among patients with known age and known sex."""
    patients = images.drop_duplicates("patient_key")
    age, sex = patients["age"].dropna(), patients["sex"].dropna()
    women = f"{(sex == 'F').mean():.0%}" if len(sex) else "?"
    return (f"{age.median():.0f}" if len(age) else "?"), women


def _evidence(cohort: Cohort) -> Table:
    table = _table("What the labels rest on", "class", "evidence", "series", "patients", text=2)
    for (label, evidence), rows in cohort.images.groupby(["label", "evidence"], sort=False):
        _add(table, (label, evidence, len(rows), rows["patient_key"].nunique()))
    if len(cohort.slice_labels):
        counts = cohort.slice_labels["label"].value_counts()
        table.caption = "Slices labelled one by one: " + ", ".join(f"{n:,} {label}" for label, n in counts.items())
    return table


def _to_fetch(series: pd.DataFrame) -> Table:
    table = _table("To fetch (nothing has been fetched)", "role", "series", "instances", "GB")
    parts = [(role, series[series["role"] == role]) for role in ROLES if (series["role"] == role).any()]
    for role, rows in [*parts, ("all", series)]:
        size = UNKNOWN if rows["bytes"].isna().any() else f"{rows['bytes'].sum() / 1e9:,.3f}"
        _add(table, (role, len(rows), int(rows["instances"].sum()), size), strong=role == "all")
    return table


def _licences(series: pd.DataFrame) -> Table:
    table = _table("Licences, and whom to cite", "licence", "series", "citation")
    table.columns[-1].justify = "left"
    known = _citations()
    sources = series[["license", "doi"]].fillna("").value_counts().reset_index()
    for licence, doi, count in sources.itertuples(index=False):
        citation = known.get(doi.lower(), f"https://doi.org/{doi}" if doi else "")
        _add(table, (licence or UNKNOWN, count, citation))
    return table


def _citations() -> dict[str, str]:
    """Citations by DOI in lower case, from the list of collections beside the packaged index; none if it is missing."""
    from idc_index_data import IDC_INDEX_PARQUET_FILEPATH  # its import reads a dozen schema files

    path = Path(str(IDC_INDEX_PARQUET_FILEPATH)).with_name("collections_index.parquet")
    if not path.is_file():
        return {}
    sources = pd.read_parquet(path, columns=["sources"])["sources"].explode().dropna()
    cited = [source for source in sources if source.get("source_doi") and source.get("citation")]
    return {source["source_doi"].lower(): _plain(source["citation"]) for source in cited}


def _plain(citation: str) -> str:
    """HTML to text."""
    return " ".join(html.unescape(re.sub(r"</?\w+>", "", citation)).split())
