"""Remote classifier: query a live prediction endpoint as an ART black box; each answer is on disk before it is used."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from art.estimators.classification import BlackBoxClassifierNeuralNetwork
from numpy.typing import NDArray

from art_divqat._validation import check_float, check_int
from art_divqat.errors import MissingExtraError, UserError
from art_divqat.estimators.remote_journal import AnswerJournal, image_key
from art_divqat.estimators.remote_protocols import BadAnswerError, Protocol, described, protocol_of

_TRANSIENT = (408, 425, 429, 500, 502, 503, 504)
_FIRST_PAUSE_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 60.0
# What an answer may take: JSON numbers of a few dozen characters each, and room for a header.
_BYTES_A_VALUE, _BYTES_BESIDE = 64, 1 << 20
# an endpoint may have more classes than the data; how many is known with its first answer
_CLASSES_AT_FIRST = 8192


class RemoteClassifier(BlackBoxClassifierNeuralNetwork):  # type: ignore[misc]
    """An ART classifier that queries an HTTP endpoint, each image only once.

    A repeated image is answered from the journal, even if an earlier process that was killed queried it. A crash loses
    at most the one batch in flight, whose answers had not arrived. A request is retried after a time-out, a broken
    connection, 408, 425, 429 or 5xx, and after an unusable answer (truncated, of another shape, not finite): `retries`
    times, with pauses of 0.5 s doubling to 60 s, or as `Retry-After` says. Redirects are not followed, so that the
    credential goes nowhere else.

    :param url: `http(s)://…`; `…/v2/models/NAME` speaks the Open Inference Protocol v2, anything else the JSON form.
    :param input_shape: (channels, height, width) of the float32 images.
    :param nb_classes: of the data; the endpoint may have more, which its first answer shows.
    :param journal: the file that keeps the answers.
    :param protocol: `auto`, `v2` or `json`.
    :param auth_env: environment variable with the credential; read for each request, never stored or shown.
    :param auth_header: `Authorization` sends `Bearer CREDENTIAL` (or what the variable says, if it holds a space);
        any other header sends it as it is.
    :param batch_size: images a request.
    :param rate: maximum number of images per second; None for no limit.
    :param timeout: seconds that a request may take in total.
    :param retries: repetitions of one request before giving up.
    :param class_names: of the data, for an endpoint that answers with names.
    :param sleep: waits so many seconds; for tests.
    :raises MissingExtraError: without httpx.
    :raises UserError: for a missing credential, one that would go over an unencrypted connection, or bad values.
    """

    def __init__(
        self,
        url: str,
        input_shape: tuple[int, int, int],
        nb_classes: int,
        *,
        journal: Path,
        protocol: str = "auto",
        auth_env: str | None = None,
        auth_header: str = "Authorization",
        batch_size: int = 64,
        rate: float | None = None,
        timeout: float = 30.0,
        retries: int = 5,
        class_names: Sequence[str] = (),
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        try:
            import httpx
        except ImportError:
            raise MissingExtraError("An endpoint needs httpx: pip install 'art-divqat[remote]'.") from None
        super().__init__(self._answer, input_shape, nb_classes, clip_values=(0.0, 1.0))
        self.address = url
        self.batch_size = check_int(self, "batch_size", batch_size, 1)
        self.rate = None if rate is None else check_float(self, "rate", rate, 0, closed="neither")
        self.timeout = check_float(self, "timeout", timeout, 0, closed="neither")
        self.retries = check_int(self, "retries", retries, 0)
        self.requests = 0
        self._protocol: Protocol = protocol_of(url, protocol)
        self._class_names = tuple(class_names)
        self._auth = (auth_env, auth_header)
        self._sleep = sleep
        self._not_before = 0.0
        self._named = False
        self._check_credential()
        self._client = httpx.Client(timeout=httpx.Timeout(timeout), follow_redirects=False)
        self._journal = AnswerJournal(journal, url, nb_classes)
        self._nb_classes = self._journal.width or nb_classes

    def predict(self, x: NDArray[Any], batch_size: int = 0, **kwargs: Any) -> NDArray[np.float32]:
        """The endpoint's answers, (N, classes), float32; only new images are sent.

        :param batch_size: ignored: the constructor sets the size of a request.
        :raises UserError: for images of another shape, a refusal (4xx), or a fault that persists after all retries.
            Earlier answers are kept.
        """
        del batch_size, kwargs
        return self._answer(x)

    def repeat(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """Query images a second time, but never a third; shows whether the endpoint is deterministic."""
        return self._stack(x, [f"{image_key(image)}#2" for image in x])

    def __repr__(self) -> str:
        return f"RemoteClassifier({self.address!r})"

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Refused: two processes would pay for the same images.

        :raises UserError: always.
        """
        raise UserError("An endpoint cannot be handed to another process: use --jobs 1.")

    def _answer(self, x: NDArray[Any]) -> NDArray[np.float32]:
        x = np.ascontiguousarray(x, dtype=np.float32)
        if x.shape[1:] != tuple(self.input_shape):
            raise UserError(f"The endpoint takes images of shape {tuple(self.input_shape)}. Got {x.shape[1:]}.")
        return self._stack(x, [image_key(image) for image in x])

    def _stack(self, x: NDArray[np.float32], keys: list[str]) -> NDArray[np.float32]:
        if len(x) == 0:
            return np.zeros((0, self.nb_classes), np.float32)
        fresh = {key: row for row, key in reversed(list(enumerate(keys))) if self._journal.get(key) is None}
        unanswered = sorted(fresh.items(), key=lambda item: item[1])
        for start in range(0, len(unanswered), self.batch_size):
            part = unanswered[start : start + self.batch_size]
            rows = self._ask(x[[row for _, row in part]])
            self._journal.add({key: answer for (key, _), answer in zip(part, rows, strict=True)})
        answers = [self._journal.get(key) for key in keys]
        return np.stack([answer for answer in answers if answer is not None])

    def _ask(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """One batch, with retries."""
        import httpx

        if not self._named:
            self._ask_what_it_takes()
        body = self._protocol.body(x)
        first = self._journal.width is None
        classes = max(self.nb_classes, _CLASSES_AT_FIRST) if first else self.nb_classes
        limit = x.shape[0] * classes * _BYTES_A_VALUE + _BYTES_BESIDE
        reason = ""
        for attempt in range(self.retries + 1):
            pause = min(_FIRST_PAUSE_SECONDS * 2**attempt, _LONGEST_PAUSE_SECONDS)
            self._keep_to_the_rate(len(x))
            try:
                status, content, wait = self._send("POST", self._protocol.url, body, limit)
                if status == 200:
                    rows = self._protocol.rows(content, len(x), self.nb_classes, self._class_names, wider=first)
                    self._nb_classes = rows.shape[1]
                    return rows
                reason = f"status {status}"
                if status not in _TRANSIENT:
                    raise UserError(f"{self.address} refused with {reason}{_hint(status)}.")
                pause = max(pause, min(wait, _LONGEST_PAUSE_SECONDS))
            except BadAnswerError as error:
                reason = str(error)
            except httpx.TimeoutException:
                reason = f"no answer within {self.timeout:g} s"
            except (httpx.TransportError, httpx.DecodingError) as error:
                reason = f"a broken connection ({type(error).__name__})"
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                raise UserError(f"{self.address} cannot be asked: {type(error).__name__}.") from None
            if attempt < self.retries:
                self._sleep(pause)
        raise UserError(
            f"{self.address} gave {reason}, {self.retries + 1} times in a row. The {len(self._journal)} answers so far "
            "are kept: the same command goes on from there."
        )

    def _send(self, method: str, url: str, body: bytes | None, limit: int) -> tuple[int, bytes, float]:
        """Status, body and seconds to wait; a body beyond `limit` bytes or the time-out is a bad answer."""
        deadline = time.monotonic() + self.timeout
        headers = {"Content-Type": "application/json", "Accept": "application/json", **self._credential()}
        self.requests += 1
        with self._client.stream(method, url, content=body, headers=headers) as response:
            parts, size = [], 0
            for part in response.iter_bytes():
                size += len(part)
                if size > limit:
                    raise BadAnswerError(f"a body of more than {limit:,} bytes")
                if time.monotonic() > deadline:
                    raise BadAnswerError(f"a body that was not whole within {self.timeout:g} s")
                parts.append(part)
            wait = response.headers.get("retry-after", "")
            return response.status_code, b"".join(parts), float(wait) if wait.isdigit() else 0.0

    def _ask_what_it_takes(self) -> None:
        """Ask a v2 model for its metadata; one that does not say gets channels-first images by the usual name."""
        self._named = True
        content = self.metadata()
        if content is not None:
            self._protocol = described(self._protocol, content, tuple(self.input_shape), self.nb_classes)

    def metadata(self) -> bytes | None:
        """The metadata of a v2 model, as JSON; None for any other endpoint, or without metadata."""
        import httpx

        if self._protocol.metadata_url is None:
            return None
        for attempt in range(self.retries + 1):
            try:
                status, content, _ = self._send("GET", self._protocol.metadata_url, None, _BYTES_BESIDE)
            except (httpx.HTTPError, httpx.InvalidURL, BadAnswerError):
                status = _TRANSIENT[0]
            if status not in _TRANSIENT:
                return content if status == 200 else None
            if attempt < self.retries:
                self._sleep(min(_FIRST_PAUSE_SECONDS * 2**attempt, _LONGEST_PAUSE_SECONDS))
        return None

    def _keep_to_the_rate(self, images: int) -> None:
        if self.rate is None:
            return
        now = time.monotonic()
        if now < self._not_before:
            self._sleep(self._not_before - now)
        self._not_before = max(now, self._not_before) + images / self.rate

    def _credential(self) -> dict[str, str]:
        name, header = self._auth
        if name is None:
            return {}
        value = os.environ.get(name, "").strip()
        if not value:
            raise UserError(f"The environment variable {name}, which --auth-env names, is empty or not set.")
        if not value.isascii() or not value.isprintable():
            raise UserError(f"The environment variable {name} holds something that cannot be sent as a header.")
        return {header: value if header.lower() != "authorization" or " " in value else f"Bearer {value}"}

    def _check_credential(self) -> None:
        parts = urlsplit(self.address)
        local = parts.hostname in ("localhost", "127.0.0.1", "::1")
        if self._credential() and parts.scheme.lower() != "https" and not local:
            raise UserError(f"{self.address} is not encrypted: a credential goes over https only.")


def _hint(status: int) -> str:
    if status in (401, 403):
        return ": name the environment variable that holds the credential with --auth-env"
    if status in (404, 405):
        return ": check the address and --protocol"
    if status in (400, 413, 422):
        return ": check the shape of the images, --protocol and --request-size"
    return ""
