"""Names in plots are cut short and stay apart."""

from __future__ import annotations

import pytest

from art_divqat.report.text import shorten, shorten_apart

LONG = "external:name=resnet50-of-the-shop.onnx behind heuristic:{} (knockoff, soft answers)"


def test_names_that_stay_apart_are_cut_as_ever() -> None:
    texts = ["standard", "a" * 50, "robust:epsilon=0.2 " * 3]
    assert shorten_apart(texts) == [shorten(text) for text in texts]
    assert shorten_apart([]) == []


@pytest.mark.parametrize(
    "given",
    [
        ("beta=0.5,gamma=0.1", "beta=0.9,gamma=0.1"),
        ("beta=0.5", "beta=0.55", "beta=0.555"),
        ("beta=0.9,gamma=0.1,variant=released", "beta=0.9,gamma=0.2,variant=released"),
        ("beta=0.9", "beta=0.9 and rounding:decimals=2, then one more, and another one after it"),
        ("", "beta=0.9"),
        ("β=½", "β=¼"),
    ],
)
@pytest.mark.parametrize("length", [20, 36, 48])
def test_names_that_would_become_alike_show_where_they_differ(given: tuple[str, ...], length: int) -> None:
    texts = [LONG.format(each) for each in given]
    shown = shorten_apart([*texts, "standard"], length)
    assert len(set(shown)) == len(given) + 1
    assert shown[-1] == "standard"
    for text, short in zip(texts, shown, strict=False):
        assert len(short) < len(text)
        assert short[:4] == text[:4]


def test_the_same_name_twice_is_the_same() -> None:
    assert len(set(shorten_apart([LONG, LONG]))) == 1
