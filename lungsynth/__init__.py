"""Synthetic lung CT that provably helps a diagnostic model."""

__version__ = "0.1.0"
