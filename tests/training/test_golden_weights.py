"""What training gives, to the bit: a change of the engine that should change no weight has changed none."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

GOLDEN = Path(__file__).with_name("golden_weights.json")
ALIKE_ON_EVERY_CPU = {"MKL_CBWR": "COMPATIBLE", "ATEN_CPU_CAPABILITY": "default", "OMP_NUM_THREADS": "1"}
HERE = Path(__file__).parent


def test_weights_discriminators_and_logs_of_every_family_are_what_they_were(tmp_path: Path) -> None:
    """To write new ones: `python tests/training/test_golden_weights.py`, and say in the commit why they changed."""
    golden = json.loads(GOLDEN.read_text())
    if torch.__version__.partition("+")[0] != golden["torch"]:
        pytest.skip(f"the hashes are of torch {golden['torch']}, and this is {torch.__version__}")
    assert _hashes(tmp_path) == golden["hashes"]


def _hashes(folder: Path) -> dict[str, dict[str, str]]:
    paths = os.pathsep.join(map(str, (HERE, HERE.parent, HERE.parents[1])))
    command = [sys.executable, str(HERE / "golden_run.py"), str(folder)]
    environment = os.environ | ALIKE_ON_EVERY_CPU | {"PYTHONPATH": paths}
    found = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return json.loads(found.stdout)


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as scratch:
        content = {"torch": torch.__version__.partition("+")[0], "hashes": _hashes(Path(scratch))}
        GOLDEN.write_text(json.dumps(content, indent=1) + "\n")
