"""ART postprocessors that perturb the probabilities a classifier serves."""

from typing import TYPE_CHECKING

import lazy_loader as lazy

if TYPE_CHECKING:
    from ._base import ProbabilityPostprocessor as ProbabilityPostprocessor
    from .heuristic import BudgetFit as BudgetFit
    from .heuristic import HeuristicPerturbation as HeuristicPerturbation
    from .softmax import Softmax as Softmax

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    submod_attrs={
        "_base": ["ProbabilityPostprocessor"],
        "heuristic": ["BudgetFit", "HeuristicPerturbation"],
        "softmax": ["Softmax"],
    },
)
