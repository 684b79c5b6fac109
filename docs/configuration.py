"""Writes the page of all keys of a run file, and the schema that editors check one by: `python -m docs.configuration`.

A field's description begins with what a number is measured in, one of `UNITS`, and ends with its source in square
brackets. `tests/test_configuration.py` fails where either file is out of date.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import yaml

from docs.run_schema import Node, definitions, run_schema
from lungsynth.generators.family import families, family

ROOT = Path(__file__).parents[1]
PAGE, SCHEMA = ROOT / "docs" / "configuration.md", ROOT / "configs" / "run.schema.json"

UNITS = (
    *("mm", "HU", "GB", "litres", "degrees", "days", "years", "kimg", "pixels", "grey values", "times", "seed"),
    *("channels", "numbers", "slices", "images", "pictures", "patients", "series", "objects", "instances", "rows"),
    *("resamples", "subsets", "pairs", "classifiers", "controls", "processes", "threads", "layers", "blocks", "steps"),
    *("learning rate", "decay rate", "rate", "share", "probability", "percentile", "ratios?", "factors?", "weight"),
    *("AUROC or Dice", "AUROC", "correlation", "logarithm", "version", "unit of the key", "no unit"),
)
UNIT = re.compile(rf"^s\b|\b({'|'.join(UNITS)})\b")
KINDS = {"integer": "whole number", "number": "number", "string": "text", "path": "path"}
BOUNDS = {
    **{"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<", "multipleOf": "multiple of"},
    **{"minLength": "of length ≥", "maxLength": "length ≤", "pattern": "like"},
}
SOURCE = re.compile(r" \[([^\[\]]+)\]$")

HEAD = """# Configuration

<!-- Written by `make docs` from the models of the configuration. Do not edit. -->

Every key that may stand below `parameters:` in a run file, in the order of a run file. A key that is left out takes its
default. Sources: papers by the name of their method or their first author; *chosen here* is a choice of this project,
with its reason. README.md says what `${NAME}` and `~` stand for in values.

The first line of the files in `configs/` names `run.schema.json`, by which editors complete and check keys and values.
Rules between two keys are checked when a run starts, before anything else is done.
"""
LUNGS = """
## Training of the lung U-Net

Not in a run file: `lungsynth train-lungs` takes `steps` and `seed` as options, `train_lungs` in Python all of these.
"""


def main() -> None:
    """Write both files."""
    SCHEMA.write_text(schema_text())
    PAGE.write_text(page())


def schema_text() -> str:
    """What `configs/run.schema.json` has to hold."""
    return json.dumps(run_schema(), indent=1, ensure_ascii=False) + "\n"


def page() -> str:
    """What `docs/configuration.md` has to hold."""
    defs = definitions()
    uses = Counter(part for model in defs.values() for part in _parts(model["properties"]))
    shared = [name for name in defs if uses[name] > 1]
    lines = [HEAD]
    for key, node in defs["RunConfig"]["properties"].items():
        lines.append(f"\n## {key}\n")
        if key == "generator":
            lines += _families(defs)
        elif parts := _parts({key: node}):
            lines += _section(key, parts, defs, shared)
        else:
            lines += _table({key: node})
    for name in shared:
        lines.append(f'\n## <a id="{name}"></a>{name}, in several sections\n')
        lines += _section("", [name], defs, shared)
    lines.append(LUNGS)
    lines += _section("", ["LungTrainingConfig"], defs, [])
    return "\n".join(lines).replace("\n\n\n", "\n\n").rstrip() + "\n"


def _section(path: str, names: list[str], defs: dict[str, Node], shared: list[str]) -> Iterator[str]:
    """One section of the file and those below it; of several `names`, each with the word that chooses it."""
    for name in names:
        model = defs[name]
        if "." in path or len(names) > 1:
            yield f'\n### <a id="{name}"></a>{path.lstrip(".")}{_word(model) if len(names) > 1 else ""}\n'
        yield f"{model['description']}\n"
        yield from _table(model["properties"], model.get("required", ()))
        for key, node in model["properties"].items():
            if parts := [part for part in _parts({key: node}) if part not in shared]:
                yield from _section(f"{path}.{key}", parts, defs, shared)


def _word(model: Node) -> str:
    """What chooses this model among several, as `: source idc`."""
    tags = [(key, node) for key, node in model["properties"].items() if key in ("source", "kind")]
    return "".join(f": {key} {' or '.join(node.get('enum') or [node['const']])}" for key, node in tags)


def _families(defs: dict[str, Node]) -> Iterator[str]:
    """What all families of generators have, and of each what is its own."""
    common = defs["GeneratorConfig"]
    yield f"{common['description']}\n"
    yield from _table(common["properties"])
    for name in families():
        recipe = {"training": dict(family(name).recipe)}
        model = defs[family(name).config.__name__]
        own = {key: node for key, node in model["properties"].items() if node != common["properties"].get(key)}
        yield f"\n### generator: family {name}\n"
        yield f"{model['description']}\n"
        yield from _table(own)
        yield "\nWhat `training` leaves out is taken from these published settings, then from its own defaults:\n"
        yield f"```yaml\n{yaml.safe_dump(recipe, sort_keys=False, default_flow_style=None, width=110)}```"


def _table(properties: dict[str, Node], required: Sequence[str] = ()) -> Iterator[str]:
    yield "| key | value | unit | default | meaning | source |"
    yield "|---|---|---|---|---|---|"
    for key, node in properties.items():
        if "const" in node:  # the heading says it
            continue
        unit, source = unit_of(node), SOURCE.search(node.get("description", ""))
        meaning = SOURCE.sub("", node.get("description", "")).removeprefix(f"{unit}; ")
        default = "required" if key in required else ""
        if "default" in node and not isinstance(node["default"], dict):
            default = f"`{json.dumps(node['default'], ensure_ascii=False)}`"
        cells = (f"`{key}`", _value(node), unit, default, meaning, source[1] if source else "")
        yield f"| {' | '.join(' '.join(cell.split()).replace('|', chr(92) + '|') for cell in cells)} |"


def unit_of(node: Node) -> str:
    """What the numbers of a key are measured in; empty where it has none, or its description does not say."""
    found = UNIT.search(SOURCE.sub("", node.get("description", "")))
    return found[0] if found and is_number(node) else ""


def is_number(node: Node) -> bool:
    """Whether a value of this key is a number, or holds some."""
    inner = [*node.get("anyOf", ()), *node.get("prefixItems", ()), node.get("items"), node.get("additionalProperties")]
    return node.get("type") in ("integer", "number") or any(is_number(part) for part in inner if isinstance(part, dict))


def _value(node: Node) -> str:
    """The values that a key may have, in words."""
    if parts := node.get("anyOf") or node.get("oneOf"):
        return " or ".join(map(_value, parts))
    if "$ref" in node:
        name = _parts({"": node})[0]
        return f"[{name}](#{name})"
    if "enum" in node:
        return ", ".join(f"`{choice}`" for choice in node["enum"])
    match node["type"]:
        case "array" if "prefixItems" in node:
            return f"pair: {', '.join(dict.fromkeys(map(_value, node['prefixItems'])))}"
        case "array":
            return f"list: {_value(node['items'])}"
        case "object":
            return f"by key: {_value(node['additionalProperties'])}"
        case "boolean":
            return "`true`, `false`"
        case "null":
            return "`null`"
    bounds = [f"{words} {node[bound]}" for bound, words in BOUNDS.items() if bound in node]
    return f"{KINDS[node.get('format') or node['type']]} {', '.join(bounds)}"


def _parts(properties: dict[str, Node]) -> list[str]:
    """Names of the models that these keys may hold."""
    nodes = [part for node in properties.values() for part in (node, *node.get("anyOf", ()), *node.get("oneOf", ()))]
    return [node["$ref"].removeprefix("#/$defs/") for node in nodes if "$ref" in node]


if __name__ == "__main__":
    main()
