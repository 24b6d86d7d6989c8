"""Command-line application: register the commands, turn every failure into one line and an exit code.

Exit codes: 0 done, 1 a gate failed, 2 the user's input, 3 incomplete because the system killed a worker twice, 70 a
bug of this program, 129, 130 or 143 interrupted by SIGHUP, Ctrl-C or SIGTERM.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Annotated, Any, NoReturn, cast

import typer

from art_divqat import __version__
from art_divqat._memory import keep_freed_memory
from art_divqat.cli.audit import audit
from art_divqat.cli.compare import compare
from art_divqat.cli.doctor import doctor
from art_divqat.cli.evaluate import evaluate
from art_divqat.cli.progress import show_log
from art_divqat.cli.runs import log_to_mlflow, open_report, runs
from art_divqat.cli.show import list_names, report
from art_divqat.cli.stopping import MESSAGE, StopSignals
from art_divqat.cli.train import train
from art_divqat.errors import InterruptedRunError, LostWorkerError, UserError

EXIT_USER, EXIT_INCOMPLETE, EXIT_BUG, EXIT_INTERRUPTED = 2, 3, 70, 130
# click's UsageError: typer shows no name for it, and newer ones bring a click of their own
_UsageError = cast("type[typer.BadParameter]", typer.BadParameter.__mro__[1])

app = typer.Typer(
    name="art-divqat",
    help="Measure how stealable a vision model is, defend it, and prove it.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
_RUN, _PAST, _INSTALLED = "Make a run", "Look at runs", "This installation"


def _command(name: str, topic: str, example: str) -> Callable[[Any], Any]:
    """Register a command under a topic, with an example that can be typed as it is."""
    return app.command(name, rich_help_panel=topic, epilog=f"Example: {example}")


_command("evaluate", _RUN, "art-divqat evaluate --victim robust --attack knockoff")(evaluate)
_command("audit", _RUN, "art-divqat audit model.onnx --data folder:photographs")(audit)
_command("train", _RUN, "art-divqat train --victim robust --output robust-digits")(train)
_command("runs", _PAST, "art-divqat runs")(runs)
_command("open", _PAST, "art-divqat open art-divqat-runs/digits-1a2b3c4d")(open_report)
_command("report", _PAST, "art-divqat report RUN --output report.sarif")(report)
_command("compare", _PAST, "art-divqat compare BEFORE AFTER --fail-on-worse")(compare)
_command("mlflow", _PAST, "art-divqat mlflow art-divqat-runs/digits-1a2b3c4d")(log_to_mlflow)
_command("doctor", _INSTALLED, "art-divqat doctor")(doctor)
_command("list", _INSTALLED, "art-divqat list attacks")(list_names)


def _print_version(requested: bool) -> None:
    if requested:
        typer.echo(f"art-divqat {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and leave.", callback=_print_version, is_eager=True)
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Say on stderr what is done, line by line.", callback=show_log)
    ] = False,
) -> None:
    del version, verbose


def run(stop: StopSignals) -> NoReturn:
    """Run the command line; every way it can fail ends in one line on stderr and an exit code that says which."""
    os.environ.setdefault("TQDM_DISABLE", "1")
    # MLflow reports its use to its makers; what is logged goes where the user says and nowhere else
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    keep_freed_memory()
    message, code = _run(stop)
    if message and stop.received is None:
        sys.stderr.write(f"art-divqat: {' '.join(message.split())}\n")
        sys.stderr.flush()
    raise SystemExit(code)


def _run(stop: StopSignals) -> tuple[str, int]:
    """What to say of how the command ended, if anything, and the exit code."""
    try:
        # typer would draw a usage error as a box of several lines
        code = app(standalone_mode=False)
    except _UsageError as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            error.show()
            return "", EXIT_USER
        command = error.ctx.command_path if error.ctx else "art-divqat"
        message = error.format_message()
        return f"{message}{'' if message.endswith(('.', '?')) else '.'} See {command} --help.", EXIT_USER
    except (UserError, OSError) as error:
        return str(error), EXIT_USER
    except LostWorkerError as error:
        return str(error), EXIT_INCOMPLETE
    except (KeyboardInterrupt, typer.Abort, InterruptedRunError):
        return MESSAGE, EXIT_INTERRUPTED
    except MemoryError:
        return "The memory of this machine is not enough: lower --jobs or --limit.", EXIT_USER
    except Exception as error:
        # an interrupt can become another exception on its way through code of others
        if os.environ.get("ART_DIVQAT_DEBUG") and stop.received is None:
            raise
        return (
            f"A bug in art-divqat: {type(error).__name__}: {error}. Set ART_DIVQAT_DEBUG=1 to see where, and please "
            "report it.",
            EXIT_BUG,
        )
    return "", code if isinstance(code, int) else 0
