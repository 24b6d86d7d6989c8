"""A minimal server of the Open Inference Protocol v2 and of the JSON form, with faults on demand; loopback only."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
from numpy.typing import NDArray

from art_divqat.estimators.remote_journal import image_key

FAULTS = ("500", "429", "hang", "truncated", "shape", "nan", "drop", "slow", "html")


class Server:
    """Answers with `predict`; every image answered well is counted, as a bill would count it.

    :param faults: the fault of each POST in turn, None for none; afterwards none.
    """

    def __init__(
        self, predict: Callable[[NDArray[np.float32]], NDArray[Any]], faults: Iterator[str | None] | None = None
    ):
        self.paid: Counter[str] = Counter()
        self.faults, self.injected = faults or iter(()), Counter[str]()
        self.headers: list[dict[str, str]] = []
        self.hang_seconds = 1.0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args: Any) -> None:
                pass

            def do_GET(self) -> None:
                shape = [-1, 1, 8, 8]
                record = {"name": "m", "inputs": [{"name": "image", "datatype": "FP32", "shape": shape}], "outputs": []}
                self._send(200, json.dumps(record).encode())

            def do_POST(self) -> None:
                outer.headers.append(dict(self.headers))
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                v2 = "inputs" in body
                if v2:
                    assert body["inputs"][0]["name"] == "image"
                    assert body["inputs"][0]["datatype"] == "FP32"
                    x = np.array(body["inputs"][0]["data"], np.float32).reshape(body["inputs"][0]["shape"])
                else:
                    x = np.array(body["instances"], np.float32)
                fault = next(outer.faults, None)
                if fault is not None:
                    outer.injected[fault] += 1
                rows = predict(x).astype(np.float64)
                if fault == "500":
                    return self._send(500, b"oops")
                if fault == "429":
                    return self._send(429, b"", {"Retry-After": "0"})
                if fault == "hang":
                    time.sleep(outer.hang_seconds)
                    self.close_connection = True
                    return None
                if fault == "drop":
                    self.close_connection = True
                    return None
                if fault == "html":
                    return self._send(200, b"<html>login</html>")
                if fault == "shape":
                    rows_sent = rows[:, :-1]
                elif fault == "nan":
                    rows_sent = rows * np.nan
                else:
                    rows_sent = rows
                if v2:
                    output = {"name": "o", "datatype": "FP32", "shape": list(rows_sent.shape)}
                    record: Any = {"outputs": [{**output, "data": rows_sent.ravel().tolist()}]}
                else:
                    record = {"predictions": rows_sent.tolist()}
                content = json.dumps(record).encode()
                if fault == "truncated":
                    return self._send(200, content[: len(content) // 2])
                if fault == "slow":
                    time.sleep(0.1)
                if fault in (None, "slow"):
                    outer.paid.update(image_key(image) for image in x)
                return self._send(200, content)

            def _send(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
                self.send_response(status)
                for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    def __enter__(self) -> Server:
        self._thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def v2(self) -> str:
        return f"{self.base}/v2/models/m"
