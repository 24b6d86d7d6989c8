"""Transfer sets on disk, pools on disk, and parameters that are rejected as a whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.digits_victim import digits, metered, thief

from art_divqat.attacks.extraction import JacobianAugmentation, KnockoffNets, _base
from art_divqat.attacks.extraction._base import allocate

POOL, LABELS = digits()[0][900:1300], digits()[1][900:1300]


def test_arrays_above_the_size_are_memory_mapped_and_leave_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    array = allocate((100, 4), disk_above=1599)
    assert isinstance(array, np.memmap)
    array[:] = 3
    assert float(array.sum()) == 1200
    assert list(tmp_path.iterdir()) == []
    assert not isinstance(allocate((100, 4), disk_above=1600), np.memmap)
    assert allocate((0, 4), disk_above=0).shape == (0, 4)


def test_a_transfer_set_on_disk_gives_the_same_thief(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = []
    for limit in (2**30, 0):
        monkeypatch.setattr(_base, "DISK_ABOVE_BYTES", limit)
        attack = JacobianAugmentation(metered(), nb_stolen=90, nb_seeds=30, nb_epochs=2, round_epochs=2)
        answers.append(attack.extract(POOL, thieved_classifier=thief(2)).predict(POOL))
    np.testing.assert_allclose(*answers, atol=1e-4)


@pytest.mark.parametrize("strategy", ["random", "adaptive"])
def test_a_read_only_pool_on_disk_gives_the_same_thief(tmp_path: Path, strategy: str) -> None:
    np.save(tmp_path / "pool.npy", POOL)
    answers = []
    for pool in (POOL, np.load(tmp_path / "pool.npy", mmap_mode="r")):
        attack = KnockoffNets(metered(), nb_stolen=60, nb_epochs=2, sampling_strategy=strategy)
        answers.append(attack.extract(pool, LABELS, thieved_classifier=thief(2)).predict(POOL))
    np.testing.assert_allclose(*answers, atol=1e-4)


def test_set_params_takes_all_or_nothing() -> None:
    attack = JacobianAugmentation(metered())
    with pytest.raises(ValueError, match="step_size"):
        attack.set_params(steps=7, step_size=-1.0)
    assert (attack.steps, attack.step_size) == (5, 0.1)
    attack.set_params(steps=7)
    assert attack.steps == 7
    with pytest.raises(ValueError, match="fame"):
        attack.set_params(fame=1)
