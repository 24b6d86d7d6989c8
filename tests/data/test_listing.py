"""Lists of pictures: made without reading one, decoded in the form that was asked for or that is usual for them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from art_divqat.data.folders import list_folder
from art_divqat.data.listing import Part, PictureList, decode_list, few, skipped
from art_divqat.data.pictures import ImageForm
from art_divqat.errors import UserError


def listed(root: Path, sizes: tuple[tuple[int, int], ...] = ((9, 7),) * 4, **changes: object) -> PictureList:
    files = []
    for number, (width, height) in enumerate(sizes):
        files.append(root / f"{number}.png")
        Image.new("L", (width, height), number).save(files[-1])
    whole = PictureList("mine", ("a", "b"), Part(files[:2], [0, 1]), test=Part(files[2:], [1, 0]))
    return replace(whole, **changes)


def test_a_list_is_made_without_reading_a_picture(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "0.png").write_bytes(b"no picture")
    listing = list_folder(tmp_path)
    assert (listing.class_names, list(listing.train.labels), listing.test) == (("cat", "dog"), [0, 1], None)
    with pytest.raises(UserError, match=r"0\.png cannot be read as a picture.* So it is with 1 more\."):
        decode_list(listing)


def test_every_part_gets_its_own_pictures_and_labels(tmp_path: Path) -> None:
    raw = decode_list(listed(tmp_path))
    assert raw.x_test is not None
    assert raw.y_test is not None
    assert (raw.x[:, 0, 0, 0].tolist(), raw.x_test[:, 0, 0, 0].tolist(), raw.x_validation) == ([0, 1], [2, 3], None)
    assert (raw.y.tolist(), raw.y_test.tolist(), raw.y.dtype) == ([0, 1], [1, 0], np.int64)
    assert (raw.x.shape, raw.notes) == ((2, 1, 7, 9), ())


@pytest.mark.parametrize(
    ("usual", "asked", "shape", "says_how_else"),
    [
        (ImageForm((12, 16), 3), ImageForm(), (3, 12, 16), True),
        (ImageForm((12, 16), 3), ImageForm((5, 6)), (3, 5, 6), False),
        (ImageForm((12, 16), 3), ImageForm(channels=1), (1, 12, 16), True),
        (ImageForm(), ImageForm(channels=3), (3, 7, 9), None),
    ],
)
def test_the_usual_form_holds_where_no_other_is_asked_for(
    tmp_path: Path, usual: ImageForm, asked: ImageForm, shape: tuple[int, ...], says_how_else: bool | None
) -> None:
    raw = decode_list(listed(tmp_path, usual_form=usual), asked)
    assert raw.x.shape[1:] == shape
    resized = [note for note in raw.notes if "resized" in note]
    assert len(resized) == (says_how_else is not None)
    assert any("--image-size gives another size" in note for note in resized) == bool(says_how_else)


def test_what_was_left_out_is_said_last(tmp_path: Path) -> None:
    listing = listed(tmp_path, ((9, 7), (8, 8), (7, 7), (7, 7)), notes=("first",), left_out=("last",))
    notes = decode_list(listing).notes
    assert (notes[0], notes[-1], len(notes)) == ("first", "last", 3)
    assert skipped([], tmp_path, why="no picture") == ()
    (note,) = skipped([tmp_path / "z" / "b.txt", tmp_path / "a"], tmp_path, why="no picture")
    assert note == "2 files skipped, no picture: 1 .txt, 1 without an ending; the first is a"


def test_few() -> None:
    assert few(["a", "b", "c"]) == "a, b, c"
    assert few([str(number) for number in range(2003)]) == "0, 1, 2 and 2,000 more"
