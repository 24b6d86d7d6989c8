"""Conformance checks: third parties run them on their own defences, attacks and victims."""

from typing import TYPE_CHECKING

import lazy_loader as lazy

if TYPE_CHECKING:
    from .attack import check_attack as check_attack
    from .postprocessors import POSTPROCESSOR_CHECKS as POSTPROCESSOR_CHECKS
    from .postprocessors import check_postprocessor as check_postprocessor

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    submod_attrs={"attack": ["check_attack"], "postprocessors": ["POSTPROCESSOR_CHECKS", "check_postprocessor"]},
)
