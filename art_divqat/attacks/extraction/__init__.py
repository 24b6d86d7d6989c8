"""Extraction attacks: ART's and this package's own, by name, each behind one call."""

from __future__ import annotations

from typing import TYPE_CHECKING

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    submod_attrs={
        "contract": ["AttackContext", "AttackEntry", "AttackOutcome"],
        "copycat": ["CopycatCNN"],
        "datafree": ["DFME", "MAZE"],
        "fee": ["FunctionallyEquivalentExtraction"],
        "jbda": ["JacobianAugmentation"],
        "knockoff": ["KnockoffNets"],
        "registry": ["ATTACKS", "list_attacks", "run_attack"],
        "scout": ["PoolScout"],
    },
)

if TYPE_CHECKING:
    from art_divqat.attacks.extraction.contract import AttackContext as AttackContext
    from art_divqat.attacks.extraction.contract import AttackEntry as AttackEntry
    from art_divqat.attacks.extraction.contract import AttackOutcome as AttackOutcome
    from art_divqat.attacks.extraction.copycat import CopycatCNN as CopycatCNN
    from art_divqat.attacks.extraction.datafree import DFME as DFME
    from art_divqat.attacks.extraction.datafree import MAZE as MAZE
    from art_divqat.attacks.extraction.fee import FunctionallyEquivalentExtraction as FunctionallyEquivalentExtraction
    from art_divqat.attacks.extraction.jbda import JacobianAugmentation as JacobianAugmentation
    from art_divqat.attacks.extraction.knockoff import KnockoffNets as KnockoffNets
    from art_divqat.attacks.extraction.registry import ATTACKS as ATTACKS
    from art_divqat.attacks.extraction.registry import list_attacks as list_attacks
    from art_divqat.attacks.extraction.registry import run_attack as run_attack
    from art_divqat.attacks.extraction.scout import PoolScout as PoolScout
