"""Measure how easily a vision model can be stolen, defend it, and document the evidence: an extension suite for ART."""

from __future__ import annotations

from typing import TYPE_CHECKING

import lazy_loader as lazy

from art_divqat._version import __version__

# `audit` is the package of that name, and a module cannot be a function as well: hence `audit_model`.
__getattr__, _, _ = lazy.attach(
    __name__, submod_attrs={"api": ["audit_model", "evaluate"], "outcome": ["AuditResult", "load"]}
)
__all__ = ["AuditResult", "__version__", "audit_model", "evaluate", "load"]


def __dir__() -> list[str]:
    return __all__


if TYPE_CHECKING:
    from art_divqat.api import audit_model as audit_model
    from art_divqat.api import evaluate as evaluate
    from art_divqat.outcome import AuditResult as AuditResult
    from art_divqat.outcome import load as load
