"""What is sent to an endpoint and what must come back: the Open Inference Protocol v2, and one small JSON form.

Importing this module imports neither torch nor ART.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlsplit, urlunsplit

import numpy as np
from numpy.typing import NDArray

from art_divqat.errors import UserError

_V2_PATH = re.compile(r"/v2/models/[^/]+(/versions/[^/]+)?/?$")


class BadAnswerError(Exception):
    """An answer that cannot be used; asking again may help."""


@dataclass(frozen=True)
class Protocol:
    """How one batch of images is put to an endpoint.

    :param kind: `v2` (KServe, Triton, MLServer, TorchServe) or `json`: `{"instances": images}` in,
        `{"predictions": rows}` out, which is also what TensorFlow Serving speaks.
    :param url: where requests go.
    :param metadata_url: where the name of the input can be asked; None if nowhere.
    """

    kind: Literal["v2", "json"]
    url: str
    metadata_url: str | None = None
    input_name: str = "input-0"

    def body(self, x: NDArray[np.float32]) -> bytes:
        """The request for images (N, C, H, W)."""
        if self.kind == "json":
            return json.dumps({"instances": x.tolist()}).encode()
        tensor = {"name": self.input_name, "shape": list(x.shape), "datatype": "FP32", "data": x.ravel().tolist()}
        return json.dumps({"inputs": [tensor]}).encode()

    def rows(self, content: bytes, images: int, nb_classes: int) -> NDArray[np.float32]:
        """The (N, classes) answer in the body of a response.

        :raises BadAnswerError: for anything else, values that are not finite among them.
        """
        try:
            record = json.loads(content)
            rows = self._v2_rows(record, (images, nb_classes)) if self.kind == "v2" else _array(record["predictions"])
        except BadAnswerError:
            raise
        except (ValueError, KeyError, TypeError, RecursionError, OverflowError) as error:
            raise BadAnswerError(f"a body that is not an answer ({type(error).__name__})") from None
        if rows.shape != (images, nb_classes):
            raise BadAnswerError(f"an answer of shape {rows.shape} where {(images, nb_classes)} was expected")
        if not np.isfinite(rows).all():
            raise BadAnswerError("an answer with values that are not finite")
        return rows

    def _v2_rows(self, record: Any, wanted: tuple[int, int]) -> NDArray[np.float32]:
        shapes = []
        for output in record["outputs"]:
            shape = tuple(int(size) for size in output["shape"])
            shapes.append(shape)
            if shape == wanted and str(output.get("datatype", "FP32")).startswith(("FP", "BF")):
                return _array(output["data"]).reshape(shape)
        raise BadAnswerError(f"outputs of shape {', '.join(map(str, shapes)) or 'none'} where {wanted} was expected")


def _array(values: Any) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):
        return np.asarray(values, dtype=np.float64).astype(np.float32)


def protocol_of(address: str, asked: str) -> Protocol:
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
    if asked == "json" or (asked == "auto" and not named):
        return Protocol("json", address)
    if not named:
        raise UserError(f"{address} names no model of the Open Inference Protocol: expected …/v2/models/NAME.")
    model = path.rstrip("/")
    metadata, infer = (urlunsplit(parts._replace(path=each)) for each in (model, f"{model}/infer"))
    return Protocol("v2", infer, metadata)


def input_of(content: bytes, shape: tuple[int, ...]) -> str:
    """The name of the one input in the metadata of a v2 model.

    :raises UserError: if the model takes something other than a batch of float images of this shape.
    """
    try:
        inputs = json.loads(content)["inputs"]
        first = inputs[0]
        name, datatype, sizes = str(first["name"]), str(first["datatype"]), [int(size) for size in first["shape"]]
    except (ValueError, KeyError, TypeError, IndexError, RecursionError):
        return "input-0"
    fits = len(sizes) == len(shape) + 1 and all(
        size in (-1, wanted) for size, wanted in zip(sizes[1:], shape, strict=True)
    )
    if len(inputs) != 1 or datatype != "FP32" or not fits:
        raise UserError(
            f"The endpoint takes {len(inputs)} inputs, the first {datatype} of shape {sizes}; the data has FP32 images "
            f"of shape {list(shape)}."
        )
    return name
