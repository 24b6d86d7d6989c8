"""The room of seeds: what is drawn and chosen inside stays inside."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from art_divqat._rng import isolated_random_state


@pytest.mark.parametrize("before", [True, False])
def test_deterministic_algorithms_inside_and_the_callers_choice_afterwards(
    before: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", before)

    def fail_inside() -> None:
        with isolated_random_state("one"), isolated_random_state("two"):
            assert torch.backends.cudnn.deterministic
            raise ValueError

    with pytest.raises(ValueError, match=r"^$"):
        fail_inside()
    assert torch.backends.cudnn.deterministic == before


def test_the_callers_streams_go_on_undisturbed() -> None:
    torch.manual_seed(1)
    np.random.seed(1)
    expected = torch.rand(3).tolist(), np.random.random(3).tolist()
    torch.manual_seed(1)
    np.random.seed(1)
    with isolated_random_state("anything", 3):
        torch.rand(5)
        np.random.random(5)
    assert (torch.rand(3).tolist(), np.random.random(3).tolist()) == expected
