"""Parameters of the defences: defaults and ranges, declared once for the classes and the command line.

Importing this module imports neither torch nor ART.
"""

from __future__ import annotations

from art_divqat.parameters import Parameters, choice, flag, integer, real

HEURISTIC: Parameters = {
    "beta": real(0.5, 0, 1000),
    "gamma": real(0.2, 0, 1000, "right"),
    "variant": choice("exact", "exact", "released"),
    "preserve_label": flag(False),
    "nu": real(1000.0, 0, 1e6, "right"),
}
HEURISTIC_BUDGETS: Parameters = {"l1": real(None, 0, 2, "right"), "max_label_flips": real(None, 0, 1)}
REVERSE_SIGMOID: Parameters = {"beta": real(1.0, 0, 1000, "right"), "gamma": real(0.1, 0, 1000, "right")}
RANDOM: Parameters = {"epsilon": real(1.0, 0, 2)}
GAUSSIAN_NOISE: Parameters = {"scale": real(0.2, 0, 1000, "right")}
TOP_K: Parameters = {"k": integer(3, 1)}
# a float32 has no more decimals
ROUNDING: Parameters = {"decimals": integer(3, 1, 6)}
HIGH_CONFIDENCE: Parameters = {"cutoff": real(0.25, 0, 1, "right")}
MODELGUARD: Parameters = {"epsilon": real(1.0, 0, 2)}
ADAPTIVE_MISINFORMATION: Parameters = {"tau": real(0.5, 0, 1), "nu": real(1000.0, 0, 1e6, "right")}
MAD: Parameters = {"epsilon": real(1.0, 0, 2), "preserve_label": flag(False)}
GRAD2: Parameters = {"epsilon": real(1.0, 0, 2), "target": choice("ones", "ones", "clean")}
