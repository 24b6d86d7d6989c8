"""Gradient defences: classifier wrappers that perturb answers depending on the query, with a network of their own."""

from typing import TYPE_CHECKING

import lazy_loader as lazy

if TYPE_CHECKING:
    from ._base import InputDefence as InputDefence
    from .adaptive_misinformation import AdaptiveMisinformation as AdaptiveMisinformation
    from .grad2 import GRAD2 as GRAD2
    from .mad import MAD as MAD
    from .surrogates import train_misinformation as train_misinformation
    from .surrogates import train_surrogate as train_surrogate
    from .surrogates import untrained_surrogate as untrained_surrogate

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    submod_attrs={
        "_base": ["InputDefence"],
        "adaptive_misinformation": ["AdaptiveMisinformation"],
        "grad2": ["GRAD2"],
        "mad": ["MAD"],
        "surrogates": ["train_misinformation", "train_surrogate", "untrained_surrogate"],
    },
)
