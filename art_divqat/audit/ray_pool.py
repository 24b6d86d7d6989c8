"""Ray pool: performs calls on an engine of several machines that is there; Ray places them, retries and cancels them.

Importing this module imports no Ray. The interface is that of :class:`art_divqat.audit.pool.WorkerPool`.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import signal
import socket
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from importlib import metadata
from typing import Any

from art_divqat._files import first_line
from art_divqat._signals import SIGNALS
from art_divqat._version import __version__
from art_divqat.audit.environment import PACKAGES
from art_divqat.audit.pool import THREAD_VARIABLES, Call
from art_divqat.errors import LostWorkerError, MissingExtraError, UserError
from art_divqat.registry import plugin_distributions

# after the first one; what a worker was killed in is performed again by the engine, elsewhere if its machine is gone
_RETRIES = 2
_CONNECT_SECONDS = 5.0
# HTTP/2, which engines speak, begins with this and an empty frame of settings; the other side answers with its own
_SETTINGS, _FRAME_HEADER = 4, 9
_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, _SETTINGS, 0, 0, 0, 0, 0])
_ADDRESS = re.compile(r"\[?(?P<host>[^\s\[\]/]+?)\]?:(?P<port>\d{1,5})")

logger = logging.getLogger(__name__)


class RayPool:
    """Performs calls as tasks of a Ray engine, which is joined with the first and left by :meth:`end`.

    :param address: `HOST:PORT` of the engine's head, or `auto` for the engine of this machine; what the environment
        variable RAY_ADDRESS says if None.
    :param threads: CPU cores that a call takes, and what numerical libraries use in it.
    :param gpus: the share of a GPU that a call takes.
    :param most: the most calls under way; as many as the engine has room for if None.
    """

    def __init__(self, address: str | None, *, threads: int, gpus: float = 0.0, most: int | None = None) -> None:
        self._address = address
        self._threads = threads
        self._gpus = gpus
        self._most = most
        self._joined = False
        self._running: dict[Any, int] = {}

    def run(self, calls: list[tuple[Call, str]]) -> Iterator[tuple[int, Any]]:
        """Perform calls and yield (number of the call, its result) as each is done, in no particular order.

        :param calls: each with what it is in words.
        :raises MissingExtraError: without Ray.
        :raises UserError: for an engine that cannot be joined, and a worker that has another version of anything that
            numbers depend on.
        :raises LostWorkerError: if the engine loses the worker of a call again and again.
        """
        ray = self._join()
        from ray import cloudpickle

        task = ray.remote(_task())
        variables = {**dict.fromkeys(THREAD_VARIABLES, str(self._threads)), "TQDM_DISABLE": "1"}
        options = {
            "num_cpus": self._threads,
            "num_gpus": self._gpus or None,
            "max_retries": _RETRIES,
            "runtime_env": {"env_vars": variables},
        }
        expected = versions()
        waiting = deque(range(len(calls)))
        while waiting or self._running:
            while waiting and (self._most is None or len(self._running) < self._most):
                number = waiting.popleft()
                call, description = calls[number]
                reference = task.options(name=description, **options).remote(expected, cloudpickle.dumps(call))
                self._running[reference] = number
            (done, *_), _ = ray.wait(list(self._running), num_returns=1)
            number = self._running.pop(done)
            yield number, self._result(ray, done, calls[number][1], expected)

    def _result(self, ray: Any, reference: Any, description: str, expected: Mapping[str, str]) -> Any:
        try:
            node, found, result = ray.get(reference)
        except ray.exceptions.RayTaskError as error:
            # its text is the worker's traceback, which is no news to a user
            if isinstance(error.cause, UserError):
                raise error.cause from None
            raise (error.cause or error) from error
        except ray.exceptions.RayError as error:
            raise LostWorkerError(
                f"The engine lost the worker of {description} and its {_RETRIES} retries ({first_line(error, 200)}): "
                "see its own logs; the memory of a machine may not be enough. What was finished is kept: the same "
                "command goes on from there."
            ) from None
        for name, version in found.items():
            if version != expected[name]:
                raise UserError(
                    f"The worker on {node} has {name} {version} and this machine has {expected[name]}: install the "
                    "same version on every machine of the engine."
                )
        return result

    def _join(self) -> Any:
        try:
            import ray
        except ImportError:
            raise MissingExtraError("--executor ray needs Ray: pip install 'art-divqat[ray]'.") from None
        if self._joined:
            return ray
        if not ray.is_initialized():
            address = self._address or os.environ.get("RAY_ADDRESS")
            if not address:
                raise UserError("--executor ray needs an engine: give --address HOST:PORT, or auto for this machine's.")
            if address != "auto":
                check_address(address)
            _join_at(ray, address)
            self._joined = True
        self._warn_of_no_room(ray)
        return ray

    def _warn_of_no_room(self, ray: Any) -> None:
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        if not any(node.get("CPU", 0) >= self._threads and node.get("GPU", 0) >= self._gpus for node in nodes):
            needs = f"{self._threads} CPU" + (f" and {self._gpus:g} GPU" if self._gpus else "")
            logger.warning("No machine of the engine has the %s that a cell takes: cells wait for one to join.", needs)

    def end(self) -> None:
        """Cancel what is under way, and leave the engine if it was joined here."""
        running, self._running = list(self._running), {}
        if not running and not self._joined:
            return
        import ray

        if self._joined:
            # the engine ends what a driver that left had under way
            self._joined = False
            ray.shutdown()
            return
        for reference in running:
            with contextlib.suppress(Exception):
                ray.cancel(reference, force=True)


def versions() -> dict[str, str]:
    """The version of everything that numbers depend on, plug-ins among them; a worker must have the same."""
    found = {name: _version(name) for name in (*PACKAGES, *plugin_distributions())}
    return {"art-divqat": __version__, **{name: version for name, version in found.items() if version != "none"}}


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "none"


def check_address(address: str) -> None:
    """Refuse an address where no engine answers; Ray itself would try for two minutes, and end the process.

    :raises UserError: if the address is none, nothing listens there, or what listens speaks another protocol.
    """
    parts = _ADDRESS.fullmatch(address)
    if parts is None:
        raise UserError(
            f"--address {address!r} is none of an engine: expected HOST:PORT of its head, such as node1:6379."
        )
    start = "start one with 'ray start --head', or correct --address"
    try:
        with socket.create_connection((parts["host"], int(parts["port"])), _CONNECT_SECONDS) as connection:
            connection.sendall(_HELLO)
            answer = connection.recv(_FRAME_HEADER, socket.MSG_WAITALL)
    except (OSError, OverflowError) as error:
        raise UserError(f"No engine can be reached at {address} ({error}): {start}.") from None
    if len(answer) < _FRAME_HEADER or answer[3] != _SETTINGS:
        raise UserError(f"What listens at {address} is no Ray engine: {start}.")


def _join_at(ray: Any, address: str) -> None:
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        ray.init(address=address, log_to_driver=False, configure_logging=False, include_dashboard=False)
    except (Exception, SystemExit) as error:
        why = " ".join(str(error).split())
        raise UserError(f"The engine at {address} cannot be joined: {why}") from None
    finally:
        # Ray's own would end the process without a word
        for number, handler in handlers.items():
            with contextlib.suppress(ValueError, TypeError):  # not in the main thread, or none of Python's
                if signal.getsignal(number) is not handler:
                    signal.signal(number, handler)


def _task() -> Callable[[dict[str, str], bytes], tuple[str, dict[str, str], Any]]:
    """What a worker runs. A function of a function goes to workers as code, so that it runs on one of any version."""
    # of a worker, which reads them once
    found: dict[str, str] = {}

    def task(expected: dict[str, str], call: bytes) -> tuple[str, dict[str, str], Any]:
        """The machine, its versions, and the result of the call, which is not read where versions differ."""
        import platform
        from importlib import metadata

        for name in expected.keys() - found.keys():
            try:
                found[name] = metadata.version(name)
            except metadata.PackageNotFoundError:
                found[name] = "none"
            if name == "art-divqat":
                # what is imported need not be what is installed
                try:
                    import art_divqat

                    found[name] = art_divqat.__version__
                except ImportError:
                    found[name] = "none"
        if found != expected:
            return platform.node(), found, None
        from ray import cloudpickle

        return platform.node(), found, cloudpickle.loads(call)()

    return task


__all__ = ["RayPool", "check_address", "versions"]
