"""Every layout alike: where it is looked for, what is said if it is not there, its size, its use on either side."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torchvision
from support.picture_trees import TREES

from art_divqat.data import load_dataset, load_pool, load_raw
from art_divqat.data.layouts.tree import Archive, flat_pictures
from art_divqat.data.listing import Part
from art_divqat.data.pictures import ImageForm
from art_divqat.data.pools import canonical_pool, default_pool
from art_divqat.data.sources import DATASETS, has_pictures, list_pictures
from art_divqat.errors import UserError
from art_divqat.testing import check_dataset

DOWNLOADED = {"caltech101", "caltech256", "imagenette"}
SMALL = ImageForm((8, 8))


def test_every_set_of_pictures_has_a_tree_here() -> None:
    assert {name for name in DATASETS if has_pictures(name)} == set(TREES)
    assert not has_pictures("mnist")
    assert has_pictures("Tiny-ImageNet")
    assert not has_pictures("npz:folder:x")


@pytest.mark.parametrize("name", TREES)
def test_the_data_root_holds_the_set_or_is_it(tmp_path: Path, name: str) -> None:
    place = TREES[name](tmp_path)
    listing = list_pictures(name, data_root=tmp_path)
    assert listing.name == name
    assert list_pictures(name.upper().replace("_", "-"), data_root=place) == listing
    assert all(file.is_file() for file in listing.train.files)


@pytest.mark.parametrize("name", TREES)
def test_every_set_keeps_the_contract(tmp_path: Path, name: str) -> None:
    TREES[name](tmp_path)
    check_dataset(DATASETS[name], data_root=tmp_path)


@pytest.mark.parametrize("name", TREES)
def test_the_size_is_the_usual_one_unless_another_is_asked_for(tmp_path: Path, name: str) -> None:
    TREES[name](tmp_path)
    raw = load_raw(name, data_root=tmp_path)
    side = 64 if name == "tiny_imagenet" else 224
    assert raw.x.shape[1:] == (3, side, side)
    assert any(f"resized to {side}×{side}" in note and "--image-size" in note for note in raw.notes)
    squashed = load_raw(name, data_root=tmp_path, form=ImageForm((12, 10), channels=1, fit="squash"))
    assert squashed.x.shape[1:] == (1, 12, 10)
    assert any("resized to 12×10, bilinear, squashed" in note for note in squashed.notes)
    assert not any("--image-size" in note for note in squashed.notes)


@pytest.mark.parametrize("name", TREES)
def test_a_victims_data_and_anothers_query_pool(tmp_path: Path, name: str) -> None:
    TREES[name](tmp_path)
    dataset = load_dataset(name, data_root=tmp_path, form=SMALL)
    assert (dataset.name, dataset.input_shape) == (name, (3, 8, 8))
    # asked for by its own name, the pool is what the victim does not train on
    own = load_pool(name, dataset, data_root=tmp_path)
    assert (own.name, len(own.x)) == ("in-distribution", len(dataset.x_pool))
    digits = load_dataset("digits", form=ImageForm((12, 10)), limit=100)
    pool = load_pool(name, digits, data_root=tmp_path, fit="squash")
    listing = list_pictures(name, data_root=tmp_path)
    assert pool.x.shape == (len(listing.train.files), 1, 12, 10)
    assert pool.labels is not None
    assert pool.labels.tolist() == list(listing.train.labels)
    assert any("resized to 12×10, bilinear, squashed" in note for note in pool.notes)


def test_default_pools_are_sets_that_can_be_downloaded() -> None:
    assert {canonical_pool(default_pool(name)) for name in TREES} <= DOWNLOADED
    assert not any(default_pool(name) == name for name in TREES)


@pytest.mark.parametrize("name", TREES)
@pytest.mark.parametrize("root", ["empty", "missing"])
def test_a_set_that_is_not_there(tmp_path: Path, name: str, root: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="is not in") as caught:
        load_raw(name, data_root=tmp_path / root)
    said = str(caught.value)
    assert "\n" not in said
    assert ("add --download, or unpack" in said) == (name in DOWNLOADED)
    assert "there, or point --data-root at the folder that holds" in said
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]
    assert not any((tmp_path / "empty").iterdir())


@pytest.mark.parametrize("name", sorted(set(TREES) - {"indoor67"}))
def test_another_set_is_not_taken_for_it(tmp_path: Path, name: str) -> None:
    for folder in ("images", "Images", "train/cat", "val/cat", "val/images", "test"):
        (tmp_path / folder).mkdir(parents=True)
    with pytest.raises(UserError, match=f"'{name}' is not in"):
        list_pictures(name, data_root=tmp_path)


@pytest.mark.parametrize("name", sorted(set(TREES) - DOWNLOADED))
def test_a_set_that_nothing_downloads(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="and cannot be downloaded: unpack"):
        load_raw(name, data_root=tmp_path, download=True)
    TREES[name](tmp_path)
    assert list_pictures(name, data_root=tmp_path, download=True).name == name


@pytest.mark.parametrize("name", sorted(DOWNLOADED))
def test_torchvision_downloads_what_is_not_there(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def fetch(url: str, download_root: str, *args: object, **kwargs: object) -> None:
        asked.append(url)
        if name == "caltech101":
            raise ConnectionError("no network\nat all")
        # as the archive of the set unpacks there
        TREES[name](tmp_path / "elsewhere")
        (held,) = (tmp_path / "elsewhere").iterdir()
        if name == "caltech256":
            shutil.copytree(held, download_root, dirs_exist_ok=True)
        else:
            shutil.copytree(held, Path(download_root) / "imagenette2-320")

    for module in ("caltech", "imagenette"):
        monkeypatch.setattr(getattr(torchvision.datasets, module), "download_and_extract_archive", fetch)
    root = tmp_path / "new"
    if name == "caltech101":
        with pytest.raises(UserError, match=r"'caltech101' could not be downloaded to .*new: .*no network$"):
            list_pictures(name, data_root=root, download=True)
        return
    assert len(list_pictures(name, data_root=root, download=True).train.files) >= 24
    # what is there is not asked for again
    list_pictures(name, data_root=root, download=True)
    assert len(asked) == 1


def test_torchvision_reads_the_same_trees(tmp_path: Path) -> None:
    """The same pictures with the same labels, but for the class of no class and the strays, which it would read."""
    for name in DOWNLOADED:
        TREES[name](tmp_path)
    theirs = torchvision.datasets.Caltech101(str(tmp_path))
    ours = list_pictures("caltech101", data_root=tmp_path)
    assert (tuple(theirs.categories), theirs.y) == (ours.class_names, list(ours.train.labels))
    for part, split in (("train", "train"), ("test", "val")):
        theirs = torchvision.datasets.Imagenette(str(tmp_path), split=split, size="160px")
        mine = getattr(list_pictures("imagenette", data_root=tmp_path), part)
        assert [(str(file), label) for file, label in zip(*mine, strict=True)] == theirs._samples
    assert [names[0] for names in theirs.classes] == list(list_pictures("imagenette", data_root=tmp_path).class_names)
    theirs = torchvision.datasets.Caltech256(str(tmp_path))
    ours = list_pictures("caltech256", data_root=tmp_path)
    assert theirs.y[: len(ours.train.labels)] == list(ours.train.labels)


def test_a_tree_that_is_not_the_whole_set_says_so() -> None:
    archive = Archive("birds", "birds.tgz", ("birds",), ("list.txt",), 2, 3)
    files = [Path("a"), Path("b"), Path("c")]
    assert archive.completeness(2, Part(files[:2], [0, 1]), Part(files[2:], [0])) == ()
    assert archive.completeness(2, Part(files[:2], [0, 1])) == (
        "2 classes and 2 pictures, where the whole set has 2 and 3",
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "lacks list.txt: unpack birds.tgz again"),
        ("", "has an empty list.txt"),
        (" \n\n", "has an empty list.txt"),
        ("1 a b\n\n2\n", "has 1 of 2 columns in line 3 of list.txt"),
    ],
)
def test_damaged_tables(tmp_path: Path, text: str | None, message: str) -> None:
    archive = Archive("birds", "birds.tgz", ("birds",), ("list.txt",), 2, 3)
    if text is not None:
        (tmp_path / "list.txt").write_text(text)
    with pytest.raises(UserError, match=message):
        list(archive.rows(tmp_path, "list.txt", 2))


def test_tables_as_systems_write_them(tmp_path: Path) -> None:
    archive = Archive("birds", "birds.tgz", ("birds",), ("list.txt",), 2, 3)
    (tmp_path / "list.txt").write_bytes("\ufeff1 a b\r\n\r\n2\tc".encode())
    assert list(archive.rows(tmp_path, "list.txt", 2)) == [["1", "a b"], ["2", "c"]]


def test_only_pictures_directly_in_a_folder_are_of_its_class(tmp_path: Path) -> None:
    for name in ("b.JPG", "a.jpeg", "._a.jpg", ".DS_Store", "notes.txt", "deeper/c.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"\0")
    pictures, others = flat_pictures(tmp_path)
    assert [file.name for file in pictures] == ["a.jpeg", "b.JPG"]
    assert sorted(file.name for file in others) == ["c.jpg", "notes.txt"]
    assert flat_pictures(tmp_path / "none") == ([], [])


def test_a_folder_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    TREES["caltech101"](tmp_path)

    def refuse(*args: object, **kwargs: object) -> None:
        raise PermissionError(13, "Permission denied", str(tmp_path))

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(UserError, match=r"The folder .* cannot be read: .*Permission denied"):
        list_pictures("caltech101", data_root=tmp_path)
