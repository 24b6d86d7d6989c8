"""Conformance checks of postprocessors: test your own against the rules for served answers."""

from __future__ import annotations

import copy
import random
import warnings
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

_CLASS_COUNTS = (2, 3, 10, 100)
_TOLERANCE: dict[npt.DTypeLike, float] = {np.dtype(np.float32): 1e-5, np.dtype(np.float64): 1e-8}


def _answers(n_classes: int, dtype: npt.DTypeLike = np.float32, n_rows: int = 24) -> npt.NDArray[Any]:
    """Rows on the simplex: flat, peaked, tied and one-hot ones."""
    generator = np.random.default_rng(n_classes)
    rows = np.concatenate([generator.dirichlet(np.full(n_classes, a), n_rows // 3) for a in (0.05, 0.5, 5.0)])
    rows[0] = np.eye(n_classes)[-1]
    rows[1] = 1 / n_classes
    rows[2] = 0
    rows[2, :2] = 0.5
    typed = rows.astype(dtype)
    typed /= typed.sum(axis=1, keepdims=True)
    return typed


def _column(dtype: npt.DTypeLike = np.float32) -> npt.NDArray[Any]:
    return np.array([[0.0], [1.0], [0.5], [0.25], [0.75], [1e-6], [0.999999]], dtype=dtype)


def _is_stochastic(post: Any) -> bool:
    answers = _answers(10)
    return not np.array_equal(post(answers), post(answers))


def is_art_postprocessor(post: Any) -> None:
    """An instance of ART's `Postprocessor`: ART's estimators refuse anything else."""
    from art.defences.postprocessor import Postprocessor

    assert isinstance(post, Postprocessor), f"{type(post).__name__} is no art.defences.postprocessor.Postprocessor"
    assert isinstance(post.apply_fit, bool), f"apply_fit must be a bool, got {post.apply_fit!r}"
    assert isinstance(post.apply_predict, bool), f"apply_predict must be a bool, got {post.apply_predict!r}"


def lists_its_parameters(post: Any) -> None:
    """Every name in `params` is an attribute."""
    for name in post.params:
        assert hasattr(post, name), f"{name!r} stands in params but is no attribute"


def keeps_shape(post: Any) -> None:
    """(N, C) in, (N, C) out, for N = 1 too."""
    for n_classes in _CLASS_COUNTS:
        for rows in (_answers(n_classes), _answers(n_classes)[:1]):
            shape = post(rows).shape
            assert shape == rows.shape, f"answers of shape {rows.shape} came back as {shape}"


def keeps_precision(post: Any) -> None:
    """float32 in, float32 out; float64 in, float64 out."""
    for dtype in _TOLERANCE:
        got = post(_answers(10, dtype)).dtype
        assert got == dtype, f"{dtype} answers came back as {got}"


def leaves_its_input_alone(post: Any) -> None:
    """The array passed in is not written to."""
    for rows in (_answers(10), _column()):
        before = rows.copy()
        served = post(rows)
        served[...] = 0
        assert np.array_equal(rows, before), f"the input of shape {rows.shape} was changed, or shared with the output"


def stays_on_the_simplex(post: Any) -> None:
    """Entries in [0, 1], rows that sum to one."""
    for dtype, tolerance in _TOLERANCE.items():
        for n_classes in _CLASS_COUNTS:
            served = post(_answers(n_classes, dtype))
            assert np.isfinite(served).all(), f"non-finite entries for {n_classes} classes in {dtype}"
            assert served.min() >= 0, f"an entry of {served.min()} for {n_classes} classes in {dtype}"
            worst = np.abs(served.sum(axis=1) - 1).max()
            assert worst <= tolerance, f"a row sum is {worst:.2g} off 1 for {n_classes} classes in {dtype}"


def warns_of_nothing(post: Any) -> None:
    """No floating-point warning on answers with zeros and ones."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for dtype in _TOLERANCE:
            for rows in (_answers(10, dtype), _answers(100, dtype), _column(dtype)):
                try:
                    post(rows)
                except Warning as warning:
                    raise AssertionError(f"answers in {dtype}, shape {rows.shape}: {warning}") from warning


def takes_a_binary_column(post: Any) -> None:
    """(N, 1) with the probability of class 1 in, the same out, within [0, 1]."""
    for dtype in _TOLERANCE:
        column = _column(dtype)
        served = post(column)
        assert served.shape == column.shape, f"a column of shape {column.shape} came back as {served.shape}"
        assert served.dtype == dtype, f"a column of {dtype} came back as {served.dtype}"
        inside = np.isfinite(served) & (served >= 0) & (served <= 1)
        assert inside.all(), f"a column of probabilities came back with {served[~inside][0]}"


def takes_an_empty_batch(post: Any) -> None:
    """(0, C) in, (0, C) out, in its precision."""
    for shape in ((0, 10), (0, 1)):
        served = post(np.empty(shape, dtype=np.float32))
        assert served.shape == shape, f"an empty batch of shape {shape} came back as {served.shape}"
        assert served.dtype == np.float32, f"an empty float32 batch came back as {served.dtype}"


def treats_rows_independently(post: Any) -> None:
    """The answer to a query does not depend on the batch it comes in; not asked of a defence that draws."""
    if _is_stochastic(post):
        return
    for n_classes in _CLASS_COUNTS:
        rows = _answers(n_classes)
        together = post(rows)
        alone = np.concatenate([post(rows[i : i + 1]) for i in range(rows.shape[0])])
        assert np.array_equal(together, alone), f"answers of {n_classes} classes depend on their batch"
        assert np.array_equal(post(rows[::-1])[::-1], together), f"answers of {n_classes} classes depend on the order"


def leaves_the_global_random_state_alone(post: Any) -> None:
    """Neither numpy's nor Python's global generator moves: an attack draws its queries from them."""
    before: tuple[Any, Any] = np.random.get_state(), random.getstate()
    try:
        post(_answers(10))
        after: tuple[Any, Any] = np.random.get_state(), random.getstate()
        assert np.array_equal(before[0][1], after[0][1]), "numpy's global generator was used"
        assert before[0][2:] == after[0][2:], "numpy's global generator was used"
        assert before[1] == after[1], "Python's global generator was used"
    finally:
        np.random.set_state(before[0])
        random.setstate(before[1])


def refuses_logits(post: Any) -> None:
    """Rows that are no probabilities raise ValueError, unless the object was told to expect logits."""
    if getattr(post, "input_type", None) == "logits":
        return
    logits = np.random.default_rng(0).normal(0, 5, (8, 10)).astype(np.float32)
    _expect_value_error(post, logits, "logits")


def refuses_what_is_not_finite(post: Any) -> None:
    """NaN and infinities raise ValueError."""
    for bad in (np.nan, np.inf, -np.inf):
        rows = _answers(10)
        rows[5, 3] = bad
        _expect_value_error(post, rows, f"a row with {bad}")


def refuses_wrong_arrays(post: Any) -> None:
    """One or three dimensions and integers raise ValueError."""
    _expect_value_error(post, np.full(4, 0.25, dtype=np.float32), "a single vector")
    _expect_value_error(post, np.full((2, 2, 2), 0.5, dtype=np.float32), "three dimensions")
    _expect_value_error(post, np.eye(3, dtype=np.int64), "integers")


def sets_its_own_parameters(post: Any) -> None:
    """`set_params` with the present values changes nothing."""
    before = {name: getattr(post, name) for name in post.params}
    fresh = copy.deepcopy(post)
    fresh.set_params(**before)
    after = {name: getattr(fresh, name) for name in post.params}
    assert before == after, f"set_params with the present values turned {before} into {after}"


def refuses_unknown_parameters(post: Any) -> None:
    """`set_params` of a name that is no parameter raises ValueError."""
    fresh = copy.deepcopy(post)
    try:
        fresh.set_params(no_such_parameter=1)
    except ValueError:
        return
    raise AssertionError("set_params took an unknown name without a word")


def validates_before_it_assigns(post: Any) -> None:
    """A value that `set_params` refuses is not set."""
    for name in post.params:
        for bad in (float("nan"), "no such value", -1):
            fresh = copy.deepcopy(post)
            before = getattr(fresh, name)
            try:
                fresh.set_params(**{name: bad})
            except ValueError:
                after = getattr(fresh, name)
                assert after == before, f"set_params refused {name}={bad!r} but left it set"
            except TypeError as error:
                raise AssertionError(f"set_params({name}={bad!r}) raised TypeError: {error}") from error
            else:
                raise AssertionError(f"set_params took {name}={bad!r}")


def _expect_value_error(post: Any, rows: npt.NDArray[Any], what: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            post(rows)
        except ValueError:
            return
        except Exception as error:
            raise AssertionError(f"{what} raised {type(error).__name__} instead of ValueError: {error}") from error
    raise AssertionError(f"{what} was taken without a word")


POSTPROCESSOR_CHECKS: dict[str, Callable[[Any], None]] = {
    check.__name__: check
    for check in (
        is_art_postprocessor,
        lists_its_parameters,
        keeps_shape,
        keeps_precision,
        leaves_its_input_alone,
        stays_on_the_simplex,
        warns_of_nothing,
        takes_a_binary_column,
        takes_an_empty_batch,
        treats_rows_independently,
        leaves_the_global_random_state_alone,
        refuses_logits,
        refuses_what_is_not_finite,
        refuses_wrong_arrays,
        sets_its_own_parameters,
        refuses_unknown_parameters,
        validates_before_it_assigns,
    )
}
"""Every check by name; each takes the postprocessor and raises AssertionError with what it found."""


def check_postprocessor(post: Any, *, skip: Iterable[str] = ()) -> None:
    """Run every check of :data:`POSTPROCESSOR_CHECKS` on a postprocessor and report all that fail at once.

    :param post: the object, with any parameters; it is called and copied, never changed.
    :param skip: names of checks that do not apply to it.
    :raises AssertionError: with one line per failed check.
    :raises UserError: for a name in `skip` that is no check.

    >>> from art_divqat.defences.postprocessor import HeuristicPerturbation
    >>> check_postprocessor(HeuristicPerturbation(beta=0.5))
    """
    from art_divqat.errors import unknown_name

    skipped = set(skip)
    for name in skipped - POSTPROCESSOR_CHECKS.keys():
        raise unknown_name("postprocessor check", name, POSTPROCESSOR_CHECKS)
    failures = []
    for name, check in POSTPROCESSOR_CHECKS.items():
        if name in skipped:
            continue
        try:
            check(post)
        except Exception as error:
            failures.append(f"  {name}: {error}" if isinstance(error, AssertionError) else f"  {name}: {error!r}")
    if failures:
        raise AssertionError("\n".join([f"{post!r} fails {len(failures)} of its checks:", *failures]))
