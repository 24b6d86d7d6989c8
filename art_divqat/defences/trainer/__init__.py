"""ART trainers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach(__name__, submod_attrs={"madry": ["MadryPGDTrainer"]})

if TYPE_CHECKING:
    from art_divqat.defences.trainer.madry import MadryPGDTrainer as MadryPGDTrainer
