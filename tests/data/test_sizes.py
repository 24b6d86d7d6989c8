"""The size of images, looked up before they are read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from art_divqat.data.pictures import OWN_FORM, ImageForm
from art_divqat.data.sizes import smaller_side


@pytest.mark.parametrize(
    ("shape", "side"),
    [((4, 3, 70, 90), 70), ((4, 90, 70, 3), 70), ((4, 28, 30), 28), ((4, 1, 3, 3), 3), ((4,), None)],
)
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("key", ["x", "x_train"])
def test_archives(shape: tuple[int, ...], side: int | None, save: object, key: str, tmp_path: Path) -> None:
    save(tmp_path / "a.npz", **{key: np.zeros(shape, np.uint8)})  # type: ignore[operator]
    assert smaller_side(f"npz:{tmp_path / 'a.npz'}", OWN_FORM) == side
    assert smaller_side("npz:a.npz", OWN_FORM, tmp_path) == side


def test_pictures_of_one_size_and_of_several(tmp_path: Path) -> None:
    (tmp_path / "train" / "a").mkdir(parents=True)
    Image.new("RGB", (120, 100)).save(tmp_path / "train" / "a" / "0.png")
    (tmp_path / "notes.txt").write_text("no picture")
    name = f"folder:{tmp_path}"
    assert smaller_side(name, OWN_FORM) == 100
    Image.new("RGB", (120, 99)).save(tmp_path / "train" / "a" / "1.PNG")
    # they are read small unless a size is asked for
    assert smaller_side(name, OWN_FORM) is None
    assert smaller_side(name, ImageForm((224, 180))) == 180


@pytest.mark.parametrize(
    ("name", "side"), [("stl10", 96), ("cub200", 224), ("tiny_imagenet", None), ("npz:none", None), ("folder:no", None)]
)
def test_what_is_known_by_name_and_what_is_not_there(name: str, side: int | None) -> None:
    assert smaller_side(name, OWN_FORM) == side


def test_a_damaged_archive_is_for_its_reader_to_name(tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_bytes(b"PK damaged")
    assert smaller_side(f"npz:{tmp_path / 'a.npz'}", OWN_FORM) is None
