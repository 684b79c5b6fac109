"""The report page and the files beside it: what they say, and what they must not say."""

import re
from base64 import b64decode
from dataclasses import replace
from io import BytesIO, StringIO
from pathlib import Path
from typing import get_args

import numpy as np
import pandas as pd
import pytest
from made_up_run import (
    ARM,
    KEY,
    PAIRS,
    PATIENT,
    PROMOTED,
    REFUSED,
    RUN_CONFIG,
    SCORECARD,
    chosen,
    cohort_of,
    distance,
    make_registration,
    metric,
)
from PIL import Image
from rich.console import Console

from lungsynth.dataset.store import SliceDataset
from lungsynth.evaluation.quantities import FID, FID_RATIO, KID, POWER, UNJUDGED_GROUP
from lungsynth.evaluation.scorecard import Measurand, Scorecard
from lungsynth.generators.dcgan import DcganConfig, Generator
from lungsynth.generators.package import GeneratorCard, GeneratorPackage
from lungsynth.registry.mlflow_registry import PUBLISHED
from lungsynth.report import pictures, tables
from lungsynth.report.figures import power_curve
from lungsynth.report.render import REMEDIES, Run, render_report
from lungsynth.report.summary import summary_table
from lungsynth.report.tables import metric_rows, number
from lungsynth.verdict.arms import ARM_FORMULAS
from lungsynth.verdict.record import Rule, Verdict


@pytest.fixture
def render(cohort, dataset, package, tmp_path):
    """Renders the run with the given verdict; the text of the page."""

    def run(verdict: Verdict, version: int | None) -> str:
        report = render_report(
            tmp_path,
            Run(
                name="run 7",
                cohort=cohort,
                dataset=dataset,
                package=package,
                scorecard=SCORECARD,
                verdict=verdict,
                registration=make_registration(version),
                closest_pairs=PAIRS,
                config=RUN_CONFIG,
            ),
        )
        return (report.folder / "report.html").read_text(encoding="utf-8")

    return run


def test_page_leads_with_the_verdict_and_tells_how_to_load_the_model(render):
    page = render(PROMOTED, 4)
    body = page[page.index("<h1>") :]
    assert body.index("Promoted") < body.index(PROMOTED.reason) < body.index("<img")
    assert 'load_model("models:/lung-ct-generator@champion")' in page.replace("&#34;", '"')
    assert "What would have to change" not in page


def test_oddities_are_counted_by_kind(dataset):
    assert tables.noted(dataset) == [
        {"note": "gantry tilt of 3.5 degrees", "series": 2},
        {"note": "2 localizers left out", "series": 1},
    ]


def test_refusal_says_what_would_have_to_change(render):
    page = render(REFUSED, None)
    assert REMEDIES["no gain"] in page
    assert "No gain &lt;was&gt; shown." in page
    assert "load_model" not in page


def test_page_shows_numbers_with_floors_and_where_the_data_come_from(render):
    text = re.sub(r"<[^>]+>", " ", render(PROMOTED, 4))
    for part in ("0.015 to 0.028", "0.0031", "+0.060", "CC BY 4.0", "10.7937/TCIA.HMQ8-J677", "localizer", "ab" * 32):
        assert part in text


def test_page_needs_nothing_from_outside_and_escapes_what_it_shows(render):
    page = render(PROMOTED, 4)
    sources = re.findall(r'(?:src|srcset)="([^"]*)"', page)
    assert len(sources) == 21  # three charts in two themes, the film, four blocks of samples and ten pairs
    assert all(source.startswith("data:image/") for source in sources)
    assert set(re.findall(r'https?://[^"<]+', page)) == {"https://doi.org/10.7937/TCIA.HMQ8-J677"}
    assert "<script" not in page


def test_patient_is_named_in_the_local_cohort_alone(render, tmp_path):
    render(PROMOTED, 4)
    assert set(PUBLISHED) | {"cohort.parquet"} == {path.name for path in tmp_path.iterdir()}
    assert pd.read_parquet(tmp_path / "cohort.parquet")["patient"].unique() == [PATIENT]
    for name in PUBLISHED:
        assert PATIENT.encode() not in (tmp_path / name).read_bytes()


def test_no_password_and_no_salt_leaves_with_the_page(render, tmp_path):
    page = render(PROMOTED, 4)
    assert "tracking_uri: postgresql://db/mlflow" in page
    assert "test: 0.2" in page
    for name in PUBLISHED:
        content = (tmp_path / name).read_bytes()
        assert not [secret for secret in (b"hunter2", b"pepper", b"salt:") if secret in content]


def test_published_tables_number_patients_instead_of_giving_keys_that_a_known_salt_turns_back(render, tmp_path):
    render(PROMOTED, 4)
    for name in PUBLISHED:
        assert KEY.encode() not in (tmp_path / name).read_bytes()
    assert pd.read_csv(tmp_path / "cohort.csv")["patient"].tolist() == [1, 1, 1]
    assert pd.read_csv(tmp_path / "series.csv")["patient"].tolist() == [1, 1, 1]
    assert pd.read_parquet(tmp_path / "cohort.parquet")["patient_key"].unique() == [KEY]


def test_radiographs_have_their_classes_and_neither_hu_nor_file_names(dataset, package, tmp_path):
    classes = ("NORMAL", "PNEUMONIA")
    own = dataset.table.assign(label=[classes[row % 2] for row in range(12)])
    meta = replace(dataset.meta, window_hu=None, view="whole", classes=classes)
    pictures = SliceDataset.write(tmp_path / "slices", dataset.images[:], own, meta=meta)
    image = {"collection": "toys", "patient": PATIENT, "patient_key": "k1", "series_uid": "image-0", "modality": "DX"}
    image |= {"role": "image", "url": f"file:///data/NORMAL/{PATIENT}.png", "label": "NORMAL", "split": "train"}
    mask = image | {"series_uid": "mask-0", "role": "mask"}
    card = package.card.model_copy(update={"generator": package.card.generator.model_copy(update={"classes": classes})})
    report = render_report(
        tmp_path / "report",
        Run(
            name="run 8",
            cohort=cohort_of([image, mask]),
            dataset=pictures,
            package=GeneratorPackage.write(tmp_path / "package", package.load(), card),
            scorecard=SCORECARD,
            verdict=PROMOTED,
            registration=make_registration(4),
            closest_pairs=PAIRS,
            config={},
        ),
    )
    page = (report.folder / "report.html").read_text(encoding="utf-8")
    assert "['NORMAL', 'PNEUMONIA']" in page.replace("&#39;", "'")
    assert " HU" not in page
    assert "Synthetic chest radiographs" in page
    assert "<td>DX mask<" in page
    assert "- Draws: chest radiographs, 32 × 32 pixels, uint8\n- Classes: NORMAL, PNEUMONIA" in (
        report.folder / "model_card.md"
    ).read_text(encoding="utf-8")
    for path in report.folder.iterdir():
        assert path.name == "cohort.parquet" or PATIENT.encode() not in path.read_bytes()


def test_records_can_be_read_back(render, tmp_path):
    render(PROMOTED, 4)
    assert Verdict.model_validate_json((tmp_path / "verdict.json").read_text()) == PROMOTED
    assert Scorecard.model_validate_json((tmp_path / "scorecard.json").read_text()) == SCORECARD


def test_model_card_names_limits_and_origin(render, tmp_path):
    render(PROMOTED, 4)
    card = (tmp_path / "model_card.md").read_text(encoding="utf-8")
    assert "Not a medical device" in card
    assert "| nlst | CT | 1 | 3 | CC BY 4.0 | 10.7937/TCIA.HMQ8-J677 |" in card


def test_every_refusing_rule_has_a_remedy():
    assert set(REMEDIES) == set(get_args(Rule)) - {"gain"}


def test_page_outlines_masks_where_the_generator_draws_them(cohort, dataset, tmp_path):
    masks = np.zeros((12, 32, 32), np.uint8)
    masks[:, 8:24, 8:24] = 1
    outlined = SliceDataset.write(tmp_path / "slices", dataset.images[:], dataset.table, meta=dataset.meta, masks=masks)
    for drawn in (True, False):
        config = DcganConfig(size=32, nz=16, ngf=4, masks=drawn)
        card = GeneratorCard(generator=config, window_hu=(-1350, 150))
        package = GeneratorPackage.write(tmp_path / f"package {drawn}", Generator(config).eval(), card)
        report = render_report(
            tmp_path / f"report {drawn}",
            Run(
                name="run 9",
                cohort=cohort,
                dataset=outlined,
                package=package,
                scorecard=SCORECARD,
                verdict=PROMOTED.model_copy(update={"gains": ()}),
                registration=make_registration(4),
                closest_pairs=PAIRS,
                config={},
            ),
        )
        page = (report.folder / "report.html").read_text(encoding="utf-8")
        assert ("Outlined: the masks" in page) is drawn
        samples = re.findall(r'base64,([^"]+)" alt="Slices: [\w-]+, (?:real|synthetic)"', page)
        assert len(samples) == 4
        assert all(Image.open(BytesIO(b64decode(one))).mode == ("RGBA" if drawn else "LA") for one in samples)


def test_every_number_of_an_arm_says_what_it_is_where_headings_have_no_room(render):
    page = render(PROMOTED, 4)
    for formula in ARM_FORMULAS["AUROC"]:
        assert page.count(f'data-measure="{formula.title}"') == 2  # arms
    assert re.findall(r'data-measure="([^"]+)"', page)[:3] == ["AUROC", "AUROC by patient", "average precision"]


def test_distances_under_other_normalisations_have_a_table_and_a_chart_of_their_own(render, monkeypatch):
    assert "Under other normalisations" not in render(PROMOTED, 4)
    sides = [
        distance(quantity, normalisation=how, floor=floor)
        for floor in (False, True)
        for quantity in (KID, FID)
        for how in (None, "clip")
    ]
    distances = [metric(side, 0.1 + place, 0.05 + place, high=0.2 + place) for place, side in enumerate(sides)]
    ratio = metric(distance(FID_RATIO, normalisation="clip"), 0.5, 0.4, high=0.6)
    card = SCORECARD.model_copy(update={"metrics": (*SCORECARD.metrics[2:], *distances, ratio)})
    monkeypatch.setitem(globals(), "SCORECARD", card)
    page = render(PROMOTED, 4)
    assert page.count('data-measure="clip"') == 2
    assert page.count("under several normalisations") == 1  # one chart an extractor, of FID
    assert "real 5.1" in page
    assert "@" not in page.partition("<h2>Fidelity</h2>")[2].partition("Under other")[0]


def test_numbers_are_given_with_the_digits_that_matter():
    assert [number(value) for value in (31, 0, 123.456, 8.0231, 0.0284, -0.014, 0.00031)] == [
        "31",
        "0",
        "123.5",
        "8.023",
        "0.028",
        "-0.014",
        "0.00031",
    ]


def test_floor_stands_beside_its_metric():
    (row,) = metric_rows(SCORECARD.metrics[:2])
    assert (row.name, row.value, row.interval, row.floor) == ("kid_lung", "0.021", "0.015 to 0.028", "0.0031")


def test_page_says_which_arms_the_seeds_chose_where_the_gain_is_of_several(render, monkeypatch):
    drawn = []
    monkeypatch.setattr(pictures, "forest", lambda rows, *_, **__: drawn.append(list(rows)) or b"")
    once = re.sub(r"<[^>]+>", "", render(PROMOTED, 4))
    assert f"{ARM} for 5 of 5. What they chose" in once
    assert "no single arm" not in once
    assert drawn[0] == ["real", ARM]
    other = "real+classical+synthetic@2"
    votes = (metric(chosen(ARM), 3), metric(chosen(other), 2))
    drawn.clear()
    several = re.sub(r"<[^>]+>", "", render(PROMOTED.model_copy(update={"chosen": votes}), 4))
    assert f"{ARM} for 3 of 5, {other} for 2 of 5. What they chose" in several
    assert "that of no single arm, but of chosen on val" in several
    assert drawn[0] == ["real", ARM, "chosen on val"]


def test_page_names_the_groups_that_were_too_small_to_be_judged(render):
    groups = (("sex F", 3), ("age 70 and over", 1))
    small = [metric(Measurand(quantity=UNJUDGED_GROUP, subgroup=name), count) for name, count in groups]
    page = render(PROMOTED.model_copy(update={"unjudged": tuple(small)}), 4)
    assert "these groups lose (in brackets, those of the rarer class): sex F (3); age 70 and over (1)." in page
    assert "unjudged/" not in page


def test_a_power_curve_is_drawn_where_the_gate_gives_one(render):
    curve = {24: 0.1, 48: 0.4, 96: 0.9}
    chances = [metric(Measurand(quantity=POWER, patients=count), chance) for count, chance in curve.items()]
    verdict = PROMOTED.model_copy(update={"power": tuple(chances)})
    page = render(verdict, 4)
    assert "Power by number of test patients" in page
    assert "power/" not in re.sub("<wbr>", "", page)  # the curve says it all
    assert power_curve(curve, "light")[1:4] == b"PNG"


def test_terminal_summary_gives_verdict_numbers_and_path(dataset, package):
    out = StringIO()
    table = summary_table(
        dataset,
        package,
        SCORECARD,
        verdict=PROMOTED,
        registration=make_registration(4),
        report=Path("outputs/[run]/report.html"),
    )
    Console(file=out, width=160).print(table)
    parts = ("promote. Synthetic", "version 4 is now champion", "0.060 (95 %: 0.020 to 0.100)", "outputs/[run]/report")
    for part in parts:
        assert part in out.getvalue()
