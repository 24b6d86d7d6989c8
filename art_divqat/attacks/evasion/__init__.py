"""Evasion attacks: craft adversarial examples with torchattacks and a native PGD, true labels, inside the ball."""

from __future__ import annotations

from typing import TYPE_CHECKING

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    submod_attrs={
        "ball": ["check_epsilon", "default_step_size", "linf_bounds", "project"],
        "crafting": ["EVASION_ATTACKS", "check_autoattack", "craft", "gradient_norms"],
        "combining": ["craft_worst_case", "robust_mask", "robustness_curve", "worst_case"],
    },
)

if TYPE_CHECKING:
    from art_divqat.attacks.evasion.ball import check_epsilon as check_epsilon
    from art_divqat.attacks.evasion.ball import default_step_size as default_step_size
    from art_divqat.attacks.evasion.ball import linf_bounds as linf_bounds
    from art_divqat.attacks.evasion.ball import project as project
    from art_divqat.attacks.evasion.combining import craft_worst_case as craft_worst_case
    from art_divqat.attacks.evasion.combining import robust_mask as robust_mask
    from art_divqat.attacks.evasion.combining import robustness_curve as robustness_curve
    from art_divqat.attacks.evasion.combining import worst_case as worst_case
    from art_divqat.attacks.evasion.crafting import EVASION_ATTACKS as EVASION_ATTACKS
    from art_divqat.attacks.evasion.crafting import check_autoattack as check_autoattack
    from art_divqat.attacks.evasion.crafting import craft as craft
    from art_divqat.attacks.evasion.crafting import gradient_norms as gradient_norms
