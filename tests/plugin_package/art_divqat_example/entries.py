"""What the plug-ins are; neither torch nor ART is imported here."""

from art_divqat.attacks.extraction import AttackEntry
from art_divqat.attacks.recovery import RecoveryEntry
from art_divqat.data.pools import PoolEntry
from art_divqat.data.sources import DatasetEntry
from art_divqat.defences.registry import DefenceEntry
from art_divqat.models.registry import ModelEntry
from art_divqat.parameters import choice, real
from art_divqat.victims.registry import VictimEntry

CODE = "art_divqat_example.code"

CONTRAST_FIRST = AttackEntry(
    "asks the images of the pool with the most contrast first",
    f"{CODE}:contrast_first",
    {"order": choice("highest", "highest", "lowest")},
)

SHARPEN = RecoveryEntry(
    "raise every probability to the power 1/temperature: undoes a mixture with equal probabilities in part",
    f"{CODE}:sharpen",
    {"temperature": real(0.5, 0, 1, closed="right")},
    whole_rows=True,
)

SHARE = {"share": real(0.3, 0, 1)}
MIX_UNIFORM = DefenceEntry("mixes every answer with equal probabilities", f"{CODE}:MixUniform", SHARE)

SMOOTHED_LABELS = VictimEntry(
    "trained on labels that give every other class a little",
    f"{CODE}:smoothed_labels",
    {"smoothing": real(0.1, 0, 1, closed="left")},
    baseline="standard",
)

ONE_HIDDEN_LAYER = ModelEntry("one hidden layer of 64 units", f"{CODE}:one_hidden_layer")

INVERTED_DIGITS = DatasetEntry(
    "scikit-learn's handwritten digits, dark on light, 8×8 grey, 10 classes; embedded",
    f"{CODE}:inverted_digits",
    pool="gradients",
    epsilon=0.2,
    simple=True,
)

GRADIENTS = PoolEntry("linear gradients between two random colours, at random angles", f"{CODE}:gradients")
