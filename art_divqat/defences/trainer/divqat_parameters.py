"""Parameters of DivQAT: defaults and ranges, for the trainer and for a victim's specification.

Importing this module imports neither torch nor ART.
"""

from __future__ import annotations

from art_divqat.parameters import Parameters, choice, real

DIVERGENCES = ("js", "kl", "kl-reverse")
HEADS = ("kept", "hidden")
DIVQAT_NUMBERS: Parameters = {
    "alpha": real(0.0, 0),
    "alpha_auxiliary": real(0.1, 0),
    "alpha_mixtures": real(0.0, 0),
    "spread_penalty": real(5.0, 0),
    "confidence_penalty": real(1.5, 0),
    "auxiliary_fraction": real(0.25, 0, 1, closed="right"),
    "max_divergence": real(None, 0, closed="neither"),
    "temperature": real(4.0, 0, closed="neither"),
    "divergence": choice("js", *DIVERGENCES),
}
