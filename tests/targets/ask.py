"""`python ask.py RUN`: what the project says of a run, in one line of JSON; in the project's folder."""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path.cwd()))
from zenml.client import Client

from pipelines.causes import cause_of
from pipelines.runs import gpu_hours, state_of

run = Client().list_pipeline_runs(pipeline=sys.argv[1], sort_by="desc:created", size=1, hydrate=True).items[0]
outputs = {name: step.output.load() for name, step in run.steps.items() if step.status.is_successful}
print(
    json.dumps(
        {
            "state": state_of(run),
            "cause": None if run.status.is_successful else cause_of(run),
            "outputs": outputs,
            "gpu_hours": {name: gpu_hours(step) for name, step in run.steps.items()},
            "statuses": {name: step.status.value for name, step in run.steps.items()},
        }
    )
)
