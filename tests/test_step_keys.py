"""Keys of the code behind steps and shards: they change when results can, and not otherwise."""

import ast
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from import_graph import LIBRARY

from steps import code

ROOTS: dict[str, tuple[str, ...]] = {
    "train_extractor": ("evaluation.extractor",),
    "train_generator": ("training",),
    "measure_fidelity": ("evaluation.fidelity.measure",),
    "audit_privacy": ("evaluation.privacy.audit",),
    "measure_utility": ("evaluation.utility.measure",),
    "decide": ("verdict.contest", "verdict.subgroups"),
    "an edm generator": ("generators.edm",),
    "a dcgan generator": ("generators.dcgan",),
}
"""What each cached step starts from, and two families; see `steps/code.py`."""


def keys(library: Path) -> dict[str, str]:
    return {name: code.code_sha256(*modules, library=library) for name, modules in ROOTS.items()}


@pytest.fixture
def changed(tmp_path: Path) -> Callable[..., set[str]]:
    """Which keys change when a text in a module is replaced, in a copy of the library."""

    def change(module: str, before: str, after: str) -> set[str]:
        copy = tmp_path / "lungsynth"
        shutil.copytree(LIBRARY, copy, ignore=shutil.ignore_patterns("__pycache__"))
        text = (copy / module).read_text()
        assert before in text
        (copy / module).write_text(text.replace(before, after))
        old, new = keys(LIBRARY), keys(copy)
        return {name for name in ROOTS if old[name] != new[name]}

    return change


def test_the_steps_keys_are_of_these_modules() -> None:
    found = {
        "train_extractor": code.extractor(),
        "measure_fidelity": code.fidelity(),
        "audit_privacy": code.privacy(),
        "measure_utility": code.utility(),
        "decide": code.verdict(),
    }
    assert found == {name: key for name, key in keys(LIBRARY).items() if name in found}


def test_words_change_no_key_whatever_the_module() -> None:
    """Docstrings, comments and formatting: each module is reworded and printed anew from its syntax tree."""

    class Reworded(ast.NodeTransformer):
        def visit_Expr(self, node: ast.Expr) -> ast.AST:
            if isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
                return ast.Expr(ast.Constant("Reworded."))
            return self.generic_visit(node)

    for file in LIBRARY.rglob("*.py"):
        source = file.read_text()
        reworded = ast.unparse(ast.fix_missing_locations(Reworded().visit(ast.parse(source))))
        assert reworded != source or not source
        assert code.syntax(ast.parse(reworded)) == code.syntax(ast.parse(source)), file


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('field: int = Field(1, description="slices")', 'field: int = Field(1, description="of a step")'),
        ('raise Error(f"{path}: is wrong")', 'raise Error(f"{path}: is not right: {reason}")'),
        ("x = 1\n'''Doc.'''\n", "x = 1  # one\n'''Another doc.'''\n"),
        ("def f(x):\n    '''Doc.'''\n    return x", "def f(x):\n    return (x)"),
    ],
)
def test_descriptions_and_the_texts_of_errors_are_words_too(before: str, after: str) -> None:
    assert code.syntax(ast.parse(before)) == code.syntax(ast.parse(after))


@pytest.mark.parametrize(
    ("before", "after"),
    [("x = 1", "x = 2"), ("Field(1, ge=0)", "Field(1, ge=1)"), ("if not x: raise E('')", "if x: raise E('')")],
)
def test_what_a_module_does_is_none_of_them(before: str, after: str) -> None:
    assert code.syntax(ast.parse(before)) != code.syntax(ast.parse(after))


FAMILIES = {"an edm generator", "a dcgan generator"}
SAMPLING = {"measure_fidelity", "audit_privacy", "measure_utility"}


@pytest.mark.parametrize(
    ("module", "before", "after", "steps"),
    [
        ("training/losses.py", "dim=(1, 2, 3)).mean() / 2", "dim=(1, 2, 3)).mean() / 3", {"train_generator"}),
        ("evaluation/privacy/copies.py", "KNEE = 8.0", "KNEE = 9.0", {"audit_privacy", "measure_utility"}),
        ("evaluation/fidelity/diversity.py", "NEIGHBOURS = ", "NEIGHBOURS = 1 + ", {"measure_fidelity"}),
        ("verdict/gate.py", "LEAST_SEEDS = 3", "LEAST_SEEDS = 4", {"decide"}),
        ("generators/edm.py", "default=18", "default=20", {"an edm generator"}),
        ("generators/package.py", "torch.inference_mode()", "torch.no_grad()", {"train_generator", *SAMPLING}),
        ("report/figures.py", "ROWS = ", "ROWS = 1 + ", set()),
        ("registry/succession.py", "ROUNDS = 20", "ROUNDS = 21", set()),
        ("slicing/render.py", "255 / (high - low)", "254 / (high - low)", set()),
    ],
)
def test_a_changed_constant_changes_the_keys_of_those_who_use_it(
    changed: Callable[..., set[str]], module: str, before: str, after: str, steps: set[str]
) -> None:
    assert changed(module, before, after) == steps
