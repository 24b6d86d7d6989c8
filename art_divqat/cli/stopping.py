"""Stopping: Ctrl-C, SIGTERM and SIGHUP interrupt the command in the same way, within two seconds in any case."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
import time
from types import FrameType
from typing import NoReturn

from art_divqat._signals import SIGNALS

MESSAGE = "Interrupted. What was finished is kept: the same command goes on from there."
_PATIENCE_SECONDS = 1.0


class StopSignals:
    """The first signal raises KeyboardInterrupt in the main thread; later ones change nothing.

    A main thread that has not come to its end soon after, because compiled code holds it or something swallowed the
    exception, is ended with the process: what a run keeps is whole at every moment, and workers end with their parent.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._said = False
        self._heard, self._hear = socket.socketpair()

    @property
    def exit_code(self) -> int:
        """128 and the number of the signal, as shells have it."""
        return 128 + (self.received or 0)

    def listen(self) -> None:
        """Begin. A signal that the caller had ignored, as `nohup` does, stays ignored."""
        self._hear.setblocking(False)
        # told by the signal itself, while compiled code holds the main thread too
        signal.set_wakeup_fd(self._hear.fileno(), warn_on_full_buffer=False)
        threading.Thread(target=self._watch, name="stopping", daemon=True).start()
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._handle)

    def end(self) -> None:
        """The command is over: a signal now ends what is left of the process by itself."""
        for number in SIGNALS:
            if signal.getsignal(number) == self._handle:
                signal.signal(number, signal.SIG_DFL)

    def say(self) -> None:
        """Print the message, once."""
        if not self._said:
            self._said = True
            # the terminal may be what went away
            with contextlib.suppress(OSError):
                os.write(2, f"art-divqat: {MESSAGE}\n".encode())

    def leave(self) -> NoReturn:
        """Say the message and end the process.

        Not by the interpreter's own end: it takes modules down, seconds with those of torch on a busy machine, and the
        thread that would not wait for it is no longer run then.
        """
        self.say()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()
        os._exit(self.exit_code)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        del frame
        if self.received is None:
            self.received = number
            raise KeyboardInterrupt

    def _watch(self) -> None:
        while True:
            heard = [number for number in self._heard.recv(1) if number in SIGNALS]
            if heard:
                break
        time.sleep(_PATIENCE_SECONDS)
        self.received = self.received or heard[0]
        self.say()
        os._exit(self.exit_code)
