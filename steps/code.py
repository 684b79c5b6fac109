"""Cache keys of the library's code: ZenML hashes the body of a step, but not the functions that it calls.

The pipeline gives each step its key as a parameter. ZenML's own way, a function that it calls, would need this code
where a remote orchestrator runs, and that has none.

A key changes when code that a step can run changes, and only then. Comments, formatting, docstrings, descriptions of
configuration fields and the texts of errors are no part of it.
"""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import lungsynth
from lungsynth.generators.family import GeneratorConfig
from lungsynth.hashing import combine

LIBRARY = Path(lungsynth.__file__).parent


def extractor() -> str:
    """Key of the training of the lung CNN."""
    return code_sha256("evaluation.extractor")


def generator(config: GeneratorConfig) -> str:
    """Key of the training of a generator: changed networks are trained anew, and those of other families are not."""
    return combine([code_sha256("training"), family(config)])


def fidelity() -> str:
    """Key of the fidelity metrics."""
    return code_sha256("evaluation.fidelity.measure")


def privacy() -> str:
    """Key of the privacy audit."""
    return code_sha256("evaluation.privacy.audit")


def utility() -> str:
    """Key of the training and scoring of classifiers and segmenters."""
    return code_sha256("evaluation.utility.measure")


def verdict() -> str:
    """Key of the gate."""
    return code_sha256("verdict.contest", "verdict.subgroups")


def family(config: GeneratorConfig) -> str:
    """Key of a generator's networks: families are found by name, so no import statement leads to them."""
    return code_sha256(f"generators.{config.family}")


def everything() -> str:
    """Key of the whole library: the code version of a registered model."""
    files = sorted(LIBRARY.rglob("*.py"))
    return combine(f"{file.relative_to(LIBRARY)} {_read(file)[0]}" for file in files)


def code_sha256(*modules: str, library: Path = LIBRARY) -> str:
    """SHA-256 of `modules`, named without `lungsynth.`, and of all modules of the library that they import."""
    found: dict[str, str] = {}
    waiting = list(modules)
    while waiting:
        name = waiting.pop()
        file = _file(name, library)
        if file is not None and name not in found:
            found[name], imported = _read(file)
            waiting += imported
    return combine(f"{name} {found[name]}" for name in sorted(found))


def syntax(tree: ast.Module) -> str:
    """What a module does: its syntax tree as text, without documentation and the texts of errors."""
    return ast.dump(_Undocumented().visit(tree))


@cache
def _read(file: Path) -> tuple[str, list[str]]:
    """The syntax of a module, and the names that it imports."""
    tree = ast.parse(file.read_text())
    imported = list(_imported(tree))
    return syntax(tree), imported


class _Undocumented(ast.NodeTransformer):
    """Removes what changes no result: docstrings, attribute docstrings, field descriptions, texts of errors."""

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        if isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            return None
        return self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        node.keywords = [keyword for keyword in node.keywords if keyword.arg != "description"]
        return self.generic_visit(node)

    def visit_Raise(self, node: ast.Raise) -> ast.AST:
        result: ast.AST = _Textless().visit(node)
        return result


class _Textless(ast.NodeTransformer):
    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        return ast.Constant("") if isinstance(node.value, str) else node

    def visit_JoinedStr(self, node: ast.JoinedStr) -> ast.AST:
        return ast.Constant("")


def _imported(tree: ast.Module) -> Iterator[str]:
    """Names that a module imports from the library, anywhere in it, and the packages on the way to them."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "lungsynth":
            parts = (node.module or "").split(".")[1:]
            yield from (".".join(parts[:depth]) for depth in range(1, len(parts) + 1))
            yield from (".".join([*parts, alias.name]) for alias in node.names)


def _file(name: str, library: Path) -> Path | None:
    """The file of a module; none for other names, such as those of functions."""
    place = library.joinpath(*name.split("."))
    return next((file for file in (place.with_suffix(".py"), place / "__init__.py") if file.exists()), None)
