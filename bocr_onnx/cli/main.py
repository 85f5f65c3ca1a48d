"""The command line: one file per subcommand, errors in words, and what exit codes mean.

0 done, 1 done but a target or check was missed, 2 usage, data or model error, 70 a bug of bocr-onnx, 130 stopped by
Ctrl-C, 143 stopped by SIGTERM.
"""

from __future__ import annotations

import sys
import traceback
import warnings
from importlib.metadata import version
from typing import Annotated, Any

import typer

from bocr_onnx.cli.apply import apply
from bocr_onnx.cli.bench import bench
from bocr_onnx.cli.check import check
from bocr_onnx.cli.device import app as device
from bocr_onnx.cli.evaluate import evaluate
from bocr_onnx.cli.finetune import finetune
from bocr_onnx.cli.history import app as history
from bocr_onnx.cli.inspect import inspect
from bocr_onnx.cli.mobile import mobile
from bocr_onnx.cli.output import EXIT_BUG, EXIT_ERROR, print_error
from bocr_onnx.cli.prune import prune
from bocr_onnx.cli.quantize import quantize
from bocr_onnx.cli.report import report
from bocr_onnx.cli.signals import NOTHING_KEPT, listen, stoppable, stopped_code
from bocr_onnx.cli.wording import fitting, spelled
from bocr_onnx.errors import BocrError

WHOLE_ONLY = ("botorch", "gpytorch", "lightning_fabric", "pycocotools", "scipy", "torch", "torchvision")
"""Packages that the light install leaves out (docs/ci.md)."""

MAX_SHOWN = 300
"""Characters of an unexpected error."""

app = typer.Typer(
    name="bocr-onnx",
    help="Physically slimmer ONNX files, found by search and verified against the masked original.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (inspect, prune, finetune, apply, evaluate, bench, check, quantize, mobile, report):
    app.command()(stoppable(command))
app.add_typer(history)
app.add_typer(device)


def _version(shown: bool) -> None:
    if shown:
        print(f"bocr-onnx {version('bocr-onnx')}")
        raise typer.Exit


@app.callback()
def _main(
    shown: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an unexpected error.")] = False,
) -> None:
    del shown, debug


def _flags(arguments: list[str]) -> set[str]:
    """Returns the options of the command that was typed; all options there are where it is none."""
    commands: dict[str, Any] = getattr(typer.main.get_command(app), "commands", {})
    typed = [commands[name] for name in arguments if name in commands][:1] or commands.values()
    return {option for command in typed for p in getattr(command, "params", ()) for option in p.opts}


def run() -> None:
    """Runs the command line; deliberate errors become a message and exit code 2, all others a line and 70."""
    listen()
    if not sys.warnoptions:
        warnings.simplefilter("ignore")  # libraries' advice to developers; errors and notes are ours
    debug = "--debug" in sys.argv
    sys.argv = [sys.argv[0], *(argument for argument in sys.argv[1:] if argument != "--debug")]
    try:
        app()
    except BocrError as error:
        print_error(spelled(error.message), fitting(spelled(error.hint), _flags(sys.argv[1:])))
        sys.exit(EXIT_ERROR)
    except KeyboardInterrupt:
        print_error("interrupted; nothing was written", NOTHING_KEPT)
        sys.exit(stopped_code())
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] not in WHOLE_ONLY:
            raise
        print_error(
            f"{error.name} must be installed for this command", "The light install lacks it: pip install bocr-onnx"
        )
        sys.exit(EXIT_ERROR)
    except Exception as error:  # a bug: whatever it is, it is not a missed target
        if debug:
            traceback.print_exc()
        text = " ".join(str(error).split())
        print_error(
            f"unexpected {type(error).__name__}: {text[:MAX_SHOWN]}",
            "This is a bug of bocr-onnx: please report it with the command, the model and what --debug adds to it.",
        )
        sys.exit(EXIT_BUG)
