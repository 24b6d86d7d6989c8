"""ART postprocessors that perturb the probabilities a classifier serves."""

from typing import TYPE_CHECKING

import lazy_loader as lazy

if TYPE_CHECKING:
    from ._base import ProbabilityPostprocessor as ProbabilityPostprocessor
    from ._base import SeededPostprocessor as SeededPostprocessor
    from .gaussian_noise import GaussianNoise as GaussianNoise
    from .heuristic import BudgetFit as BudgetFit
    from .heuristic import HeuristicPerturbation as HeuristicPerturbation
    from .high_confidence import HighConfidence as HighConfidence
    from .labels import ClassLabels as ClassLabels
    from .modelguard import ModelGuard as ModelGuard
    from .random_perturbation import RandomPerturbation as RandomPerturbation
    from .reverse_sigmoid import ReverseSigmoid as ReverseSigmoid
    from .rounding import Rounding as Rounding
    from .softmax import Softmax as Softmax
    from .top_k import TopK as TopK

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    submod_attrs={
        "_base": ["ProbabilityPostprocessor", "SeededPostprocessor"],
        "gaussian_noise": ["GaussianNoise"],
        "heuristic": ["BudgetFit", "HeuristicPerturbation"],
        "high_confidence": ["HighConfidence"],
        "labels": ["ClassLabels"],
        "modelguard": ["ModelGuard"],
        "random_perturbation": ["RandomPerturbation"],
        "reverse_sigmoid": ["ReverseSigmoid"],
        "rounding": ["Rounding"],
        "softmax": ["Softmax"],
        "top_k": ["TopK"],
    },
)
