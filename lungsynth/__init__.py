"""Synthetic lung CT that provably helps a diagnostic model."""

__version__ = "0.1.0"

CLASSES = ("non-cancer", "cancer")
"""Slice classes, in the order of their integer codes: 0 is `non-cancer`, 1 is `cancer`."""
