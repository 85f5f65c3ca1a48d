"""The command line: one file per subcommand, errors without traceback, exit codes 0, 1 and 2."""

from __future__ import annotations

import sys
import warnings
from importlib.metadata import version
from typing import Annotated

import typer

from bocr_onnx.cli.apply import apply
from bocr_onnx.cli.evaluate import evaluate
from bocr_onnx.cli.finetune import finetune
from bocr_onnx.cli.history import app as history
from bocr_onnx.cli.inspect import inspect
from bocr_onnx.cli.output import EXIT_ERROR, print_error
from bocr_onnx.cli.prune import prune
from bocr_onnx.errors import BocrError

app = typer.Typer(
    name="bocr-onnx",
    help="Physically slimmer ONNX files, found by search and proved equal to the masked original.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(inspect)
app.command()(prune)
app.command()(finetune)
app.command()(apply)
app.command()(evaluate)
app.add_typer(history)


def _version(shown: bool) -> None:
    if shown:
        print(f"bocr-onnx {version('bocr-onnx')}")
        raise typer.Exit


@app.callback()
def _main(
    shown: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    del shown


def run() -> None:
    """Runs the command line; deliberate errors become one message and exit code 2."""
    if not sys.warnoptions:
        warnings.simplefilter("ignore")  # libraries' advice to developers; errors and notes are ours
    try:
        app()
    except BocrError as error:
        print_error(error.message, error.hint)
        sys.exit(EXIT_ERROR)
