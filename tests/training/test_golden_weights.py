"""What training gives, to the bit: a change of the engine that should change no weight has changed none."""

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch

GOLDEN = Path(__file__).with_name("golden_weights.json")
ALIKE = {"MKL_CBWR": "COMPATIBLE", "ATEN_CPU_CAPABILITY": "default", "OMP_NUM_THREADS": "1"}
"""Environment in which CPUs of one maker compute alike; those of another differ in the last digits."""
HERE = Path(__file__).parent


def test_weights_discriminators_and_logs_of_every_family_are_what_they_were(tmp_path: Path) -> None:
    """To the bit on CPUs that are on record, to five parts in 1,000 on others.

    To write new ones, or to add this CPU: `python tests/training/test_golden_weights.py`; say in the commit why.
    """
    golden = json.loads(GOLDEN.read_text())
    if torch.__version__.partition("+")[0] != golden["torch"]:
        pytest.skip(f"the record is of torch {golden['torch']}, and this is {torch.__version__}")
    found = _outcomes(tmp_path)
    numbers = {name: outcome["numbers"] for name, outcome in found.items()}
    assert _alike(numbers, golden["numbers"])
    if _cpu() in golden["bits"]:
        assert {name: outcome["bits"] for name, outcome in found.items()} == golden["bits"][_cpu()]


def _alike(found: dict[str, Any], golden: dict[str, Any]) -> bool:
    return found.keys() == golden.keys() and all(
        numbers == pytest.approx(golden[name], rel=5e-3, abs=1e-3) for name, numbers in found.items()
    )


def _cpu() -> str:
    """Maker, family and model of this machine's CPU, as Linux numbers them."""
    lines = dict(re.findall(r"^(.+?)\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE))
    return " ".join(lines.get(name, "unknown") for name in ("vendor_id", "cpu family", "model"))


def _outcomes(folder: Path) -> dict[str, dict[str, Any]]:
    paths = os.pathsep.join(map(str, (HERE, HERE.parent, HERE.parents[1])))
    command = [sys.executable, str(HERE / "golden_run.py"), str(folder)]
    found = subprocess.run(command, env=os.environ | ALIKE | {"PYTHONPATH": paths}, check=True, stdout=subprocess.PIPE)
    return json.loads(found.stdout)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        found = _outcomes(Path(scratch))
    numbers = {name: outcome["numbers"] for name, outcome in found.items()}
    golden = json.loads(GOLDEN.read_text())
    if not _alike(numbers, golden.get("numbers", {})):
        golden = {"torch": torch.__version__.partition("+")[0], "numbers": numbers, "bits": {}}
    golden["bits"][_cpu()] = {name: outcome["bits"] for name, outcome in found.items()}
    GOLDEN.write_text(json.dumps(golden, indent=1) + "\n")
