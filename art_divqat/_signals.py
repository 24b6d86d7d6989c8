"""Signals that interrupt a command, as far as this system has them."""

from __future__ import annotations

import signal

# what a terminal, a container or `timeout` sends to a whole group; the main process decides what happens then
SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
