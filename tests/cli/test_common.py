"""Options of the command line become values of a configuration."""

from __future__ import annotations

from pathlib import Path

import pytest

from art_divqat.cli.common import classes
from art_divqat.errors import UserError


def test_classes_are_a_number_or_a_file_of_names(tmp_path: Path) -> None:
    assert classes(None) is None
    assert classes("40") == 40
    names = tmp_path / "names.txt"
    names.write_bytes("\ufefftench, Tinca tinca\r\n  goldfish \r\n\r\nΩ\r\n".encode())
    assert classes(str(names)) == ("tench, Tinca tinca", "goldfish", "Ω")


@pytest.mark.parametrize("text", ["-3", "many", "", "1e3"])
def test_neither(text: str) -> None:
    with pytest.raises(UserError, match=r"neither a number nor a file of names") as said:
        classes(text)
    assert "\n" not in str(said.value)


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "picture.png").write_bytes(bytes(range(128, 256)))
    with pytest.raises(UserError, match="neither a number"):
        classes(str(tmp_path / "picture.png"))
