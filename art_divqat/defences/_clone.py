"""Clone an ART classifier: a second one on the same network."""

from __future__ import annotations

from typing import Any


def clone_classifier(classifier: Any, as_class: Any = None, **attributes: Any) -> Any:
    """The same attributes, shared, in a new object, with some of them replaced.

    `copy.copy` will not do: ART's `PyTorchClassifier` pickles itself for it, which writes its weights into ART's data
    folder and loads them into a second network.
    """
    as_class = as_class or type(classifier)
    clone: Any = as_class.__new__(as_class)
    clone.__dict__.update(classifier.__dict__)
    clone.__dict__.update(attributes)
    return clone
