"""Archives of arrays: x and y alone, rounding noise, and what is said of other types and files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from art_divqat.data import load_dataset, load_raw
from art_divqat.errors import UserError

X = np.random.default_rng(0).random((60, 6, 6, 3)).astype(np.float32)
Y = np.arange(60) % 3


def save(path: Path, **arrays: Any) -> str:
    np.savez(path / "a.npz", **arrays)
    return f"npz:{path / 'a.npz'}"


def test_x_and_y_alone_are_split_by_the_seed(tmp_path: Path) -> None:
    name = save(tmp_path, x=X, y=Y, class_names=np.array(["a", "b", "c"]), more=np.array("kept by its owner"))
    dataset = load_dataset(name, seed=1)
    assert (len(dataset.x_test), dataset.class_names) == (12, ("a", "b", "c"))
    assert dataset.notes == ("x and y alone: test images are cut off them",)
    assert load_dataset(name, seed=1).checksum == dataset.checksum != load_dataset(name, seed=2).checksum


def test_x_beside_a_split_is_nothing(tmp_path: Path) -> None:
    raw = load_raw(save(tmp_path, x=X, y=Y, x_train=X, y_train=Y, x_test=X[:6], y_test=Y[:6]))
    assert raw.x_test is not None
    with pytest.raises(UserError, match=r"lacks the array y_test; .* or x and y\."):
        load_raw(save(tmp_path, x=X, y=Y, x_train=X, y_train=Y, x_test=X[:6]))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_rounding_is_clipped_and_said(tmp_path: Path, dtype: Any) -> None:
    x = X.astype(dtype)
    x[0, 0, 0, 0], x[1, 0, 0, 0] = dtype(-3e-8), dtype(1) + max(dtype(1e-7), np.finfo(dtype).eps)
    name = save(tmp_path, x_train=x, y_train=Y, x_test=X[:6], y_test=Y[:6])
    if dtype is np.float16:
        # its rounding is a quarter of a grey level
        with pytest.raises(UserError, match=r"must lie in \[0, 1\]"):
            load_raw(name)
        return
    raw = load_raw(name)
    assert (raw.x.min(), raw.x.max(), raw.x.dtype) == (0, 1, np.float32)
    assert len(raw.notes) == 1
    assert raw.notes[0].startswith("values from -3")
    assert raw.notes[0].endswith("clipped to [0, 1], as rounding leaves them")
    assert load_raw(save(tmp_path, x=X, y=Y)).notes == ("x and y alone: test images are cut off them",)


@pytest.mark.parametrize(
    ("x", "remedy"),
    [
        (X > 0.5, r"save x\.astype\('float32'\)"),
        ((X * 65535).astype(np.uint16), r"run to 65\d\d\d, so save \(x / 65535\)\.astype\('float32'\)"),
        ((X * 4000).astype(np.uint16), r"\(x / 4095\)\.astype\('float32'\)"),
        ((X * 255).astype(np.int64), r"from 0 to 25\d, so save x\.astype\('uint8'\)"),
        ((X * 9 - 5).astype(np.int8), r"from -4 to 3, so bring black to 0"),
        ((X * 1e9).astype(np.int64), "bring black to 0 and white to 1"),
        (X.astype(np.complex64), "convert them"),
    ],
)
def test_other_types_are_told_what_to_do(tmp_path: Path, x: Any, remedy: str) -> None:
    with pytest.raises(UserError, match=remedy) as caught:
        load_raw(save(tmp_path, x=x, y=Y))
    assert "\n" not in str(caught.value)


def test_what_is_no_archive_of_arrays(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is a folder; .*say folder:"):
        load_raw(f"npz:{tmp_path}")
    np.save(tmp_path / "one.npy", X)
    with pytest.raises(UserError, match="holds one array"):
        load_raw(f"npz:{tmp_path / 'one.npy'}")
    with pytest.raises(UserError, match=r"it holds a0, a1, .*, a7, …\. Save") as caught:
        load_raw(save(tmp_path, **{f"a{n}": Y for n in range(500)}))
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (None, ("3", "7", "19")),
        (["a", "b", "c"], ("a", "b", "c")),
        ([f"n{number}" for number in range(20)], ("n3", "n7", "n19")),
    ],
)
def test_labels_with_gaps_are_numbered_in_their_order_and_keep_their_names(
    tmp_path: Path, names: list[str] | None, expected: tuple[str, ...]
) -> None:
    ids = np.array([7, 19, 3])
    more = {} if names is None else {"class_names": np.array(names)}
    raw = load_raw(save(tmp_path, x_train=X, y_train=ids[Y], x_test=X[:4], y_test=[19, 3, 7, 19], **more))
    assert raw.class_names == expected
    assert raw.y[:3].tolist() == [1, 2, 0]
    assert raw.y_test is not None
    assert raw.y_test.tolist() == [2, 0, 1, 2]
    assert raw.notes == ("3 classes with labels from 3 to 19, numbered in their order",)
    whole = load_dataset(save(tmp_path, x=X, y=ids[Y], **more))
    assert (whole.nb_classes, set(whole.y_test.tolist())) == (3, {0, 1, 2})


def test_labels_without_gaps_are_as_they_were(tmp_path: Path) -> None:
    raw = load_raw(save(tmp_path, x_train=X, y_train=Y, x_test=X[:2], y_test=[2, 0]))
    assert (raw.notes, raw.class_names, raw.y.dtype) == ((), ("0", "1", "2"), np.int64)
    np.testing.assert_array_equal(raw.y, Y)


def test_labels_that_are_names(tmp_path: Path) -> None:
    names, numbers = np.unique(np.array(["owl", "cat", "dog"])[Y], return_inverse=True)
    with pytest.raises(UserError, match=r"labels are texts, such as 'owl'.*and save the names as class_names"):
        load_raw(save(tmp_path, x=X, y=names[numbers]))
    raw = load_raw(save(tmp_path, x=X, y=numbers, class_names=names))
    assert raw.class_names == ("cat", "dog", "owl")


@pytest.mark.parametrize(("names", "labels"), [(2, (0, 1, 2)), (4, (0, 3, 7)), (1, (0, 5)), (0, (0, 1))])
def test_names_that_are_neither_one_a_class_nor_one_a_number(
    names: int, labels: tuple[int, ...], tmp_path: Path
) -> None:
    y = np.array(labels)[np.arange(len(X)) % len(labels)]
    with pytest.raises(
        UserError, match=f"class_names holds {names} names; expected {len(labels)}, .* {labels[-1] + 1}"
    ):
        load_raw(save(tmp_path, x=X, y=y, class_names=np.array([f"n{i}" for i in range(names)])))
