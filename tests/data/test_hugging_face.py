"""Sets that `datasets` saved are read as folders of the same pictures are; what does not fit is one sentence."""

from __future__ import annotations

import builtins
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from art_divqat.data import load_dataset, load_pool
from art_divqat.data.pictures import ImageForm
from art_divqat.data.sizes import smaller_side
from art_divqat.data.sources import canonical_dataset, has_pictures, list_pictures, load_raw
from art_divqat.data.stored import StoredImages
from art_divqat.errors import MissingExtraError, UserError

NAMES = ("ant", "bee", "cat")


@pytest.fixture
def hf() -> Any:
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    return datasets


def pixels(count: int, seed: int, size: tuple[int, ...] = (8, 9, 3)) -> list[np.ndarray[Any, Any]]:
    return list(np.random.default_rng(seed).integers(0, 256, (count, *size), dtype=np.uint8))


def make(hf: Any, count: int, seed: int = 0, size: tuple[int, ...] = (8, 9, 3), **columns: Any) -> Any:
    features = {"picture": hf.Image(), "kind": hf.ClassLabel(names=list(NAMES))}
    content = {
        "picture": [Image.fromarray(each) for each in pixels(count, seed, size)],
        "kind": [row % 3 for row in range(count)],
    }
    for name, (feature, values) in columns.items():
        features[name], content[name] = feature, values
    return hf.Dataset.from_dict(content, features=hf.Features(features))


def test_splits_labels_and_pixels_are_those_saved(hf: Any, tmp_path: Path) -> None:
    sets = {"train": make(hf, 30), "valid": make(hf, 9, 1), "test": make(hf, 12, 2), "unsupervised": make(hf, 3, 3)}
    hf.DatasetDict(sets).save_to_disk(str(tmp_path / "set"))
    name = f"hf:{tmp_path / 'set'}"
    assert canonical_dataset(name) == name
    assert has_pictures(name)
    raw = load_raw(name)
    assert raw.class_names == NAMES
    assert np.array_equal(raw.x, np.stack(pixels(30, 0)).transpose(0, 3, 1, 2))
    assert raw.x_validation is not None
    assert np.array_equal(raw.x_validation, np.stack(pixels(9, 1)).transpose(0, 3, 1, 2))
    assert raw.x_test is not None
    assert np.array_equal(raw.x_test, np.stack(pixels(12, 2)).transpose(0, 3, 1, 2))
    assert raw.y.tolist() == [row % 3 for row in range(30)]
    assert any("unsupervised" in note for note in raw.notes)
    assert smaller_side(name, ImageForm()) == 8
    # of the folder of data sets, by its name there
    assert load_raw("hf:set", data_root=tmp_path).x.shape == (30, 3, 8, 9)


def test_it_is_read_as_a_folder_of_the_same_files_is(hf: Any, tmp_path: Path) -> None:
    """16-bit grey, a palette, EXIF: the meaning of a file does not depend on what it lies in."""
    grey16 = Image.fromarray(np.random.default_rng(0).integers(0, 65536, (8, 8)).astype(np.uint16))
    turned = Image.fromarray(pixels(1, 4, (8, 8, 3))[0])
    exif = turned.getexif()
    exif[274] = 6
    held = []
    for number, (picture, kind, options) in enumerate(
        [(grey16, "PNG", {}), (turned.convert("P"), "PNG", {}), (turned, "JPEG", {"exif": exif})] * 4
    ):
        file = io.BytesIO()
        picture.save(file, kind, **options)
        held.append({"bytes": file.getvalue(), "path": None})
        folder = tmp_path / "folder" / NAMES[number % 3]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number:02}.{kind.lower()}").write_bytes(file.getvalue())
    features = hf.Features({"image": hf.Image(), "label": hf.ClassLabel(names=list(NAMES))})
    saved = hf.Dataset.from_dict({"image": held, "label": [n % 3 for n in range(12)]}, features=features)
    saved.with_format("numpy").save_to_disk(str(tmp_path / "set"))
    ours, folder = load_raw(f"hf:{tmp_path / 'set'}"), load_raw(f"folder:{tmp_path / 'folder'}")
    order = np.argsort(ours.y, kind="stable")
    assert np.array_equal(np.asarray(ours.x)[order], folder.x)
    assert [n for n in ours.notes if n.startswith(("4 of", "12 of"))] == [
        n for n in folder.notes if n.startswith(("4 of", "12 of"))
    ]
    assert any("no test split" in note for note in ours.notes)


def test_large_pictures_lie_in_a_file_and_are_read_anew_when_the_set_changes(
    hf: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    name = f"hf:{tmp_path / 'set'}"
    for seed in (0, 1):
        make(hf, 6, seed, (80, 70, 3)).save_to_disk(str(tmp_path / "set"))
        raw = load_raw(name)
        assert isinstance(raw.x, StoredImages)
        assert np.array_equal(raw.x.bytes_of(slice(None)), np.stack(pixels(6, seed, (80, 70, 3))).transpose(0, 3, 1, 2))


def test_it_is_a_victims_data_and_a_pool(hf: Any, tmp_path: Path) -> None:
    hf.DatasetDict(train=make(hf, 60), validation=make(hf, 15, 1)).save_to_disk(str(tmp_path / "set"))
    make(hf, 21, 7, (20, 16)).save_to_disk(str(tmp_path / "grey"))
    split = load_dataset(f"hf:{tmp_path / 'set'}")
    assert len(split.x_test) == 15
    pool = load_pool(f"hf:{tmp_path / 'grey'}", split)
    assert pool.x.shape == (21, 3, 8, 9)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda hf, d: {"train": d.remove_columns("picture")}, r"has the columns kind, none of images: cast_column"),
        (lambda hf, d: {"train": d.remove_columns("kind")}, r"none of class labels: class_encode_column"),
        (
            lambda hf, d: {"train": make(hf, 6, coarse=(hf.ClassLabel(names=["x"]), [0] * 6))},
            r"has the columns kind, coarse of class labels: remove_columns all but one",
        ),
        (
            lambda hf, d: {"train": make(hf, 6, mask=(hf.Image(), d["picture"][:6]))},
            r"has the columns picture, mask of images",
        ),
        (lambda hf, d: {"test": d, "extra": d}, r"has the splits test, extra and no train"),
        (lambda hf, d: {"train": d, "val": d, "valid": d}, r"the splits val and valid, which are the same part"),
        (lambda hf, d: {"train": d.filter(lambda row: row["kind"] != 1)}, r"has no pictures of 'bee' in train"),
        (
            lambda hf, d: {"train": d.map(lambda row: {"kind": -1 if row["kind"] == 2 else row["kind"]})},
            r"rows of the split train have no label",
        ),
        (lambda hf, d: {"train": d.map(lambda row: {"picture": None})}, r"Row 0 of hf:.*train cannot be read"),
    ],
)
def test_what_does_not_fit_is_one_sentence(hf: Any, tmp_path: Path, change: Any, message: str) -> None:
    hf.DatasetDict(change(hf, make(hf, 12))).save_to_disk(str(tmp_path / "set"))
    with pytest.raises(UserError, match=message) as refused:
        load_raw(f"hf:{tmp_path / 'set'}")
    assert "\n" not in str(refused.value)


def test_a_test_split_without_labels_is_left_out(hf: Any, tmp_path: Path) -> None:
    unlabelled = make(hf, 6, 1).map(lambda row: {"kind": -1})
    hf.DatasetDict(train=make(hf, 12), test=unlabelled).save_to_disk(str(tmp_path / "set"))
    listing = list_pictures(f"hf:{tmp_path / 'set'}")
    assert listing.test is None
    assert any("test has no labels" in note for note in listing.notes)


def test_damaged_and_missing_folders(hf: Any, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"empty cannot be read as a data set of Dataset\.save_to_disk"):
        load_raw(f"hf:{tmp_path / 'empty'}")
    make(hf, 6).save_to_disk(str(tmp_path / "cut"))
    for file in (tmp_path / "cut").glob("*.arrow"):
        file.write_bytes(file.read_bytes()[:40])
    with pytest.raises(UserError, match="cut cannot be read as a data set"):
        load_raw(f"hf:{tmp_path / 'cut'}")


def test_the_hub_is_asked_only_with_download(hf: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def hub(name: str) -> Any:
        asked.append(name)
        if name == "nobody/broken":
            raise ConnectionError("no route\nto the Hub")
        return hf.DatasetDict(train=make(hf, 12), test=make(hf, 6, 1))

    monkeypatch.setattr(hf, "load_dataset", hub)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"There is no folder owner/insects: .* --download"):
        load_raw("hf:owner/insects", data_root=tmp_path / "root")
    with pytest.raises(UserError, match="There is no folder"):
        load_raw("hf:../not a name", data_root=tmp_path / "root", download=True)
    assert asked == []
    first = load_raw("hf:owner/insects", data_root=tmp_path / "root", download=True)
    # once it is there it is found without
    again = load_raw("hf:owner/insects", data_root=tmp_path / "root")
    assert asked == ["owner/insects"]
    assert np.array_equal(first.x, again.x)
    with pytest.raises(UserError, match=r"'nobody/broken' could not be downloaded .* no route"):
        load_raw("hf:nobody/broken", data_root=tmp_path / "root", download=True)
    assert not (tmp_path / "root" / "hf" / "nobody" / "broken").exists()


def test_without_datasets_there_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name == "datasets":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtraError, match=r"pip install 'art-divqat\[datasets\]'"):
        load_raw(f"hf:{tmp_path}")
