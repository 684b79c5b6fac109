"""The end of a run in the terminal: the table, and below it lines to copy, which no narrow terminal breaks."""

from types import SimpleNamespace

import pytest

from lungsynth.registry.mlflow_registry import Registration
from lungsynth.report.render import Report
from pipelines import outputs

URI = "sqlite:////home/ä b#c%20d/a/folder/that/is/far/longer/than/any/terminal/is/wide/mlflow.db"


@pytest.fixture
def closing(monkeypatch, capsys, tmp_path):
    """What is printed at the end of a run that registered this version."""

    def run(version: int | None) -> str:
        registration = Registration(
            tracking_uri=URI, run_id="r", model_name="m", version=version, alias="champion", message="done"
        )
        (tmp_path / "report").mkdir()
        records = {
            "report": Report(tmp_path / "report"),
            "build_slices": None,
            "train_generator": SimpleNamespace(classes=("non-cancer", "cancer"), folder=tmp_path / "report"),
            "register": registration,
        }
        steps = {
            name: SimpleNamespace(output=SimpleNamespace(load=lambda one=one: one)) for name, one in records.items()
        }
        decided = SimpleNamespace(load=lambda: None)
        steps["decide"] = SimpleNamespace(outputs={"scorecard": [decided], "verdict": [decided]})
        finished = SimpleNamespace(status=SimpleNamespace(is_successful=True), steps=steps)
        monkeypatch.setattr(outputs, "Client", lambda: SimpleNamespace(get_pipeline_run=lambda name, **_: finished))
        monkeypatch.setattr(outputs, "summary_table", lambda *_, **__: "the table")
        monkeypatch.setenv("COLUMNS", "40")
        outputs.export("run", "parameters: {}", tmp_path / "outputs")
        return capsys.readouterr().out

    return run


def test_lines_to_copy_are_whole(closing):
    printed = closing(1)
    assert f'\nmlflow.set_tracking_uri("{URI}")\n' in printed
    lines = printed.partition("the table\n")[2]
    compile(lines, "pasted", "exec")
    assert "pd.DataFrame({\"label\": ['non-cancer', 'cancer']})" in lines


def test_a_refused_generator_has_none(closing):
    assert closing(None) == "the table\n"
