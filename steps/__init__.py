"""The pipeline's steps: each reads its inputs, calls the library and hands on a record."""

STEPS = (
    "select_cohort",
    "build_slices",
    "train_generator",
    "train_extractor",
    "find_champion",
    "measure_fidelity",
    "audit_privacy",
    "measure_utility",
    "decide",
    "register",
    "report",
)
LOOKING = ("select_cohort", "build_slices", "find_champion", "register", "report")
"""Those that are never cached: what they see or change outside (object stores, disks, the registry) differs by run."""
