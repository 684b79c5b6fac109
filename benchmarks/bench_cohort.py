"""Selecting a cohort from the whole index: wall time and peak memory, against `idc_index` doing nothing but the query.

Each runs in a fresh process: the cohort of a run file with its preview (`lungsynth cohort -c`), and as the reference
`idc_index.IDCClient().sql_query` of all CT and segmentations of NLST, the rows that this cohort starts from. The ratios
compare like with like on one machine; the limits of 20 s and 3 GB are for the cohort alone.

    python benchmarks/bench_cohort.py [configs/nlst.yaml] [--repeats 3]
"""

import argparse
import subprocess
import sys

COHORT = """
import io, sys
from pathlib import Path
import yaml
from rich.console import Console
from lungsynth.cohort.idc import IdcCohortConfig, select_idc
from lungsynth.cohort.preview import preview
from lungsynth.cohort.splits import SplitConfig
parameters = yaml.safe_load(Path(sys.argv[1]).read_text())["parameters"]
cohort = select_idc(IdcCohortConfig(**parameters["cohort"]), SplitConfig(**parameters.get("splits", {})))
Console(file=io.StringIO()).print(preview(cohort))
"""
REFERENCE = """
import idc_index
query = "SELECT * FROM index WHERE collection_id = 'nlst' AND Modality IN ('CT', 'SEG')"
assert len(idc_index.IDCClient().sql_query(query)) > 300_000
"""
MEASURE = """
import resource, time
print(time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6)
"""


def measure(code: str, *arguments: str) -> tuple[float, float]:
    """Wall time in s, imports included, and peak resident memory in GB (Linux counts it in kB) of a new process."""
    program = f"import time\nstart = time.perf_counter()\n{code}{MEASURE}"
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    seconds, gigabytes = map(float, done.stdout.split()[-2:])
    return seconds, gigabytes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run_file", nargs="?", default="configs/nlst.yaml")
    parser.add_argument("--repeats", type=int, default=3, help="of each, interleaved; the best counts")
    options = parser.parse_args()
    runs = [(*measure(COHORT, options.run_file), *measure(REFERENCE)) for _ in range(options.repeats)]
    seconds, memory, reference_s, reference_gb = map(min, zip(*runs, strict=True))
    print(f"cohort and preview    {seconds:6.2f} s {memory:6.2f} GB   (limits: 20 s, 3 GB)")
    print(f"idc_index sql_query   {reference_s:6.2f} s {reference_gb:6.2f} GB")
    print(f"ratio                 {seconds / reference_s:6.2f}   {memory / reference_gb:6.2f}")


if __name__ == "__main__":
    main()
