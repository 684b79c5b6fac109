"""Words that all rooms use: the classes of slices and the splits of patients."""

CLASSES = ("non-cancer", "cancer")
"""Slice classes, in the order of their integer codes: 0 is `non-cancer`, 1 is `cancer`."""
SPLITS = ("train", "val", "test")
"""Splits of patients, in the order of their integer codes."""
