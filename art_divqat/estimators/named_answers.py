"""Named answers: convert class ids, class names and scores by name to rows with one number per class.

Importing this module imports neither torch nor ART.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from art_divqat.errors import UserError

_NAMES = ("label", "class", "class_name", "name")
_SCORES = ("score", "probability", "confidence")


def labels_to_rows(labels: Any, nb_classes: int, class_names: Sequence[str] = ()) -> NDArray[np.float32] | None:
    """One-hot rows of (N,) or (N, 1) class ids or names; None for anything else.

    :raises UserError: for an unknown class.

    >>> labels_to_rows(["dog", "cat"], 2, ("cat", "dog")).tolist()
    [[0.0, 1.0], [1.0, 0.0]]
    """
    given = np.asarray(labels)
    if given.ndim == 2 and given.shape[1] == 1 and nb_classes > 1:
        given = given[:, 0]
    if given.ndim != 1:
        return None
    if given.dtype.kind in "OSU":
        if not all(isinstance(each, str | bytes) for each in given.tolist()):
            return None
        given = np.array([class_id(each, nb_classes, class_names) for each in given.tolist()], np.int64)
    elif given.dtype.kind not in "iuf" or not np.isfinite(given).all() or not (given == np.round(given)).all():
        return None
    ids = given.astype(np.int64)
    if len(ids) and not 0 <= ids.min() <= ids.max() < nb_classes:
        raise UserError(f"The model answers with class {ids.max() if ids.min() >= 0 else ids.min()}; expected ids from "
                        f"0 to {nb_classes - 1}, as the data numbers its {nb_classes} classes: if the model has more, "
                        "say how many with --classes.")  # fmt: skip
    return np.eye(nb_classes, dtype=np.float32)[ids]


def class_id(name: Any, nb_classes: int, class_names: Sequence[str] = ()) -> int:
    """The id of a class by its name, or by its number as text.

    :raises UserError: for a name that is no class of the data.
    """
    text = name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name)
    number = int(text) if text.isdecimal() and int(text) < nb_classes else None
    # where the model has more classes than have names, numbers are the model's
    if text in class_names and (number is None or nb_classes == len(class_names)):
        return list(class_names).index(text)
    if number is not None:
        return number
    known = ", ".join(class_names[:5]) + (", …" if len(class_names) > 5 else "")
    raise UserError(
        f"The model answers with class {text[:60]!r}, which is none of the data's ({known or 'they have no names'}): "
        "name the classes as the model does, as folders or in class_names of the .npz, or, if it has more, give the "
        "names of all of its classes with --classes."
    )


def scores_to_rows(answers: Sequence[Any], nb_classes: int, class_names: Sequence[str] = ()) -> NDArray[np.float32]:
    """Rows of answers that name their classes; 0 for classes that are not named.

    Each is a mapping of names to scores, `{"label": name, "score": score}`, or a list of these.

    :raises UserError: for a name that is no class of the data.
    :raises TypeError, ValueError: for answers of another form.

    >>> scores_to_rows([{"dog": 0.75}, [{"label": "cat", "score": 0.5}]], 2, ("cat", "dog")).tolist()
    [[0.0, 0.75], [0.5, 0.0]]
    """
    rows = np.zeros((len(answers), nb_classes), np.float32)
    for row, answer in zip(rows, answers, strict=True):
        for part in answer if isinstance(answer, list) else [answer]:
            for name, score in _scores(part):
                row[class_id(name, nb_classes, class_names)] = float(score)
    return rows


def _scores(part: Any) -> list[tuple[Any, Any]]:
    if not isinstance(part, Mapping):
        raise TypeError("expected a mapping")
    named = next((key for key in _NAMES if isinstance(part.get(key), str)), None)
    if named is None:
        return list(part.items())
    return [(part[named], next((part[key] for key in _SCORES if key in part), 1.0))]
