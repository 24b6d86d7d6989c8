"""Text of numbers and names: one way to write a rate, a ratio, an interval and a name."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from itertools import takewhile
from math import isinf

from art_divqat._files import is_kept_arrays
from art_divqat.results.effects import MOST_SEEDS
from art_divqat.results.schema import Comparison, Estimate

NONE = "–"
_WORDS = re.compile(r"[ ,:;()]|[^ ,:;()]+")
_UNPRINTABLE = ("Cc", "Cf", "Cs", "Zl", "Zp")


def clean(text: str) -> str:
    r"""One printable line: control characters, line breaks, lone surrogates and U+FFFE, U+FFFF become U+FFFD.

    Names come from users; a name that turns the writing direction could make a report say the opposite.

    >>> clean("a\x1b[31m\nb")
    'a�[31m�b'
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join("\ufffd" if unicodedata.category(c) in _UNPRINTABLE or c in "\ufffe\uffff" else c for c in text)


def shorten(text: str, length: int = 36) -> str:
    """The text, cut in the middle where it is longer than `length`."""
    text = clean(text)
    if len(text) <= length:
        return text
    half = (length - 1) // 2
    return f"{text[:half]}…{text[-half:]}"


def shorten_apart(texts: Iterable[str], length: int = 36) -> list[str]:
    """Each text by :func:`shorten`; those that it would make alike are cut where they are alike instead.

    >>> shorten_apart([f"m.onnx with the noise defence, scale={scale} (scout, soft answers)" for scale in (0.1, 0.2)])
    ['m.onnx with…scale=0.1…oft answers)', 'm.onnx with…scale=0.2…oft answers)']
    """
    whole = [clean(text) for text in texts]
    shown = [shorten(text, length) for text in whole]
    for short in {text for text in shown if shown.count(text) > 1}:
        alike = [index for index, text in enumerate(shown) if text == short]
        start, end = _in_common([whole[index] for index in alike])
        for index in alike:
            text = whole[index]
            own = text[start : len(text) - end]
            room = max((length - len(own)) // 2 - 1, length // 4)
            before = text[:start] if start <= room else f"{text[:room].rstrip()}…"
            after = text[len(text) - end :] if end <= room else f"…{text[-room:].lstrip()}"
            shown[index] = before + own.strip() + after
    return shown


def _in_common(texts: Iterable[str]) -> tuple[int, int]:
    """How many characters at the start, and of the rest at the end, all of the texts have in common, as whole words."""
    rows = [_WORDS.findall(text) for text in texts]
    start = _equal(rows)
    end = _equal([row[start:][::-1] for row in rows])
    return sum(map(len, rows[0][:start])), sum(map(len, rows[0][len(rows[0]) - end :]))


def _equal(rows: list[list[str]]) -> int:
    return sum(1 for _ in takewhile(lambda words: len(set(words)) == 1, zip(*rows, strict=False)))


def dataset_name(name: str) -> str:
    """A data set as it is named, or that its arrays were given in Python, where it is a file that keeps such.

    >>> dataset_name("npz:/home/a/.cache/art-divqat/arrays/0123456789abcdef.npz"), dataset_name("digits")
    ('arrays given in Python', 'digits')
    """
    return "arrays given in Python" if is_kept_arrays(name) else clean(name)


def short_name(name: str, among: Iterable[str]) -> str:
    """The name without its parameters, where no other name in the run begins the same way.

    >>> short_name("robust:epsilon=0.2", ["standard", "robust:epsilon=0.2"])
    'robust'
    """
    base, colon, rest = name.partition(":")
    if not colon or "=" not in rest or "/" in name:
        return clean(name)
    alike = [other for other in set(among) if other.partition(":")[0] == base]
    return clean(base if len(alike) < 2 else name)


def percent(rate: float | None, digits: int = 1) -> str:
    """A fraction in percent.

    >>> percent(0.7123), percent(1.0), percent(None)
    ('71.2 %', '100 %', '–')
    """
    if rate is None:
        return NONE
    return f"{_number(100 * rate, digits)} %"


def points(difference: float) -> str:
    """A difference of two rates in percentage points.

    >>> points(0.031), points(-0.2)
    ('+3.1 points', '−20.0 points')
    """
    return f"{_signed(difference)} points"


def ratio(value: float | None) -> str:
    """A ratio with two decimals, with more where two would hide that it is not 1.

    >>> ratio(1.138), ratio(1.003), ratio(1.0)
    ('1.14', '1.003', '1.00')
    """
    if value is None:
        return NONE
    for digits in (2, 3, 4):
        if round(value, digits) != 1 or value == 1:
            return f"{value:.{digits}f}"
    return f"{value:.2f}"


def plain(value: float | None) -> str:
    """A number without a unit, three significant digits.

    >>> plain(0.01234), plain(1234.5), plain(0.0)
    ('0.0123', '1,234', '0')
    """
    if value is None:
        return NONE
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _signed(difference: float) -> str:
    return f"{100 * difference:+.1f}".replace("-", "−")


def _number(value: float, digits: int) -> str:
    text = f"{value:.{digits}f}"
    return "100" if float(text) == 100 and value == 100 else text


def percent_range(estimate: Estimate) -> str:
    """The interval of a rate, or that there is none.

    >>> percent_range(Estimate(mean=0.7, low=0.68, high=0.741))
    '68.0–74.1 %'
    """
    if estimate.low is None or estimate.high is None:
        return "no interval"
    return f"{_number(100 * estimate.low, 1)}–{_number(100 * estimate.high, 1)} %"


def ratio_range(estimate: Estimate) -> str:
    """The interval of a ratio; an open end is said.

    >>> ratio_range(Estimate(mean=1.1, low=1.05, high=1.22))
    '1.05–1.22'
    >>> ratio_range(Estimate(mean=0.9, low=0.7, high=None))
    'from 0.70, no upper end'
    """
    if estimate.low is None:
        return "no interval"
    if estimate.high is None:
        return f"from {ratio(estimate.low)}, no upper end"
    return f"{ratio(estimate.low)}–{ratio(estimate.high)}"


def corrected(c: Comparison) -> str:
    """How a verdict of `cannot tell` came about where the interval alone would tell: empty where it would not."""
    neutral = 1.0 if c.kind in ("ratio", "query_fraction") else 0.0
    if c.value is None or c.value.low is None:
        return ""
    below = c.value.high is not None and c.value.high < neutral
    return " after correction" if c.value.low > neutral or below else ""


def undecided(c: Comparison) -> str:
    """Why the verdict on a comparison with an interval is `cannot tell`, as the end of a sentence on the interval."""
    name = "1" if c.kind in ("ratio", "query_fraction") else "zero"
    return f"leaves out {name}, but not{after}" if (after := corrected(c)) else f"includes {name}"


def seeds_to_tell(c: Comparison) -> str:
    """How many seeds would tell a comparison that cannot be told; empty where nothing is known of seeds.

    >>> from math import inf
    >>> row = {"dataset": "d", "victim": "v", "defence": "none", "attack": "a", "answers": "soft", "budget": 1}
    >>> c = Comparison(**row, kind="ratio", metric="agreement", n_seeds=3, value=None, seeds_needed=12.0)
    >>> seeds_to_tell(c), seeds_to_tell(c.model_copy(update={"seeds_needed": inf}))
    ('about 12 seeds would tell', 'more than 100 seeds: too small to tell')
    """
    if c.seeds_needed is None:
        return ""
    if isinf(c.seeds_needed):
        return f"more than {MOST_SEEDS} seeds: too small to tell"
    return f"about {c.seeds_needed:.0f} seeds would tell"


def points_range(estimate: Estimate) -> str:
    """The interval of a difference of rates, in percentage points."""
    if estimate.low is None or estimate.high is None:
        return "no interval"
    return f"{_signed(estimate.low)} to {_signed(estimate.high)} points"


def plain_range(estimate: Estimate) -> str:
    """The interval of a number without a unit."""
    if estimate.low is None or estimate.high is None:
        return "no interval"
    return f"{plain(estimate.low)}–{plain(estimate.high)}"


def attacker(attack: str, answers: str) -> str:
    """An attack and what it used, such as `knockoff, soft answers`.

    >>> attacker("own-images", "none")
    'own-images, no answers'
    """
    return f"{clean(attack)}, {used(answers)}"


def used(answers: str) -> str:
    """What an attacker used, such as `soft answers`."""
    return f"{'no' if answers == 'none' else clean(answers)} answers"


def counted(number: int, thing: str) -> str:
    """A number and its noun.

    >>> counted(1, "seed"), counted(3, "query")
    ('1 seed', '3 queries')
    """
    if number == 1:
        return f"1 {thing}"
    return f"{number:,} {thing[:-1]}ies" if thing.endswith("y") else f"{number:,} {thing}s"
