"""What a defence of photographs costs on photographs that are not quite like those it was trained on.

Accuracy of the study's victims, seed 0, on a third of its test images: as they are, zoomed, darkened, blurred, noisy,
turned. They are those that `art-divqat evaluate --config config.yaml` left in the store.

    python evaluations/studies/photographs-defended/shifted.py
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torchvision.transforms import functional as transforms

from art_divqat._files import default_store
from art_divqat.api import prepare
from art_divqat.audit.bench import Bench
from art_divqat.data.stored import take
from art_divqat.plan.config import make_config, read_config

_BATCH = 32
_EVERY = 3


def _noisy(x: torch.Tensor) -> torch.Tensor:
    return (x + 0.08 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 1)


def _zoomed(x: torch.Tensor) -> torch.Tensor:
    side = x.shape[-1]
    return transforms.resize(transforms.center_crop(x, [side * 2 // 3]), [side, side], antialias=True)


SHIFTS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "as they are": lambda x: x,
    "the middle two thirds": _zoomed,
    "half as bright": lambda x: 0.5 * x,
    "blurred, σ = 2 pixels": lambda x: transforms.gaussian_blur(x, [13, 13], [2.0, 2.0]),
    "noise, σ = .08": _noisy,
    "turned by 20°": lambda x: transforms.rotate(x, 20),
}


def main() -> None:
    """Print a row a shift."""
    config = prepare(make_config(read_config(Path(__file__).parent / "config.yaml")))
    bench = Bench(config, default_store())
    victims = [str(victim) for victim in config.victims]
    print("| test photographs |", " | ".join(f"`{victim.partition(',auxiliary')[0]}`" for victim in victims), "|")
    print("|---" * (1 + len(victims)) + "|")
    x, y = take(bench.dataset.x_test, slice(None, None, _EVERY)), bench.dataset.y_test[::_EVERY]
    for name, shift in SHIFTS.items():
        found = []
        for victim in config.victims:
            classifier = bench.victim(victim, 0).classifier
            answers = [
                classifier.predict(shift(torch.from_numpy(np.asarray(x[start : start + _BATCH]))).numpy())
                for start in range(0, len(x), _BATCH)
            ]
            found.append(np.mean(np.concatenate(answers).argmax(axis=1) == y))
        print(f"| {name} |", " | ".join(f"{value:.3f}".removeprefix("0") for value in found), "|")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
