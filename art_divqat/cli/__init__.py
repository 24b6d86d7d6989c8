"""Command line: parse options, call `audit` and `report`, print. The only importer of Typer."""

from typing import NoReturn

from art_divqat.cli.stopping import StopSignals


def main() -> NoReturn:
    """Run the command line; a signal ends it in one line, from its first import to its last."""
    stop = StopSignals()
    try:
        stop.listen()
        from art_divqat.cli.app import run

        run(stop)
    finally:
        # whatever an import or a command made of the interruption
        if stop.received is not None:
            stop.leave()
        stop.end()


__all__ = ["main"]
