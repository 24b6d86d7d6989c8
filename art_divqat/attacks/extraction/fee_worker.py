"""Worker process of FunctionallyEquivalentExtraction: run ART's attack, exchange numbers, unpickle nothing.

Messages are a little-endian header (kind, rows, columns) and rows × columns float64 values. The worker asks with kind
`ASK` and reads an `ANSWER`, or `ABANDON` for a run that shall end. A run ends with a `RESULT` for each of w₀, b₀, w₁
and b₁, or with one `FAILED`; then the next run starts from another seed, until the other side closes the pipe.
"""

from __future__ import annotations

import itertools
import os
import struct
import sys
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

ASK, ANSWER, ABANDON, RESULT, FAILED = range(5)
HEADER = struct.Struct("<iqq")

Matrix = NDArray[np.float64]


def send(stream: BinaryIO, kind: int, values: Matrix) -> None:
    """Write one message and flush it."""
    stream.write(HEADER.pack(kind, *values.shape) + np.ascontiguousarray(values, "<f8").tobytes())
    stream.flush()


def receive(stream: BinaryIO) -> tuple[int, Matrix]:
    """Read one message.

    :raises EOFError: when the other side has gone.
    """
    header = _exactly(stream, HEADER.size)
    kind, rows, columns = HEADER.unpack(header)
    return kind, np.frombuffer(_exactly(stream, 8 * rows * columns), "<f8").reshape(rows, columns)


def _exactly(stream: BinaryIO, count: int) -> bytes:
    data = stream.read(count)
    if len(data) != count:
        raise EOFError
    return data


class AbandonedError(Exception):
    """The other side wants no more of this run."""


def main() -> None:
    """Extract from the victim behind stdin and stdout.

    Arguments: features, classes, neurons, seed, scale, then ART's parameters as name=value.
    """
    incoming, outgoing = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints must not end up among the numbers
    features, classes, neurons, seed = map(int, sys.argv[1:5])
    scale = float(sys.argv[5])
    options: dict[str, Any] = {}
    for argument in sys.argv[6:]:
        name, value = argument.split("=")
        options[name] = int(value) if name == "unit_vector_scale" else float(value)

    from art.attacks.extraction import FunctionallyEquivalentExtraction
    from art.estimators.classification import BlackBoxClassifierNeuralNetwork

    class Remote(BlackBoxClassifierNeuralNetwork):  # type: ignore[misc]
        """Float64 answers from the other end of the pipe, for inputs scaled back to the victim's units."""

        def predict(self, x: Matrix, batch_size: int = 128, **kwargs: Any) -> Matrix:
            send(outgoing, ASK, scale * np.reshape(x, (-1, features)))
            kind, answers = receive(incoming)
            if kind == ABANDON:
                raise AbandonedError
            return answers

    victim = Remote(lambda x: x, (features,), classes)
    samples = np.random.default_rng(seed).uniform(0, 1, (16 * (neurons + 1), features)) / scale
    for attempt in itertools.count():
        np.random.seed((seed + attempt) % 2**32)
        attack = FunctionallyEquivalentExtraction(victim, num_neurons=neurons)
        try:
            with np.errstate(all="ignore"):
                attack.extract(samples, **options)
        except (EOFError, BrokenPipeError):
            return
        except Exception:  # ART gives up by an AssertionError, SciPy by a ValueError: all mean that this run failed
            send(outgoing, FAILED, np.zeros((0, 0)))
            continue
        for matrix in (attack.w_0 / scale, attack.b_0, attack.w_1, attack.b_1):
            send(outgoing, RESULT, np.asarray(matrix))


if __name__ == "__main__":
    main()
