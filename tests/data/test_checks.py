"""The one checker of image arrays and labels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from art_divqat.data.checks import (
    as_nchw,
    check_image_shape,
    check_images,
    check_labels,
    check_pairs,
    check_targets,
    float_images,
    is_one_hot,
)
from art_divqat.errors import UserError

X = np.full((2, 1, 4, 4), 0.5)


def test_images_and_labels_take_the_usual_forms() -> None:
    assert as_nchw(np.zeros((2, 1, 8, 8)), "x").shape == (2, 1, 8, 8)
    assert check_images(np.ones((1, 1, 2, 2), np.float64), "x").dtype == np.float32
    assert check_labels(np.eye(3), 3, "y").tolist() == [0, 1, 2]
    assert check_labels(np.array([[0], [2]]), 2, "y").tolist() == [0, 2]
    assert check_labels(np.array([[1], [1]]), 2, "y").tolist() == [1, 1]
    assert check_labels(np.array([0.0, 1.0]), 2, "y").tolist() == [0, 1]
    assert check_labels([], 0, "y").shape == (0,)
    assert check_labels(np.array([2], np.uint8), 1, "y", classes=3).dtype == np.int64


def test_float_images_are_contiguous_and_not_copied_without_need() -> None:
    x = X.astype(np.float32)
    assert float_images(x, "Images") is x
    images = float_images(np.asfortranarray(X), "Images", shape=(1, 4, 4))
    assert images.dtype == np.float32
    assert images.flags.c_contiguous
    assert float_images(X[:0], "Images").shape == (0, 1, 4, 4)


def test_a_classifier_with_other_bounds_is_asked_for_its_own() -> None:
    low, high = np.array([-1, -2]).reshape(2, 1, 1), np.array([1, 2]).reshape(2, 1, 1)
    x = np.stack([np.full((4, 4), 1.0), np.full((4, 4), 2.0)])[None]
    assert float_images(x, "Images", clip_values=(low, high)).shape == x.shape
    with pytest.raises(UserError, match=r"must lie in \[-2, 2\], the classifier's clip_values. Got .* 1 to 2"):
        float_images(x[:, ::-1], "The images", clip_values=(low, high))
    assert float_images(x * 99, "Images", clip_values=None).max() == 198


def test_a_tolerance_is_one() -> None:
    assert float_images(X + 0.50005, "Images", tolerance=1e-4).shape == X.shape
    with pytest.raises(UserError, match=r"must lie in \[0, 1\]"):
        float_images(X + 0.50005, "Images")
    with pytest.raises(UserError, match=r"must lie in \[0, 1\]"):
        float_images(X + 0.5002, "Images", tolerance=1e-4)


@pytest.mark.parametrize(
    ("x", "shape", "message"),
    [
        (np.zeros((2, 4, 4)), None, r"The images must have shape \(N, channels, height, width\). Got \(2, 4, 4\)"),
        (X, (1, 8, 8), r"The images must have shape \(N, 1, 8, 8\). Got \(2, 1, 4, 4\)"),
        (X * np.nan, None, "The images hold values that are not finite"),
        (np.where(X > 0, np.inf, X), None, "not finite"),
        (X * 255, None, "must lie in .0, 1.. Got values from 127.5 to 127.5: divide 0–255 pixels by 255"),
        (X - 1, None, "Got values from -0.5 to -0.5"),
    ],
)
def test_bad_float_images(x: Any, shape: tuple[int, ...] | None, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        float_images(x, "The images", shape=shape)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (np.zeros(3, int), r"Labels have shape \(3,\); expected \(2,\)"),
        (np.full((2, 3), 1 / 3), r"shape \(2, 3\) and are not one-hot"),
        (None, r"shape \(\)"),
        (np.array([0.5, 1]), "not whole numbers"),
        (np.array(["a", "b"]), "are texts, such as .a."),
        (np.array([0, np.nan]), "not whole numbers"),
        (np.array([-1, 0]), "run from -1 to 0; expected class ids from 0 to 2."),
        (np.array([0, 3]), "run from 0 to 3; expected class ids from 0 to 2."),
    ],
)
def test_bad_labels(y: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_labels(y, 2, "Labels", classes=3)


def test_a_huge_id_is_refused_where_the_classes_are_not_known() -> None:
    with pytest.raises(UserError, match=r"class ids from 0\."):
        check_labels(np.array([0, 10**6]), 2, "Labels")


def test_targets_are_ids_or_rows() -> None:
    rows = np.array([[0.2, 0.8], [1, 0]])
    targets = check_targets(rows, 2, "Labels", 2)
    assert targets.dtype == np.float32
    np.testing.assert_allclose(targets, rows)
    assert check_targets(np.eye(2), 2, "Labels", 2).shape == (2, 2), "one-hot rows stay rows"
    assert check_targets([[1], [0]], 2, "Labels", 2).tolist() == [1, 0]
    for y in (np.eye(3)[:2], np.eye(2)[[0, 1, 0]]):
        with pytest.raises(UserError, match=r"or \(2, 2\), rows of 2 values"):
            check_targets(y, 2, "Labels", 2)


def test_small_checks() -> None:
    assert not is_one_hot(np.array([[1, 1], [0, 1]]))
    check_pairs(2, 2)
    for images, labels in ((0, 0), (2, 3)):
        with pytest.raises(UserError, match=f"as many labels as images, and at least one. Got {images} and {labels}"):
            check_pairs(images, labels)
    check_image_shape(X, (1, 4, 4), "The victim")
    with pytest.raises(UserError, match=r"The victim takes images of shape \(3, 4, 4\). Got \(1, 4, 4\)."):
        check_image_shape(X, (3, 4, 4), "The victim")


@pytest.mark.parametrize(
    "y", [["cat", "dog"], np.array(["cat", "dog"]), np.array(["cat", "dog"], object), [["cat"], ["dog"]]]
)
def test_labels_that_are_texts_are_told_how_they_are_numbered(y: Any) -> None:
    with pytest.raises(UserError, match=r"Labels are texts, such as 'cat'; .* return_inverse=True\), and so on\.$"):
        check_labels(y, 2, "Labels", remedy=", and so on")
    with pytest.raises(UserError, match=r"dtype object and are not whole numbers"):
        check_labels(np.array([None, "a"], object), 2, "Labels")
