"""YAML 1.2 by its core schema: PyYAML's parser without YAML 1.1's guesses (`010` is 8, `1:30` is 90, `no` is false).

Numbers, booleans and null are as in the standard; all other plain scalars are text. A duplicate key is an error, and so
is a tag that the schema does not define. Anchors, aliases and merge keys (`<<`) work as in PyYAML.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

NULL = re.compile(r"~|null|Null|NULL|")
BOOL = re.compile(r"true|True|TRUE|false|False|FALSE")
INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
TAG = "tag:yaml.org,2002:"
MERGE_TAG = f"{TAG}merge"


class DocumentError(Exception):
    """A text that is not the YAML of a run file; the message says where and why in one line."""


def parse(content: bytes) -> Any:
    """The one document that `content`, UTF-8 or UTF-16 with its mark, holds.

    Raises:
        DocumentError: It is no text, no YAML, holds several documents, gives a key twice, or an alias of itself.
    """
    try:
        loader = _Loader(content)
        node = loader.get_single_node()
        if node is None:
            return None
        _check(loader, node, "", [])
        return loader.construct_document(node)
    except yaml.reader.ReaderError as error:
        raise DocumentError(_unreadable(error, content)) from None
    except yaml.MarkedYAMLError as error:
        raise DocumentError(_said(error)) from None
    except RecursionError:
        raise DocumentError("is nested too deeply") from None


SAFE = yaml.SafeLoader.yaml_constructors


class _Loader(yaml.SafeLoader):
    """SafeLoader with the core schema's scalars and no others; None stands for any other tag, which is refused."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012  as in PyYAML and its stubs
    yaml_constructors: ClassVar[dict[str | None, Any]] = {
        **{tag: SAFE[tag] for tag in (f"{TAG}str", f"{TAG}seq", f"{TAG}map", None)},
        MERGE_TAG: SAFE[f"{TAG}str"],  # where it is no key
    }


def _scalar(name: str, pattern: re.Pattern[str], read: Callable[[str], Any], *, first: Sequence[str]) -> None:
    """Read plain scalars that match `pattern`, and begin with one of `first`, and whatever is tagged `!!name`."""

    def construct(loader: _Loader, node: ScalarNode) -> Any:
        text = loader.construct_scalar(node)
        try:
            if pattern.fullmatch(text):
                return read(text)
        except ValueError:  # Python reads no integer of thousands of digits
            pass
        raise yaml.constructor.ConstructorError(None, None, f"{text[:40]!r} is no {name}", node.start_mark)

    _Loader.add_implicit_resolver(f"{TAG}{name}", re.compile(f"(?:{pattern.pattern})$"), list(first))
    _Loader.add_constructor(f"{TAG}{name}", construct)


_scalar("null", NULL, lambda text: None, first=["", *"~nN"])
_scalar("bool", BOOL, lambda text: text.lower() == "true", first="tTfF")
_scalar("int", INT, lambda text: int(text, {"0o": 8, "0x": 16}.get(text[:2], 10)), first="-+0123456789")
_scalar("float", FLOAT, lambda text: float(re.sub(r"\.(?=inf|nan)", "", text.lower())), first="-+.0123456789")
_Loader.add_implicit_resolver(MERGE_TAG, re.compile("<<$"), ["<"])


def _check(loader: _Loader, node: Node, key: str, above: list[Node]) -> None:
    """Refuse a key that its mapping has twice, and an alias within what it stands for."""
    if node in above:
        raise DocumentError(f"line {node.start_mark.line + 1}: {key}: holds an alias of itself")
    inside = [*above, node]
    if isinstance(node, SequenceNode):
        for index, item in enumerate(node.value):
            _check(loader, item, f"{key}.{index}".lstrip("."), inside)
    if isinstance(node, MappingNode):
        lines: dict[tuple[type, Any], int] = {}
        for name, value in node.value:
            if not isinstance(name, ScalarNode):
                raise DocumentError(f"line {name.start_mark.line + 1}: a key is no word or number: quote it")
            path, line = f"{key}.{name.value}".lstrip("."), name.start_mark.line + 1
            found = loader.construct_object(name) if name.tag != MERGE_TAG else name.value
            if (before := lines.get((type(found), found))) is not None:
                where = f"line {line}" if line == before else f"lines {before} and {line}"
                raise DocumentError(f"{where}: {path}: is given twice; keep one")
            lines[type(found), found] = line
            _check(loader, value, path, inside)


def _said(error: yaml.MarkedYAMLError) -> str:
    mark = error.problem_mark or error.context_mark
    place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
    problem = " ".join(f"{error.problem or error.context}".split())
    if r"'\t'" in problem:
        return f"{place}a tab where YAML wants spaces"
    if "another document" in problem:
        return f"{place}a second document begins; a run file is one"
    if found := re.search(r"constructor for the tag '(.*)'", problem):
        return f"{place}the tag {found[1].replace(TAG, '!!')} is none of YAML's core schema; leave it out"
    start = error.context_mark
    begun = f", {error.context} that begins in line {start.line + 1}" if error.context and start else ""
    return f"{place}{problem}{begun}"


def _unreadable(error: yaml.reader.ReaderError, content: bytes) -> str:
    if error.encoding == "unicode":
        return f"character {error.position + 1} is the control character U+{error.character:04X}; take it out"
    line = content.count(b"\n", 0, error.position) + 1
    return f"line {line}: byte {error.position + 1} is no {error.encoding.upper()}; save the file as UTF-8"
