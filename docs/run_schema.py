"""The JSON schema of a run file, which editors check it by: draft 7, which all of them know.

It follows from the schema that pydantic makes of the models. Rules between two keys are left to the program.
"""

import json
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from zenml.config.pipeline_run_configuration import PipelineRunConfiguration
from zenml.config.step_configurations import StepConfigurationUpdate

from lungsynth.generators.family import DEFAULT, families, family
from lungsynth.lungs.unet_training import LungTrainingConfig
from lungsynth.run_config import RunConfig
from lungsynth.training.config import TrainingSections
from lungsynth.training.sections import SECTIONS
from pipelines.zenml_config import COMPONENT, SETTINGS
from steps import LOOKING, STEPS

VARIABLE = r"\$[A-Za-z_{]"
"""What a value may hold in place of its own: an environment variable."""
NO_CACHE = {
    "description": f"{', '.join(LOOKING)} are never cached",
    "anyOf": [{"enum": [False, None]}, {"type": "string", "pattern": VARIABLE}],
}

Node = dict[str, Any]
"""Part of a JSON schema."""


def definitions() -> dict[str, Node]:
    """The schema of every model by its name, as pydantic makes it; sections in the order of a run file."""
    models: tuple[type[BaseModel], ...] = (RunConfig, LungTrainingConfig, *(family(name).config for name in families()))
    defs: dict[str, Node] = models_json_schema([(model, "validation") for model in models])[1]["$defs"]
    defs["RunConfig"]["properties"] = {name: defs["RunConfig"]["properties"][name] for name in SECTIONS}
    return defs


def run_schema() -> Node:
    """ZenML's keys, of which `parameters` holds a `RunConfig`."""
    defs = definitions()
    del defs["LungTrainingConfig"], defs["UnetConfig"]
    del defs["Ramp"]["required"]  # the family's recipe may hold the rest
    names = {name: {"$ref": f"#/$defs/{family(name).config.__name__}"} for name in families()}
    defs["GeneratorConfig"] = _tagged("family", names) | {"if": {"required": ["family"]}, "else": names[DEFAULT]}
    defs = {name: _for_editors(node) for name, node in sorted(defs.items())}
    defs["RunConfig"] |= {"required": ["cohort"], "allOf": list(_recipes(defs["TrainingConfig"]["properties"]))}
    defs["Step"] = _of_zenml(StepConfigurationUpdate)
    defs["Settings"] = _mapping({name: _of_zenml(model) for name, model in SETTINGS.items()})
    defs["Settings"]["patternProperties"] = {f"^{COMPONENT}$": {"type": ["object", "null"]}}
    defs["Step"]["properties"]["settings"] = {"$ref": "#/$defs/Settings"}
    defs["LookingStep"] = _mapping(defs["Step"]["properties"] | {"enable_cache": NO_CACHE})
    run = _of_zenml(PipelineRunConfiguration)
    run["properties"] |= {
        "parameters": {"$ref": "#/$defs/RunConfig"},
        "steps": _mapping(
            {name: {"$ref": f"#/$defs/{'LookingStep' if name in LOOKING else 'Step'}"} for name in STEPS}
        ),
        "settings": {"$ref": "#/$defs/Settings"},
        "enable_cache": NO_CACHE,
    }
    head = {"$schema": "http://json-schema.org/draft-07/schema#", "title": "lungsynth run file"}
    return head | run | {"type": "object", "required": ["parameters"], "$defs": defs}


def _recipes(training: Node) -> Iterator[Node]:
    """The defaults of `training` that depend on the generator's family; they are taken out of `training` itself."""
    defaults = {
        name: TrainingSections.model_validate({"generator": {"family": name}}).training.model_dump(mode="json")
        for name in families()
    }
    differing = [key for key in training if any(values[key] != defaults[DEFAULT][key] for values in defaults.values())]
    for key in differing:
        training[key].pop("default", None)
    for name, values in defaults.items():
        chosen = {"properties": {"family": {"const": name}}} | ({"required": ["family"]} if name != DEFAULT else {})
        generator = {"properties": {"generator": chosen}} | ({"required": ["generator"]} if name != DEFAULT else {})
        own = {"properties": {key: {"default": values[key]} for key in differing}}
        yield {"if": generator, "then": {"properties": {"training": own}}}


def _mapping(properties: Node) -> Node:
    """These keys and no other, or nothing."""
    return {"type": ["object", "null"], "properties": properties, "additionalProperties": False}


def _of_zenml(model: type[BaseModel]) -> Node:
    """The keys of a model of ZenML's; what they hold is checked only where it is a plain value."""
    return _mapping(
        {
            key: {"description": node.get("description", "")} if "$ref" in json.dumps(node) else _for_editors(node)
            for key, node in model.model_json_schema()["properties"].items()
        }
    )


def _tagged(tag: str, members: dict[str, Node]) -> Node:
    """One of several models: that whose name stands under the key `tag`."""
    cases = [
        {"if": {"properties": {tag: {"const": name}}, "required": [tag]}, "then": members[name]} for name in members
    ]
    return {"type": "object", "properties": {tag: {"type": "string", "enum": list(members)}}, "allOf": cases}


def _for_editors(node: Node) -> Node:
    """A part of pydantic's schema in draft 7, with environment variables wherever the program takes them."""
    node = {key: value for key, value in node.items() if key != "title"}
    if choice := node.pop("discriminator", None):
        tag, members = choice["propertyName"], node.pop("oneOf")
        untagged = {"anyOf": members} if "default" in node else {"required": [tag]}
        node |= _tagged(tag, {name: {"$ref": ref} for name, ref in choice["mapping"].items()})
        node |= {"if": {"required": [tag]}, "else": untagged}
    for key, part in node.items():
        if key == "properties":
            node[key] = {name: _for_editors(inner) for name, inner in part.items()}
        elif key in ("anyOf", "allOf"):
            node[key] = [_for_editors(inner) for inner in part]
        elif key in ("items", "additionalProperties", "else") and isinstance(part, dict):
            node[key] = _for_editors(part)
    if "prefixItems" in node:
        node["items"] = [_for_editors(inner) for inner in node.pop("prefixItems")]
    if node.pop("format", None) == "path":
        node["minLength"] = 1
    if "$ref" in node:
        node.pop("default", None)  # of a section: its keys have their own
    match node.get("type"):
        case "string" if "enum" in node:
            node["anyOf"] = [{"enum": node.pop("enum")}, {"pattern": VARIABLE}]
        case "string" if "pattern" in node:
            node["pattern"] = f"{node['pattern']}|{VARIABLE}"
        case "integer" | "number" | "boolean" as kind if "enum" not in node:
            node |= {"type": [kind, "string"], "pattern": VARIABLE}
    return node
