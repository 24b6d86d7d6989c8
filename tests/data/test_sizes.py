"""The size of images, looked up before they are read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.plugins import installed, write_distribution

from art_divqat.api import prepare
from art_divqat.data.listing import size_of
from art_divqat.data.pictures import OWN_FORM, ImageForm
from art_divqat.data.sizes import smaller_side
from art_divqat.data.sources import DATASETS, load_raw
from art_divqat.plan.config import make_config


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
    for label in ("a", "b"):
        (tmp_path / "train" / label).mkdir(parents=True)
        (tmp_path / "test" / label).mkdir(parents=True)
        for part in ("train", "test"):
            Image.new("RGB", (120, 100)).save(tmp_path / part / label / "0.png")
    (tmp_path / "notes.txt").write_text("no picture")
    name = f"folder:{tmp_path}"
    assert smaller_side(name, OWN_FORM) == 100
    Image.new("RGB", (120, 99)).save(tmp_path / "train" / "a" / "1.PNG")
    # of several sizes they come to one that most of them have
    assert smaller_side(name, OWN_FORM) == 96
    assert smaller_side(name, ImageForm((224, 180))) == 180


@pytest.mark.parametrize(
    ("sides", "side"),
    [((20, 31), 32), ((64, 65), 64), ((500, 333, 30), 224), ((500, 100, 30), 96), ((224, 223), 224), ((223, 222), 128)],
)
def test_pictures_of_several_sizes_are_read_as_large_as_half_of_them_are(
    sides: tuple[int, ...], side: int, tmp_path: Path
) -> None:
    for number in range(16):
        folder = tmp_path / ("cat" if number % 2 else "dog")
        folder.mkdir(exist_ok=True)
        Image.new("RGB", (600, sides[number // 2 % len(sides)])).save(folder / f"{number}.png")
    name = f"folder:{tmp_path}"
    assert smaller_side(name, OWN_FORM) == side
    raw = load_raw(name)
    assert raw.x.shape[2:] == (side, side)
    assert f"resized to {side}×{side}" in raw.notes[0]
    assert prepare(make_config({"dataset": name})).model == ("resnet18" if side > 64 else "resnet20")


def test_a_look_at_some_of_many_pictures_and_all_of_them_agree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("art_divqat.data.listing._LOOKED_AT", 3)
    files = [tmp_path / f"{number}.png" for number in range(20)]
    for number, file in enumerate(files):
        Image.new("L", (70, 80 if number != 13 else 70)).save(file)
    # one that is not among those looked at first
    assert size_of(files) == (64, 64)
    Image.new("L", (70, 80)).save(files[13])
    assert size_of(files) == (80, 70)


PLUGIN = """
import numpy as np
from art_divqat.data import PictureList, RawImages
from art_divqat.data.sources import DatasetEntry

def read(root, download):
    x = np.random.default_rng(0).integers(0, 256, (40, 3, 96, 100), dtype=np.uint8)
    return RawImages("", x, np.arange(40) % 2, None, None, ("a", "b"))

arrays = DatasetEntry("large arrays", read)
said = DatasetEntry("large arrays", read, side=70)
"""


def test_plug_ins_that_do_not_say_the_size_are_looked_at(tmp_path: Path) -> None:
    write_distribution(tmp_path, "large-images", PLUGIN, {"datasets": {"unsaid": "arrays", "said": "said"}})
    with installed(tmp_path, DATASETS):
        assert (smaller_side("unsaid", OWN_FORM), smaller_side("said", OWN_FORM)) == (96, 70)
        assert prepare(make_config({"dataset": "unsaid"})).model == "resnet18"
        (note,) = load_raw("unsaid").notes
        assert note.startswith("images of 96×100: the data set's entry does not say its side")
        assert load_raw("said").notes == ()


@pytest.mark.parametrize(
    ("name", "side"),
    [("stl10", 96), ("cub200", 224), ("tiny_imagenet", None), ("npz:none", None), ("folder:no", None)],
)
def test_what_is_known_by_name_and_what_is_not_there(name: str, side: int | None) -> None:
    assert smaller_side(name, OWN_FORM) == side


def test_a_damaged_archive_is_for_its_reader_to_name(tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_bytes(b"PK damaged")
    assert smaller_side(f"npz:{tmp_path / 'a.npz'}", OWN_FORM) is None
