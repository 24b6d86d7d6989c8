"""Protocols of endpoints: write requests and read answers of the Open Inference Protocol v2 and a small JSON form.

Importing this module imports neither torch nor ART.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal
from urllib.parse import urlsplit, urlunsplit

import numpy as np
from numpy.typing import NDArray

from art_divqat.errors import UserError
from art_divqat.estimators.named_answers import labels_to_rows, scores_to_rows

_FLOATS = ("FP32", "FP64")
# what has more values an image is taken for something else than scores of classes
_MOST_CLASSES = 2**15
_V2_PATH = re.compile(r"/v2/models/[^/]+(/versions/[^/]+)?/?$")


class BadAnswerError(Exception):
    """An answer that cannot be used; asking again may help."""


@dataclass(frozen=True)
class Protocol:
    """How one batch of images is sent to an endpoint.

    :param kind: `v2` (KServe, Triton, MLServer, TorchServe) or `json`: `{"instances": images}` in,
        `{"predictions": rows}` out, which is also what TensorFlow Serving speaks.
    :param url: where requests go.
    :param metadata_url: the address of the model's metadata; None if there is none.
    :param input_name: what a v2 model calls its input.
    :param datatype: of that input.
    :param layout: how a v2 model takes an image: channels first, channels last, or as one row of values.
    :param output_name: the requested output; None for the model's default.
    """

    kind: Literal["v2", "json"]
    url: str
    metadata_url: str | None = None
    input_name: str = "input-0"
    datatype: str = "FP32"
    layout: Literal["nchw", "nhwc", "flat"] = "nchw"
    output_name: str | None = None

    def body(self, x: NDArray[np.float32]) -> bytes:
        """The request for images (N, C, H, W)."""
        if self.kind == "json":
            return json.dumps({"instances": x.tolist()}).encode()
        if self.layout != "nchw":
            x = x.transpose(0, 2, 3, 1) if self.layout == "nhwc" else x.reshape(len(x), -1)
        tensor = {
            "name": self.input_name,
            "shape": list(x.shape),
            "datatype": self.datatype,
            "data": x.ravel().tolist(),
        }
        request: dict[str, Any] = {"inputs": [tensor]}
        if self.output_name is not None:
            request["outputs"] = [{"name": self.output_name}]
        return json.dumps(request).encode()

    def rows(
        self, content: bytes, images: int, nb_classes: int, class_names: Sequence[str] = (), *, wider: bool = False
    ) -> NDArray[np.float32]:
        """The (N, classes) answer in the body of a response; class ids and names of classes become one-hot rows.

        :param wider: whether a row may have more values than `nb_classes`.
        :param class_names: of the data, for answers that name classes.
        :raises UserError: for a class that is not in the data.
        :raises BadAnswerError: for anything else, including values that are not finite.
        """
        try:
            record = json.loads(content)
            if self.kind == "v2":
                rows = self._v2_rows(record, (images, nb_classes), class_names, wider)
            else:
                rows = _json_rows(record["predictions"], nb_classes, class_names)
        except (BadAnswerError, UserError):
            raise
        except (ValueError, KeyError, TypeError, RecursionError, OverflowError) as error:
            raise BadAnswerError(f"a body that is not an answer ({type(error).__name__})") from None
        if rows.shape != (images, nb_classes) and not (wider and _has_more(rows.shape, (images, nb_classes))):
            raise BadAnswerError(f"an answer of shape {rows.shape} where {(images, nb_classes)} was expected")
        if not np.isfinite(rows).all():
            raise BadAnswerError("an answer with values that are not finite")
        return rows

    def _v2_rows(
        self, record: Any, expected: tuple[int, int], class_names: Sequence[str], wider: bool
    ) -> NDArray[np.float32]:
        shapes = []
        for output in record["outputs"]:
            shape = tuple(int(size) for size in output["shape"])
            shapes.append(shape)
            if shape == expected and str(output.get("datatype", "FP32")).startswith(("FP", "BF")):
                return _array(output["data"]).reshape(shape)
        for output, shape in zip(record["outputs"], shapes, strict=True):
            if shape in (expected[:1], (expected[0], 1)):
                rows = labels_to_rows(np.ravel(output["data"]), expected[1], class_names)
                if rows is not None:
                    return rows
        for output, shape in zip(record["outputs"], shapes, strict=True):
            if wider and _has_more(shape, expected) and str(output.get("datatype", "FP32")).startswith(("FP", "BF")):
                return _array(output["data"]).reshape(shape)
        raise BadAnswerError(f"outputs of shape {', '.join(map(str, shapes)) or 'none'} where {expected} was expected")


def _has_more(shape: tuple[int, ...], expected: tuple[int, int]) -> bool:
    """Whether rows are of more classes than were expected."""
    return len(shape) == 2 and shape[0] == expected[0] and expected[1] < shape[1] <= _MOST_CLASSES


def _json_rows(predictions: Any, nb_classes: int, class_names: Sequence[str]) -> NDArray[np.float32]:
    """Rows of numbers, class ids, names of classes, or scores by name."""
    first = predictions[0] if predictions else None
    if isinstance(first, dict) or (isinstance(first, list) and first and isinstance(first[0], dict)):
        return scores_to_rows(predictions, nb_classes, class_names)
    if not isinstance(first, list) or (len(first) == 1 and nb_classes > 1):
        rows = labels_to_rows(predictions, nb_classes, class_names)
        if rows is not None:
            return rows
    return _array(predictions)


def _array(values: Any) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):
        return np.asarray(values, dtype=np.float64).astype(np.float32)


def protocol_of(address: str, requested: str) -> Protocol:
    """The protocol of an address: `v2` where its path names a model of the Open Inference Protocol, else `json`.

    :raises UserError: for `v2` on a path that names no model.

    >>> protocol_of("http://localhost:8000/v2/models/cats", "auto").url
    'http://localhost:8000/v2/models/cats/infer'
    >>> protocol_of("http://localhost:8501/v1/models/cats:predict", "auto").kind
    'json'
    """
    parts = urlsplit(address)
    path = parts.path.removesuffix("/infer")
    named = _V2_PATH.search(path) is not None
    if requested == "json" or (requested == "auto" and not named):
        return Protocol("json", address)
    if not named:
        raise UserError(f"{address} names no model of the Open Inference Protocol: expected …/v2/models/NAME.")
    model = path.rstrip("/")
    metadata, infer = (urlunsplit(parts._replace(path=each)) for each in (model, f"{model}/infer"))
    return Protocol("v2", infer, metadata)


def described(protocol: Protocol, content: bytes, shape: tuple[int, ...], nb_classes: int) -> Protocol:
    """The protocol according to the metadata of a v2 model; unchanged without metadata.

    Of several outputs, the first with one float per class is requested, otherwise the first with more floats: a
    converter may add labels, and MLServer's scikit-learn runtime returns only labels unless `predict_proba` is
    requested.

    :param shape: (channels, height, width).
    :raises UserError: if the model takes something other than a batch of float images of this shape.
    """
    try:
        record = json.loads(content)
        inputs = record["inputs"]
        first = inputs[0]
        name, datatype, sizes = str(first["name"]), str(first["datatype"]), [int(size) for size in first["shape"]]
    except (ValueError, KeyError, TypeError, IndexError, RecursionError):
        return protocol
    layouts: dict[Literal["nchw", "nhwc", "flat"], tuple[int, ...]] = {
        "nchw": shape,
        "nhwc": (*shape[1:], shape[0]),
        "flat": (int(np.prod(shape)),),
    }
    layout = next((each for each, expected in layouts.items() if _takes(sizes, expected)), None)
    if len(inputs) != 1 or datatype not in _FLOATS or layout is None:
        raise UserError(
            f"The endpoint takes {len(inputs)} inputs, the first {datatype} of shape {sizes}; the data has FP32 images "
            f"of shape {list(shape)}, sent channels first or last or flat, as FP32 or FP64."
        )
    output = _output_of(record.get("outputs"), nb_classes)
    return replace(protocol, input_name=name, datatype=datatype, layout=layout, output_name=output)


def _takes(sizes: list[int], expected: tuple[int, ...]) -> bool:
    return len(sizes) == len(expected) + 1 and all(
        size in (-1, given) for size, given in zip(sizes[1:], expected, strict=True)
    )


def _output_of(outputs: Any, nb_classes: int) -> str | None:
    try:
        sizes = {
            str(output["name"]): [int(size) for size in output["shape"]][1:]
            for output in outputs
            if str(output["datatype"]) in _FLOATS
        }
    except (KeyError, TypeError, ValueError):
        return None
    rows = {name: each[0] for name, each in sizes.items() if len(each) == 1}
    exact = [name for name, size in rows.items() if size == nb_classes]
    return next(iter([*exact, *(name for name, size in rows.items() if nb_classes < size <= _MOST_CLASSES)]), None)
