"""Answers of endpoints that are class ids, names of classes, or scores by name."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from art_divqat.errors import UserError
from art_divqat.estimators.named_answers import labels_to_rows
from art_divqat.estimators.remote_protocols import BadAnswerError, protocol_of

NAMES = ("cat", "dog", "owl")
ONE_HOT = [[0, 0, 1], [1, 0, 0]]
SCORES = [[0, 0.25, 0.5], [0.75, 0, 0]]


@pytest.mark.parametrize(
    ("predictions", "expected"),
    [
        ([2, 0], ONE_HOT),
        ([[2], [0]], ONE_HOT),
        (["owl", "cat"], ONE_HOT),
        ([["owl"], ["cat"]], ONE_HOT),
        (["2", "0"], ONE_HOT),
        ([{"label": "owl"}, {"label": "cat"}], ONE_HOT),
        ([{"owl": 0.5, "dog": 0.25}, {"cat": 0.75}], SCORES),
        (
            [[{"class": "owl", "score": 0.5}, {"class": "dog", "score": 0.25}], [{"class": "cat", "score": 0.75}]],
            SCORES,
        ),
        (SCORES, SCORES),
    ],
)
def test_the_json_form(predictions: Any, expected: Any) -> None:
    body = json.dumps({"predictions": predictions}).encode()
    assert protocol_of("http://h/", "json").rows(body, 2, 3, NAMES).tolist() == expected


@pytest.mark.parametrize(
    ("datatype", "shape", "data"),
    [("INT64", [2], [2, 0]), ("INT32", [2, 1], [2, 0]), ("BYTES", [2], ["owl", "cat"]), ("FP32", [2, 1], [2.0, 0.0])],
)
def test_the_open_inference_protocol(datatype: str, shape: list[int], data: list[Any]) -> None:
    other = {"name": "time", "datatype": "FP32", "shape": [1], "data": [0.5]}
    output = {"name": "o", "datatype": datatype, "shape": shape, "data": data}
    body = json.dumps({"outputs": [other, output]}).encode()
    assert protocol_of("http://h/v2/models/m", "auto").rows(body, 2, 3, NAMES).tolist() == ONE_HOT


@pytest.mark.parametrize("predictions", [["owl", "emu"], [3, 0], [-1, 0], [{"emu": 1.0}, {"cat": 1.0}]])
def test_a_class_that_the_data_lacks_is_named(predictions: Any) -> None:
    with pytest.raises(UserError, match=r"with class ('emu'|3|-1)"):
        protocol_of("http://h/", "json").rows(json.dumps({"predictions": predictions}).encode(), 2, 3, NAMES)


@pytest.mark.parametrize(
    "predictions", [[0.5, 0.2], [[0.5], [0.2]], [None, None], [{"owl": "much"}, {}], [], [[], []], 7]
)
def test_anything_else_is_a_bad_answer(predictions: Any) -> None:
    with pytest.raises(BadAnswerError):
        protocol_of("http://h/", "json").rows(json.dumps({"predictions": predictions}).encode(), 2, 3, NAMES)


def test_labels_of_a_model_in_this_process() -> None:
    assert labels_to_rows(np.array([2.0, 0.0]), 3) is not None
    assert labels_to_rows(np.array([[0.1, 0.9]]), 2) is None
    assert labels_to_rows(np.zeros((0,)), 2) is not None
