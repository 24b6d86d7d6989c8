"""Operations on rows of answers."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from art_divqat._arrays import one_hot


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_one_hot_takes_the_first_of_equals_and_leaves_its_input(dtype: Any) -> None:
    answers = np.array([[1 / 3, 1 / 3, 1 / 3], [0.2, 0.3, 0.5]], dtype)
    before = answers.copy()
    rows = one_hot(answers)
    assert rows.tolist() == [[1, 0, 0], [0, 0, 1]]
    assert rows.dtype == dtype
    np.testing.assert_array_equal(answers, before)
    assert one_hot(answers[:0]).shape == (0, 3)


def test_rows_and_checks_need_no_torch() -> None:
    code = "import sys, art_divqat._arrays, art_divqat.data.checks; assert not {'torch', 'art'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
