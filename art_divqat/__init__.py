"""Measure how stealable a vision model is, defend it, and prove it: an extension suite for ART."""

from art_divqat._version import __version__

__all__ = ["__version__"]
