"""Query pools: names, plug-ins, and no name that a data set has."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image
from support.plugins import installed, write_distribution

from art_divqat.data import load_dataset, load_pool, load_raw
from art_divqat.data.pictures import ImageForm
from art_divqat.data.pools import POOLS, canonical_pool, default_pool, list_pools, pool_origin
from art_divqat.data.sources import DATASETS
from art_divqat.errors import UserError

CODE = """
from dataclasses import replace

import numpy as np
from art_divqat.data import Part, PictureList, RawImages
from art_divqat.data.pictures import ImageForm
from art_divqat.data.pools import PoolEntry
from art_divqat.data.sources import DatasetEntry

GREY = PoolEntry("grey", lambda shape, n, seed: np.full((n, *shape), 0.5), lambda shape: f"grey of {shape[1]}")
FEW = PoolEntry("few", lambda shape, n, seed: np.zeros((3, *shape)))
BRIGHT = PoolEntry("bright", lambda shape, n, seed: np.full((n, *shape), 2.0))


def images(labels, x=None):
    y = np.array(labels)
    return RawImages("?", np.zeros((len(y), 8, 8, 3), np.uint8) if x is None else x, y, None, None, ("a", "b"))


COLOURED = DatasetEntry("coloured", lambda root, download: images([0, 1]))
NAMELESS = DatasetEntry("nameless", lambda root, download: images([0, 1, 2]))
DARK = DatasetEntry("dark", lambda root, download: images([0, 1], np.full((2, 8, 8), -1.0)))
NUMBERS = DatasetEntry("numbers", lambda root, download: [1, 2])


def snaps(root, download):
    files = sorted(root.glob("*.png"))
    return PictureList("?", ("a", "b"), Part(files, [n % 2 for n in range(len(files))]), usual_form=ImageForm((6, 6)))


SNAPS = DatasetEntry("snaps", snaps, pictures=True)
UNCOUNTED = DatasetEntry("uncounted", lambda *given: replace(snaps(*given), class_names=("a",)), pictures=True)
SHORT = DatasetEntry("short", lambda root, _: replace(snaps(root, _), test=Part([*root.glob("*")], [0])), pictures=True)
UNSAID = DatasetEntry("unsaid", snaps)
ARRAYS = DatasetEntry("arrays", lambda root, download: images([0, 1]), pictures=True)
"""


def test_names() -> None:
    assert [name for name in list_pools() if pool_origin(name) is None] == [
        "in-distribution", "photos", "noise", "glyphs", "letters", "numerals", "shapes", "silhouettes", "smooth-noise",
        "strokes", "walks",
    ]  # fmt: skip
    assert canonical_pool(" Photos") == "photos"
    assert canonical_pool("FASHION-MNIST") == "fashion_mnist"
    assert canonical_pool("npz:Here_It.npz") == "npz:Here_It.npz"
    assert default_pool("svhn") == "cifar10"
    with pytest.raises(UserError, match="Unknown query pool 'mnits': did you mean mnist"):
        canonical_pool("mnits")
    assert [pool_origin(name) for name in ("photos", "mnist", "npz:a.npz", "mixture")] == [None] * 4


def test_plug_ins_are_held_to_their_word(tmp_path: Path) -> None:
    pools = {"grey": "GREY", "few": "FEW", "bright": "BRIGHT"}
    datasets = {"coloured": "COLOURED", "nameless": "NAMELESS", "dark": "DARK", "numbers": "NUMBERS"}
    write_distribution(tmp_path, "images-plugin", CODE, {"pools": pools, "datasets": datasets})
    dataset = load_dataset("digits", limit=100)
    with installed(tmp_path, POOLS, DATASETS):
        pool = load_pool("Grey", dataset)
        assert (pool.name, pool.x.shape[1:], str(pool.x.dtype)) == ("grey", (1, 8, 8), "float32")
        assert pool.describe()["adaptation"] == "grey of 8"
        assert pool_origin("grey") == pool_origin("coloured") == "images-plugin 1.2"
        assert default_pool("coloured") == "photos"
        for name, message in {"few": r"gave an array \(3, 1, 8, 8\)", "bright": "values from 2 to 2"}.items():
            with pytest.raises(UserError, match=message):
                load_pool(name, dataset)
        raw = load_raw("Coloured")
        assert (raw.name, raw.x.shape) == ("coloured", (2, 3, 8, 8))
        for name, message in {
            "nameless": "names 2 classes and its labels run to 2",
            "dark": "values from -1",
            "numbers": "gave a list: expected art_divqat.data.RawImages",
        }.items():
            with pytest.raises(UserError, match=message):
                load_raw(name)


def test_plug_ins_may_list_pictures(tmp_path: Path) -> None:
    datasets = {name: name.upper() for name in ("snaps", "uncounted", "short", "unsaid", "arrays")}
    write_distribution(tmp_path, "images-plugin", CODE, {"datasets": datasets})
    root = tmp_path / "root"
    root.mkdir()
    for number in range(20):
        Image.new("L", (9, 7), number).save(root / f"{number:02d}.png")
    with installed(tmp_path, POOLS, DATASETS):
        raw = load_raw("Snaps", data_root=root)
        assert (raw.name, raw.x.shape, raw.class_names) == ("snaps", (20, 1, 6, 6), ("a", "b"))
        assert load_raw("snaps", data_root=root, form=ImageForm((4, 5), 3)).x.shape == (20, 3, 4, 5)
        pool = load_pool("snaps", load_dataset("digits", limit=100), data_root=root)
        assert pool.x.shape == (20, 1, 8, 8)
        for name, message in {
            "uncounted": "uncounted: labels run from 0 to 1; expected class ids from 0 to 0",
            "short": r"short: labels have shape \(1,\); expected \(20,\)",
            "unsaid": "gave a PictureList: expected art_divqat.data.RawImages",
            "arrays": "gave a RawImages: expected art_divqat.data.PictureList",
        }.items():
            with pytest.raises(UserError, match=message):
                load_raw(name, data_root=root)
        with pytest.raises(UserError, match="'snaps' lists a part without pictures"):
            load_raw("snaps", data_root=tmp_path)


def test_a_pool_and_a_data_set_of_one_name_are_refused(tmp_path: Path) -> None:
    write_distribution(tmp_path, "images-plugin", CODE, {"pools": {"mnist": "GREY"}})
    with installed(tmp_path, POOLS, DATASETS):
        message = r"'mnist' of images-plugin 1\.2 has the name of a data set of art-divqat itself"
        for ask in (list_pools, lambda: canonical_pool("photos")):
            with pytest.raises(UserError, match=message):
                ask()
