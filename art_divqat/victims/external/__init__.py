"""External victims: load a user's model from files, folders, endpoints and live Python objects."""

from __future__ import annotations

from typing import TYPE_CHECKING

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    submod_attrs={
        "adapter": ["ExternalClassifier"],
        "load": ["load_external"],
        "settings": ["ExternalModel"],
    },
)

if TYPE_CHECKING:
    from art_divqat.victims.external.adapter import ExternalClassifier as ExternalClassifier
    from art_divqat.victims.external.load import load_external as load_external
    from art_divqat.victims.external.settings import ExternalModel as ExternalModel
