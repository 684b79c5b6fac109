"""CSV files of any encoding, each cell as text."""

from pathlib import Path

import pandas as pd

from lungsynth.errors import LungsynthError, first_line
from lungsynth.text import readable

MARKS = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16", b"\xef\xbb\xbf": "utf-8-sig"}
"""Byte order marks, as Excel writes them."""


def read_csv(path: Path) -> pd.DataFrame:
    """The table, each cell as text. Only empty cells are missing values; `None`, `NA` and `null` are text.

    Bytes that are no UTF-8 become surrogates, as in Python's file names, so that a path still finds its file;
    `readable` makes them text.

    Raises:
        LungsynthError: the file cannot be read or is no CSV.
    """
    try:
        with path.open("rb") as file:
            start = file.read(3)
        encoding = next((name for mark, name in MARKS.items() if start.startswith(mark)), "utf-8")
        strict = encoding == "utf-16"
        table = pd.read_csv(
            path,
            dtype=object,
            index_col=False,  # or a row with one cell too many would shift all columns
            keep_default_na=False,
            na_values=[""],
            encoding=encoding,
            encoding_errors="strict" if strict else "surrogateescape",
        )
    except (OSError, ValueError) as error:  # pandas' own errors and those of decoding are ValueErrors
        raise LungsynthError(f"{path}: not a readable CSV or Parquet table: {first_line(error)}") from error
    return table.rename(columns=lambda name: readable(str(name)).strip())
