"""What a hand-made journal says of its data is checked before a run goes on with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from art_divqat.errors import UserError
from art_divqat.results.build import data_of

GOOD: dict[str, Any] = {
    "dataset": {"train": 10, "test": 5},
    "pool": {"images": 10, "labelled": True},
    "evasion_images": 0,
}


def test_data_of_a_run_is_taken() -> None:
    assert data_of({"data": GOOD}, Path("run")) == GOOD


@pytest.mark.parametrize(
    "header",
    [
        {},
        {"data": None},
        {"data": []},
        {"data": {**GOOD, "pool": {}}},
        {"data": {**GOOD, "pool": {"images": "many", "labelled": True}}},
        {"data": {**GOOD, "pool": {"images": 10, "labelled": "yes"}}},
        {"data": {**GOOD, "dataset": 3}},
        {"data": {**GOOD, "evasion_images": -1}},
    ],
)
def test_strange_data_is_the_users_error(header: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="holds no run of this version"):
        data_of(header, Path("run"))
