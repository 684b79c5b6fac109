"""The house stands: no import runs up, none goes round, and each that comes late says why."""

import ast
import re
from pathlib import Path

import pytest
from import_graph import ENTRANCES, GROUND, LIBRARY, ROOMS, Import, circle, imports, printed, upwards

ROOT = LIBRARY.parent


def test_no_import_runs_up(capsys: pytest.CaptureFixture[str]) -> None:
    found = imports()
    with capsys.disabled():
        print(f"\n{printed(found)}")
    assert [f"{one.importer}:{one.line} imports {one.imported}" for one in upwards(found)] == []


def test_no_import_goes_round() -> None:
    assert circle(imports()) == []


def test_what_breaks_the_graph_is_named(tmp_path: Path) -> None:
    for name, imported in (("cohort/a", "report.b"), ("report/b", "cohort.a")):
        path = tmp_path / f"{name}.py"
        path.parent.mkdir()
        path.write_text(f"from lungsynth.{imported} import x\n")
    found = imports(tmp_path)
    assert upwards(found) == [Import("cohort.a", "report.b", 1, late=False)]
    assert {"cohort.a", "report.b"} <= set(circle(found))


def test_every_file_has_its_place() -> None:
    single = {path.stem for path in LIBRARY.glob("*.py")} - {"__init__"}
    assert single == {*GROUND, *ENTRANCES}
    assert {path.name for path in LIBRARY.iterdir() if (path / "__init__.py").exists()} == set(ROOMS)


def test_the_architecture_page_shows_the_same_order() -> None:
    page = (ROOT / "ARCHITECTURE.md").read_text()
    assert tuple(re.findall(r"^\| `lungsynth/(\w+)/?` ", page, re.MULTILINE)) == ROOMS


def test_imports_inside_functions_say_why() -> None:
    """By a comment at the first of them, or in the docstring of the file."""
    silent = []
    for path in [*LIBRARY.rglob("*.py"), *(ROOT / "steps").glob("*.py"), *(ROOT / "pipelines").glob("*.py")]:
        tree, lines = ast.parse(path.read_text()), path.read_text().splitlines()
        for function in ast.walk(tree):
            if not isinstance(function, ast.FunctionDef) or "imports" in (ast.get_docstring(tree) or ""):
                continue
            late = [node.lineno for node in ast.walk(function) if isinstance(node, ast.Import | ast.ImportFrom)]
            if late and not any("#" in lines[line - 1] or "#" in lines[line - 2] for line in late):
                silent.append(f"{path.relative_to(ROOT)}:{late[0]}")
    assert silent == []


@pytest.mark.parametrize(
    ("package", "rooms"),
    [
        ("zenml", ()),
        ("mlflow", ("registry",)),
        ("pydicom", ("phantom", "cohort", "dicom", "radiographs", "lungs", "slicing")),
    ],
)
def test_only_these_rooms_import(package: str, rooms: tuple[str, ...]) -> None:
    statement = re.compile(rf"^\s*(from|import) {package}\b", re.MULTILINE)
    found = {path.relative_to(LIBRARY).parts[0] for path in LIBRARY.rglob("*.py") if statement.search(path.read_text())}
    assert found <= set(rooms)


def test_training_knows_nothing_of_where_slices_come_from() -> None:
    """So that it runs on a machine that has torch, and neither pandas nor pydicom."""
    allowed = {"", *GROUND, "dataset.vocabulary", "dataset.mapped"}
    strange = {
        f"{one.importer} imports {one.imported}"
        for one in imports()
        if one.importer.partition(".")[0] in ("generators", "training")
        and one.imported not in allowed
        and one.imported.partition(".")[0] not in ("generators", "training")
    }
    assert strange == set()
