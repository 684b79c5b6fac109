"""Registers the stacks of docs/targets.md with the ZenML server that the environment names, as a user would by hand."""

import os

from zenml.client import Client
from zenml.enums import StackComponentType as Kind


def register() -> None:
    """`lungsynth-kubernetes`: all steps are pods; `lungsynth-hybrid`: those with a step operator are."""
    client = Client()
    client.create_secret("s3", {"aws_access_key_id": "test", "aws_secret_access_key": "test"})
    endpoint = f'{{"endpoint_url": "{os.environ["AWS_ENDPOINT_URL"]}"}}'
    store = {"path": "s3://zenml", "authentication_secret": "s3", "client_kwargs": endpoint}
    client.create_stack_component("s3", "s3", Kind.ARTIFACT_STORE, store)
    client.create_stack_component("images", "default", Kind.CONTAINER_REGISTRY, {"uri": "127.0.0.1:5001"})
    mini = {"kubernetes_context": "mini", "kubernetes_namespace": "zenml"}
    client.create_stack_component(
        "kubernetes", "kubernetes", Kind.ORCHESTRATOR, mini | {"pass_zenml_token_as_secret": True}
    )
    client.create_stack_component("kubernetes", "kubernetes", Kind.STEP_OPERATOR, mini)
    client.create_stack_component("here", "local", Kind.ORCHESTRATOR, {})
    client.create_stack_component("here", "local", Kind.IMAGE_BUILDER, {})
    shared = {Kind.ARTIFACT_STORE: "s3", Kind.CONTAINER_REGISTRY: "images", Kind.IMAGE_BUILDER: "here"}
    client.create_stack("lungsynth-kubernetes", shared | {Kind.ORCHESTRATOR: "kubernetes"})
    operator = {Kind.ORCHESTRATOR: "here", Kind.STEP_OPERATOR: "kubernetes"}
    client.create_stack("lungsynth-hybrid", shared | operator)


if __name__ == "__main__":
    register()
