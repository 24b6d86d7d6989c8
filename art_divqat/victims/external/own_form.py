"""The form of images that an external model says it takes: an ONNX file, a saved classifier, a v2 endpoint's metadata.

Importing this module imports neither torch nor ART.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from art_divqat.data.pictures import OWN_FORM, ImageForm
from art_divqat.errors import UserError
from art_divqat.estimators.remote_protocols import protocol_of
from art_divqat.victims.external.identify import identify
from art_divqat.victims.external.settings import ExternalModel, local_path


def own_form(model: ExternalModel, *, size_known: bool = False) -> ImageForm:
    """Size and channels of the images that a model says it takes; None where it says nothing of it.

    No code of the model runs. An endpoint is asked for its metadata, and for no answer.

    :param size_known: the size was said by who asks; an endpoint is not asked then.
    :raises UserError: for an endpoint whose metadata should say it and cannot be had, or a damaged file.
    """
    if model.source is None:
        return OWN_FORM
    if model.is_remote:
        return OWN_FORM if size_known else _of_endpoint(model)
    path = local_path(model.source)
    kind = identify(path)
    if kind == "onnx":
        from art_divqat.victims.external.onnx_file import declared_shape

        return form_in(declared_shape(path))
    if kind in ("saved", "stored"):
        for card in (path / "classifier.json", path / "quantized" / "classifier.json"):
            try:
                return form_in([None, *json.loads(card.read_text(encoding="utf-8"))["input_shape"]])
            except (OSError, ValueError, KeyError, TypeError):
                continue
    return OWN_FORM


def form_in(declared: Sequence[Any]) -> ImageForm:
    """Size and channels in the declared shape of a batch of images, channels first or last, where they are fixed.

    >>> form_in(["N", 3, 224, 224])
    ImageForm(size=(224, 224), channels=3, fit='crop')
    >>> form_in([1, 240, 320, 1]).size, form_in([-1, 3, -1, -1]).size, form_in([-1, 64])
    ((240, 320), None, ImageForm(size=None, channels=None, fit='crop'))
    """
    if len(declared) != 4:
        return OWN_FORM
    for channels, size in ((declared[1], declared[2:]), (declared[3], declared[1:3])):
        if channels in (1, 3):
            fixed = all(isinstance(side, int) and side > 0 for side in size)
            return ImageForm((size[0], size[1]) if fixed else None, channels)
    return OWN_FORM


def _of_endpoint(model: ExternalModel) -> ImageForm:
    assert model.source is not None
    if protocol_of(model.source, model.protocol).metadata_url is None:
        return OWN_FORM
    from art_divqat.estimators.remote import RemoteClassifier

    with tempfile.TemporaryDirectory() as folder:
        # it is asked for no answer: the shape, the classes and the file of answers are never used
        endpoint = RemoteClassifier(
            model.source,
            (1, 1, 1),
            2,
            journal=Path(folder) / "answers.jsonl",
            protocol=model.protocol,
            auth_env=model.auth_env,
            auth_header=model.auth_header,
            timeout=model.timeout,
            retries=min(model.retries, 1),
        )
        content = endpoint.metadata()
    try:
        (declared,) = (each["shape"] for each in json.loads(content or b"")["inputs"])
        return form_in([int(side) for side in declared])
    except (ValueError, KeyError, TypeError, RecursionError):
        raise UserError(
            f"{model.source} does not say which images it takes: say it with --image-size, such as --image-size 224."
        ) from None
