"""Conformance checks: the contract of every kind of entry, as checks that authors run on their own."""

from typing import TYPE_CHECKING

import lazy_loader as lazy

if TYPE_CHECKING:
    from .architecture import check_architecture as check_architecture
    from .attack import check_attack as check_attack
    from .images import check_dataset as check_dataset
    from .images import check_pool as check_pool
    from .postprocessors import POSTPROCESSOR_CHECKS as POSTPROCESSOR_CHECKS
    from .postprocessors import check_postprocessor as check_postprocessor
    from .recovery import check_recovery as check_recovery
    from .registered import check as check
    from .victim import check_victim as check_victim

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    submod_attrs={
        "architecture": ["check_architecture"],
        "attack": ["check_attack"],
        "images": ["check_dataset", "check_pool"],
        "postprocessors": ["POSTPROCESSOR_CHECKS", "check_postprocessor"],
        "recovery": ["check_recovery"],
        "registered": ["check"],
        "victim": ["check_victim"],
    },
)
