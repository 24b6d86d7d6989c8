"""ART trainers: quantization-aware training that makes extraction harder, and adversarial training."""

from __future__ import annotations

from typing import TYPE_CHECKING

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    submod_attrs={
        "adversary": ["PGDAdversary"],
        "awp": ["AWPTrainer"],
        "comparison": ["AccuracyComparison"],
        "divqat": ["DivQATTrainer"],
        "fast": ["FastTrainer"],
        "madry": ["MadryPGDTrainer"],
        "post_training": ["quantize_post_training"],
        "qat": ["QATTrainer"],
        "select": ["Selection", "select_alpha"],
        "static": ["StaticTrainer"],
        "trades": ["TradesTrainer"],
    },
)

if TYPE_CHECKING:
    from art_divqat.defences.trainer.adversary import PGDAdversary as PGDAdversary
    from art_divqat.defences.trainer.awp import AWPTrainer as AWPTrainer
    from art_divqat.defences.trainer.comparison import AccuracyComparison as AccuracyComparison
    from art_divqat.defences.trainer.divqat import DivQATTrainer as DivQATTrainer
    from art_divqat.defences.trainer.fast import FastTrainer as FastTrainer
    from art_divqat.defences.trainer.madry import MadryPGDTrainer as MadryPGDTrainer
    from art_divqat.defences.trainer.post_training import quantize_post_training as quantize_post_training
    from art_divqat.defences.trainer.qat import QATTrainer as QATTrainer
    from art_divqat.defences.trainer.select import Selection as Selection
    from art_divqat.defences.trainer.select import select_alpha as select_alpha
    from art_divqat.defences.trainer.static import StaticTrainer as StaticTrainer
    from art_divqat.defences.trainer.trades import TradesTrainer as TradesTrainer
