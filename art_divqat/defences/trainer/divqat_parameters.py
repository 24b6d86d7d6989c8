"""The ranges of DivQAT's numbers, for the trainer and for a victim's specification.

Importing this module imports neither torch nor ART.
"""

from __future__ import annotations

from art_divqat.parameters import Parameters, choice, real

DIVERGENCES = ("js", "kl", "kl-reverse")
DIVQAT_NUMBERS: Parameters = {
    **{name: real(None, 0) for name in ("alpha", "alpha_auxiliary", "spread_penalty", "confidence_penalty")},
    "auxiliary_fraction": real(None, 0, 1, closed="right"),
    "max_divergence": real(None, 0, closed="neither"),
    "temperature": real(None, 0, closed="neither"),
    "divergence": choice(None, *DIVERGENCES),
}
