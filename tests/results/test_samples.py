"""Bits of hits as text and back, many at once, and texts that are none."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from art_divqat.errors import UserError
from art_divqat.results.samples import pack, unpack, unpack_all


@given(st.lists(st.lists(st.booleans(), max_size=40), max_size=8))
def test_many_come_back_as_they_were_packed(hits: list[list[bool]]) -> None:
    back = unpack_all([pack(np.array(each, dtype=bool)) for each in hits])
    assert [each.tolist() for each in back] == hits


@pytest.mark.parametrize("text", ["", "3", "x:4A==", "-1:", "9:4A==", "3:4A==4A==", "3:%%", "3:", None, 3])
def test_other_texts_are_refused(text: object) -> None:
    with pytest.raises(UserError, match="samples that cannot be read"):
        unpack(text)  # type: ignore[arg-type]
