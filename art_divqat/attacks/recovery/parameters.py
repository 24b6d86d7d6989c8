"""Parameters of the recoveries: declared once for the registry and for the classes.

Importing this module imports neither torch nor ART.
"""

from __future__ import annotations

from art_divqat.parameters import Parameters, choice, integer, real

AVERAGE: Parameters = {"repeats": integer(4, 2)}
BAYES: Parameters = {"samples": integer(20_000, 1), "tolerance": real(0.05, 0, 2)}
DAE: Parameters = {"pairs": integer(20_000, 256)}
# None stands for the known defence's own
INVERT: Parameters = {
    "beta": real(None, 0, closed="neither"),
    "gamma": real(None, 0, closed="neither"),
    "variant": choice(None, "exact", "released"),
}
RECENTRE: Parameters = {"spread": real(None, 0, closed="neither")}
TOP_K: Parameters = {"k": integer(3, 1)}
