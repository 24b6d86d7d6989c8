"""Evasion: examples inside an L∞ ball that make a network give another label than the true one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach(__name__, submod_attrs={"craft": ["craft"], "pgd": ["pgd", "pgd_step"]})

if TYPE_CHECKING:
    from art_divqat.attacks.evasion.craft import craft as craft
    from art_divqat.attacks.evasion.pgd import pgd as pgd
    from art_divqat.attacks.evasion.pgd import pgd_step as pgd_step
