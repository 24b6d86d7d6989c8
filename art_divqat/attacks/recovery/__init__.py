"""Recoveries: defence-aware attackers undo a defence on the answers before they train a thief."""

from __future__ import annotations

from typing import TYPE_CHECKING

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    submod_attrs={
        "contract": ["RecoveryEntry", "RecoveryRequest"],
        "invert": ["InvertHeuristic"],
        "learned": ["LearnedRestorer", "PartialBayes", "sample_answers"],
        "registry": ["RECOVERIES", "list_recoveries"],
        "answers": ["AverageRepeats", "Complement", "Labels", "RecoveredClassifier", "Recentre", "Recovery", "TopK"],
    },
)

if TYPE_CHECKING:
    from art_divqat.attacks.recovery.answers import AverageRepeats as AverageRepeats
    from art_divqat.attacks.recovery.answers import Complement as Complement
    from art_divqat.attacks.recovery.answers import Labels as Labels
    from art_divqat.attacks.recovery.answers import Recentre as Recentre
    from art_divqat.attacks.recovery.answers import RecoveredClassifier as RecoveredClassifier
    from art_divqat.attacks.recovery.answers import Recovery as Recovery
    from art_divqat.attacks.recovery.answers import TopK as TopK
    from art_divqat.attacks.recovery.contract import RecoveryEntry as RecoveryEntry
    from art_divqat.attacks.recovery.contract import RecoveryRequest as RecoveryRequest
    from art_divqat.attacks.recovery.invert import InvertHeuristic as InvertHeuristic
    from art_divqat.attacks.recovery.learned import LearnedRestorer as LearnedRestorer
    from art_divqat.attacks.recovery.learned import PartialBayes as PartialBayes
    from art_divqat.attacks.recovery.learned import sample_answers as sample_answers
    from art_divqat.attacks.recovery.registry import RECOVERIES as RECOVERIES
    from art_divqat.attacks.recovery.registry import list_recoveries as list_recoveries
