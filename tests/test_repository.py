"""What people expect of a repository: its papers agree with the code and with each other."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

import lungsynth

ROOT = Path(__file__).parents[1]
PAGES = ("README.md", "CONTRIBUTING.md", "ARCHITECTURE.md")


def test_the_licence_is_apache_2_everywhere() -> None:
    text = (ROOT / "LICENSE").read_text()
    assert "Apache License\n                           Version 2.0, January 2004" in text
    assert len(text) == 11358
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert (project["license"], project["license-files"]) == ("Apache-2.0", ["LICENSE"])
    assert "Apache-2.0" in (ROOT / "README.md").read_text()


def test_the_citation_is_complete_and_repeats_no_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["license"] == "Apache-2.0"
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    assert "version" not in citation  # it stands in lungsynth/__init__.py alone


def test_the_changelog_has_a_place_for_what_comes_and_this_version() -> None:
    headings = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[:2] == ["Unreleased", lungsynth.__version__]


@pytest.mark.parametrize("page", PAGES)
def test_files_and_targets_that_a_page_names_are_there(page: str) -> None:
    text = (ROOT / page).read_text()
    named = re.findall(r"`((?:lungsynth|tests|configs|docs|steps|pipelines|benchmarks)/[\w./]+\.\w+)`", text)
    assert [name for name in named if not (ROOT / name).exists() and "NAME" not in name] == []
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"`make ([a-z-]+)`", text)) <= targets


def test_the_workflow_runs_what_decides_on_every_supported_python() -> None:
    job = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yaml").read_text())["jobs"]["test"]
    runs = [step["run"].replace(" PYTHON=python", "") for step in job["steps"] if "run" in step]
    assert runs == ["make setup", *re.findall(r"^make .+$", (ROOT / ".ci" / "run").read_text(), re.MULTILINE)]
    least = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    assert f">={job['strategy']['matrix']['python'][0]}" == least


def test_ruff_is_the_same_before_a_commit_and_here() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    pinned = re.search(r"^ruff==(.+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert pinned is not None
    assert hooks[0]["rev"] == f"v{pinned[1]}"
