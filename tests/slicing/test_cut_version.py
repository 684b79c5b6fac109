"""Slices and phantoms are those of their version: shards are named by it, and not by the code that cuts them."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from numpy._core import _multiarray_umath as numpy_build

GOLDEN = Path(__file__).with_name("golden_cuts.json")
ALIKE_ON_EVERY_CPU = {
    "NPY_DISABLE_CPU_FEATURES": " ".join(numpy_build.__cpu_dispatch__),
    "OPENBLAS_CORETYPE": "Nehalem",
    "OMP_NUM_THREADS": "1",
}
REMEDY = (
    "slices changed: if that is meant, raise CUT_VERSION in lungsynth/slicing/shard.py (for phantoms, "
    "SIMULATOR_VERSION in lungsynth/phantom/patient.py) and run `python tests/slicing/test_cut_version.py [MIRROR]`, "
    "which adds the hashes"
)
Hashes = dict[str, dict[str, dict[str, str]]]
"""By what has a version, the version, and what was cut."""


def hashes(scratch: Path, *mirror: Path) -> Hashes:
    """Of the present code."""
    tests = Path(__file__).parents[1]
    paths = os.pathsep.join(map(str, (tests, tests.parent)))
    command = [
        sys.executable,
        "-W",
        "ignore",
        str(tests / "slicing" / "golden_cuts.py"),
        str(scratch),
        *map(str, mirror),
    ]
    environment = os.environ | ALIKE_ON_EVERY_CPU | {"PYTHONPATH": paths}
    found: Hashes = json.loads(subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE).stdout)
    return found


def held_against(golden: Hashes, found: Hashes) -> list[str]:
    """What differs from the golden hashes of the same versions, or has none."""
    return [
        f"{kind} {version}: {name}"
        for kind, versions in found.items()
        for version, cuts in versions.items()
        for name, value in cuts.items()
        if golden[kind].get(version, {}).get(name) != value
    ]


def test_slices_are_those_of_the_cut_version(tmp_path: Path) -> None:
    assert held_against(json.loads(GOLDEN.read_text()), hashes(tmp_path)) == [], REMEDY


def test_slices_of_real_ct_are_those_of_the_cut_version(tmp_path: Path, mirror: Path) -> None:
    found = hashes(tmp_path, mirror)
    assert [len(cuts) for cuts in found["cut"].values()] == [4]
    assert held_against(json.loads(GOLDEN.read_text()), found) == [], REMEDY


def test_no_two_versions_cut_alike() -> None:
    for versions in json.loads(GOLDEN.read_text()).values():
        assert len({json.dumps(cuts, sort_keys=True) for cuts in versions.values()}) == len(versions)


@pytest.mark.parametrize(("value", "wrong"), [("a", []), ("b", ["cut 1: lungs"])])
def test_a_changed_hash_is_named(value: str, wrong: list[str]) -> None:
    golden = {"cut": {"1": {"lungs": "a"}}}
    assert held_against(golden, {"cut": {"1": {"lungs": value}}}) == wrong
    assert held_against(golden, {"cut": {"2": {"lungs": value}}}) == ["cut 2: lungs"]


def main(*mirror: Path) -> None:
    """Add the hashes of new versions; those of an old one are never written again."""
    import tempfile

    golden: dict[str, Any] = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {"cut": {}, "simulator": {}}
    for source in ([], list(mirror)) if mirror else ([],):
        with tempfile.TemporaryDirectory() as scratch:
            found = hashes(Path(scratch), *source)
        for kind, versions in found.items():
            for version, cuts in versions.items():
                there = golden[kind].setdefault(version, {})
                if changed := [name for name in cuts if there.get(name, cuts[name]) != cuts[name]]:
                    sys.exit(f"{kind} version {version} has other hashes of {', '.join(changed)}: raise it")
                there |= cuts
    GOLDEN.write_text(json.dumps(golden, indent=1) + "\n")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
