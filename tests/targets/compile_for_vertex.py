"""`python compile_for_vertex.py RUN_FILE RESULT`: what ZenML would send to Vertex AI, without account and network.

In a folder with the pipeline and a ZenML of its own, which gets a stack for it. RESULT is JSON: Vertex's `spec`, and
ZenML's `snapshot`, which each step reads from ZenML's server when it begins.
"""

import json
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path.cwd()))  # `steps` and `pipelines` of this folder
os.environ["ZENML_DISABLE_PIPELINE_LOGS_STORAGE"] = "true"  # in the bucket
from zenml.client import Client
from zenml.enums import StackComponentType as Kind
from zenml.integrations.gcp.artifact_stores.gcp_artifact_store import GCPArtifactStore
from zenml.integrations.gcp.orchestrators.vertex_orchestrator import VertexOrchestrator
from zenml.pipelines.pipeline_definition import code_utils
from zenml.zen_stores.sql_zen_store import SqlZenStore

from pipelines.gan_augmentation import gan_augmentation

RUN_FILE, RESULT = sys.argv[1:]
REGISTRY = {"uri": "europe-west4-docker.pkg.dev/project/images"}
VERTEX = {
    "project": "project",
    "location": "europe-west4",
    "workload_service_account": "steps@project.iam.gserviceaccount.com",
}
COMPONENTS = [
    (Kind.ORCHESTRATOR, "vertex", VERTEX),
    (Kind.ARTIFACT_STORE, "gcp", {"path": "gs://bucket/zenml"}),
    (Kind.CONTAINER_REGISTRY, "gcp", REGISTRY),
    (Kind.IMAGE_BUILDER, "local", {}),
]


def keep(self: VertexOrchestrator, pipeline_file_path: str, **_: object) -> None:
    """In place of the upload: ends the program, since no run follows."""
    [snapshot] = Client().list_snapshots(named_only=False, hydrate=True).items
    spec = json.loads(Path(pipeline_file_path).read_text())
    Path(RESULT).write_text(json.dumps({"spec": spec, "snapshot": snapshot.model_dump(mode="json")}))
    raise SystemExit(0)


SqlZenStore.is_local_store = lambda self: False  # ZenML refuses remote stacks without a server
code_utils.upload_code_if_necessary = lambda archive: "gs://bucket/zenml/code_uploads/code.tar.gz"
GCPArtifactStore.exists = lambda self, path: True
VertexOrchestrator._upload_and_run_pipeline = keep
client = Client()
for kind, flavor, configuration in COMPONENTS:
    client.create_stack_component("lungsynth", flavor, kind, configuration)
client.create_stack("lungsynth-vertex", {kind: "lungsynth" for kind, _, _ in COMPONENTS})
client.activate_stack("lungsynth-vertex")
gan_augmentation.with_options(config_path=RUN_FILE)()
