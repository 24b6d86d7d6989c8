"""Metrics: pure functions, arrays in, numbers out: quality of a thief, cost of a defence, intervals."""

from __future__ import annotations

from typing import TYPE_CHECKING

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    submod_attrs={
        "answers": [
            "accuracy",
            "agreement",
            "extraction_ratio",
            "kl_divergence",
            "l1_distortion",
            "label_flip_rate",
            "transfer_attack_success",
        ],
        "intervals": ["Interval", "mean_interval", "wilson_interval"],
        "estimator": ["Effect", "differences", "query_fraction", "rates", "ratios"],
        "verdicts": ["judge", "seeds_needed"],
        "curves": ["queries_to_reach"],
    },
)

if TYPE_CHECKING:
    from art_divqat.metrics.answers import accuracy as accuracy
    from art_divqat.metrics.answers import agreement as agreement
    from art_divqat.metrics.answers import extraction_ratio as extraction_ratio
    from art_divqat.metrics.answers import kl_divergence as kl_divergence
    from art_divqat.metrics.answers import l1_distortion as l1_distortion
    from art_divqat.metrics.answers import label_flip_rate as label_flip_rate
    from art_divqat.metrics.answers import transfer_attack_success as transfer_attack_success
    from art_divqat.metrics.curves import queries_to_reach as queries_to_reach
    from art_divqat.metrics.estimator import Effect as Effect
    from art_divqat.metrics.estimator import differences as differences
    from art_divqat.metrics.estimator import query_fraction as query_fraction
    from art_divqat.metrics.estimator import rates as rates
    from art_divqat.metrics.estimator import ratios as ratios
    from art_divqat.metrics.intervals import Interval as Interval
    from art_divqat.metrics.intervals import mean_interval as mean_interval
    from art_divqat.metrics.intervals import wilson_interval as wilson_interval
    from art_divqat.metrics.verdicts import judge as judge
    from art_divqat.metrics.verdicts import seeds_needed as seeds_needed
