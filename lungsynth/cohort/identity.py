"""Identity of patients and labels: one spelling for each, however sources write them."""

import logging
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable
from typing import Literal

import pandas as pd
from pydantic import Field

from lungsynth.config import Config
from lungsynth.errors import LungsynthError
from lungsynth.text import printable, readable

log = logging.getLogger(__name__)

Rule = Literal["case", "leading_zeros"]
RULES: tuple[Rule, ...] = ("case", "leading_zeros")
NOBODY = {
    *("anonymous", "anonymized", "anonymised", "anon", "deidentified", "dummy", "hidden", "masked", "missing", "na"),
    *("nan", "nil", "none", "notavailable", "notapplicable", "null", "patient", "patientid", "redacted", "removed"),
    *("test", "unknown", "unnamed", "withheld", "xxx", "xxxx", "xxxxx", "xxxxxx", "xxxxxxx", "xxxxxxxx"),
}
"""Words that stand for a missing patient name, in lower case without punctuation.

Zero is not among them, since patients may be counted from 0.
"""
SHOWN = 3
"""Pairs of names that an error shows, as examples."""


class PatientNames(Config):
    """Whether names of patients that differ in this alone mean one patient; not given: such names are an error."""

    case: Literal["ignore", "keep"] | None = Field(None, description="ignore: p1 and P1 are one patient; keep: two")
    leading_zeros: Literal["ignore", "keep"] | None = Field(
        None, description="ignore: 001 and 1, or P01 and P1, are one patient; keep: two"
    )


def normalised(text: str) -> str:
    """One spelling of a name: Unicode's compatibility form (NFKC), no invisible characters, single blanks within.

    So «P1», «P1 » (DICOM pads), «P1» in full width and «P1» after a byte order mark become one; plain names stay.
    """
    if text.isascii() and text.isprintable() and text == text.strip() and "  " not in text:
        return text
    seen = [char for char in readable(text) if char.isspace() or unicodedata.category(char) not in ("Cc", "Cf")]
    return " ".join(unicodedata.normalize("NFKC", "".join(seen)).split())


def normalised_column(texts: pd.Series) -> pd.Series:
    """A column with each text `normalised`; texts that are empty then become missing."""
    names = {text: normalised(text) or pd.NA for text in texts.dropna().unique()}
    if texts.dtype == "string" and all(text is name for text, name in names.items()):
        return texts
    # Not by Series.map, which turns to Arrow first, and Arrow takes no surrogates.
    return pd.Series([names.get(text, pd.NA) for text in texts], texts.index, dtype="string")


def names_nobody(name: str) -> bool:
    """Whether a name stands for nobody: a word of `NOBODY`, or only punctuation."""
    letters = re.sub(r"[\W_]", "", name).casefold()
    return not letters or letters in NOBODY


def one_name_each(patients: pd.Series, names: PatientNames) -> pd.Series:
    """The patients' names, each normalised and under one spelling; missing ones stay missing.

    Raises:
        LungsynthError: two names differ in case or leading zeros alone, and `names` does not say what that means.
    """
    ignored = [rule for rule in RULES if getattr(names, rule) == "ignore"]
    undecided = [rule for rule in RULES if getattr(names, rule) is None]
    patients = normalised_column(patients).map(lambda name: folded(name, ignored), na_action="ignore")
    if twins := twins_of(patients.dropna().unique(), undecided):
        matter = [rule for rule in undecided if any(_differ_in(rule, group, undecided) for group in twins)]
        words, settings = (
            joint.join(start + rule for rule in matter)
            for joint, start in ((" or ", ""), (" and ", "cohort.patients."))
        )
        raise LungsynthError(
            f"{len(twins)} patients may go by several names, which differ in {words.replace('_', ' ')} alone: "
            f"{_listed(twins)}; set {settings} to ignore if such names are one patient, to keep if they are not"
        )
    return patients.astype("string")


def _differ_in(rule: Rule, group: list[str], rules: list[Rule]) -> bool:
    """Whether names that are equal under all `rules` differ without this rule."""
    return len({folded(name, [other for other in rules if other != rule]) for name in group}) > 1


def one_label_each(labels: pd.Series, classes: tuple[str, ...]) -> pd.Series:
    """The labels, each normalised; where `classes` are given, in their spelling.

    Raises:
        LungsynthError: without `classes`, two labels differ in case or leading zeros alone.
    """
    labels = normalised_column(labels)
    spellings = sorted(labels.dropna().unique())
    if classes:
        spelt = {folded(name): name for name in classes}
        as_asked = {label: spelt[folded(label)] for label in spellings if folded(label) in spelt}
        other = [f"«{label}» for {name}" for label, name in as_asked.items() if label not in classes]
        if other and len(spelt) == len(classes):
            log.warning("labels are matched to cohort.classes: %s is taken", printable(", ".join(other)))
            return labels.replace(as_asked)
        return labels
    if twins := twins_of(spellings):
        raise LungsynthError(
            f"labels that differ in case or leading zeros alone: {_listed(twins)}; spell them alike, or list "
            "cohort.classes, whose spelling is then taken for both"
        )
    return labels


def twins_of(names: Iterable[str], rules: Iterable[Rule] = RULES) -> list[list[str]]:
    """Groups of different names that are equal once the differences of `rules` are removed."""
    groups = defaultdict(list)
    for name in names:
        groups[folded(name, rules)].append(name)
    return [group for group in groups.values() if len(group) > 1]


def folded(name: str, rules: Iterable[Rule] = RULES) -> str:
    """A name with the differences of `rules` removed."""
    if "leading_zeros" in rules:
        name = re.sub(r"(?<!\d)0+(?=\d)", "", name)
    return name.casefold() if "case" in rules else name


def _listed(twins: list[list[str]]) -> str:
    shown = [" and ".join(f"«{name}»" for name in group[:2]) for group in twins[:SHOWN]]
    return ", ".join(shown) + (", …" if len(twins) > SHOWN else "")
