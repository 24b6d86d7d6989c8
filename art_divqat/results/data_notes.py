"""Notes of a run: what was done to the images on their way in, and how the model's classes are those of the data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def data_notes(data: Mapping[str, Any]) -> list[str]:
    """The notes on the data set, and on the query pool, in the `data` of a run; empty for runs that recorded none.

    >>> data_notes({"dataset": {"notes": ["a"]}, "pool": {"notes": ["b"]}})
    ['a', 'queries: b']
    """
    found: list[str] = []
    for key, prefix in (("dataset", ""), ("pool", "queries: ")):
        part = data.get(key)
        notes = part.get("notes") if isinstance(part, Mapping) else None
        found += [f"{prefix}{note}" for note in notes] if isinstance(notes, list | tuple) else []
    return found


_TRAINED = {"probe": "all else left as it is", "fine-tune": "then all of it trained"}


def beginnings(weights: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    """Whose weights the networks of `victim` and `thief` began from; empty where all began from nothing.

    :param weights: as the `data` of a run has them.

    >>> imagenet = {"source": "imagenet", "file": "a.pth", "sha256": "0123456789abcdef", "classes": 1000}
    >>> beginnings({"thief": imagenet})
    [('victim', 'from nothing'), ('thief', 'imagenet (a.pth, sha256 0123456789ab…), without its head of 1,000 classes')]
    """
    found = []
    for of in ("victim", "thief"):
        known = (weights or {}).get(of)
        if not isinstance(known, Mapping):
            found.append((of, "from nothing"))
            continue
        classes = known.get("classes")
        head = f", without its head of {classes:,} classes" if isinstance(classes, int) else ", which has no head"
        file, digits = known.get("file"), str(known.get("sha256"))[:12]
        how = f", {_TRAINED[known['training']]}" if known.get("training") in _TRAINED else ""
        found.append((of, f"{known.get('source')} ({file}, sha256 {digits}…){head}{how}"))
    return found if weights else []


def shrinking(sizes: Any) -> list[str]:
    """What thieves see of images, where attacks say that it is less than the victim does.

    :param sizes: height and width by attack, as `thief_images` in the `data` of a run.

    >>> shrinking({"knockoff:image_size=96": [96, 96]})
    ['the thief of knockoff:image_size=96 sees 96×96']
    """
    if not isinstance(sizes, Mapping):
        return []
    return [
        f"the thief of {attack} sees {'×'.join(map(str, size))}"
        for attack, size in sizes.items()
        if isinstance(size, list | tuple)
    ]


def classes_note(data: Mapping[str, Any]) -> str:
    """How the classes of an audited model are those of the data, where it has more; empty where they are the same.

    >>> classes_note({"model": {"classes": 1000, "data_classes": 40, "classes_matched": True}})
    "the data has 40 of the model's 1,000 classes"
    """
    model = data.get("model")
    if not isinstance(model, Mapping) or "classes_matched" not in model:
        return ""
    if model["classes_matched"]:
        return f"the data has {model['data_classes']:,} of the model's {model['classes']:,} classes"
    return (
        f"accuracy is not measured: which of the model's {model['classes']:,} classes are the data's "
        f"{model['data_classes']:,} is not known; agreement needs no labels"
    )
