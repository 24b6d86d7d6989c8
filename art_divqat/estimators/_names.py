"""Names of recipes' options, for modules that must not import torch."""

from __future__ import annotations

# options that came later than the first victims and journals, which are written down only where they say something
LATER_OPTIONS = ("augmentation", "warm_up", "label_smoothing", "precision", "cuda_graphs")
