"""bocr-onnx history: list, show, export, forget."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bocr_onnx.cli.output import print_json, print_table
from bocr_onnx.errors import UsageError

if TYPE_CHECKING:
    from bocr_onnx.api.history import History, HistoryRow, StoredSearch

SCHEMA = 1

app = typer.Typer(
    name="history",
    help="List, show, export or forget past searches.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
_File = Annotated[
    str | None, typer.Option("--history", help="History file; by default the one in the user's data folder.")
]
_Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
_Key = Annotated[str, typer.Argument(help="Key of a search, or its first characters.")]


@app.command("list")
def list_searches(history: _File = None, as_json: _Json = False) -> None:
    """Show every search in a line, newest first."""
    store = _open(history)
    found = store.list()
    if as_json:
        print_json({"schema": SCHEMA, "history": str(store.path), "searches": [asdict(row) for row in found]})
        return
    head = ("key", "model", "budget", "search", "seed", "trials", "best score", "began")
    print_table(str(store.path), head, [_cells(row) for row in found])


@app.command()
def show(key: _Key, history: _File = None, as_json: _Json = False) -> None:
    """Show one search and its trials."""
    found = _open(history).show(key)
    if as_json:
        print_json({"schema": SCHEMA, **found.as_json()})
        return
    record = found.record
    title = f"{record.model}, {_budget(record.budget)}, {record.strategy}, seed {record.seed}, {record.created}"
    print_table(title, ("trial", "state", "score", "objective", "of the budget", "MACs"), _trials(found))
    print(f"key {record.key}, {len(record.full)} groups, recovery {record.recover}, bocr-onnx {record.version}")


@app.command()
def export(
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Output file; stdout if not given.")] = None,
    history: _File = None,
) -> None:
    """Write every search with its trials as JSON."""
    _open(history).export(output or sys.stdout)


@app.command()
def forget(
    key: Annotated[str | None, typer.Argument(help="Key of a search, or its first characters.")] = None,
    model: Annotated[Path | None, typer.Option(help="Forget all searches of this .onnx file.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Forget every search.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Skip the confirmation.")] = False,
    history: _File = None,
) -> None:
    """Remove searches with their trials."""
    from bocr_onnx.api.history import model_sha256

    if (key is not None) + (model is not None) + everything != 1:
        raise UsageError("what to forget must be one of KEY, --model FILE and --all")
    store = _open(history)
    digest = None if model is None else model_sha256(model)
    _confirm(
        f"search {key}" if key is not None else f"the searches of {model}" if model else "every search", store, yes
    )
    n = store.forget(key, model_sha256=digest, everything=everything)
    print(f"forgot {n} search{'' if n == 1 else 'es'}")


def _open(history: str | None) -> History:
    from bocr_onnx.api.history import open_history

    store = open_history(history)
    if store is None:
        raise UsageError("--history must name a file, got none")
    return store


def _confirm(what: str, store: History, yes: bool) -> None:
    """Asks on a terminal; without one, --yes must say it."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise UsageError(f"--yes must be given to forget {what} without a terminal", hint="Add --yes")
    typer.confirm(f"Forget {what} in {store.path}?", abort=True, err=True)


def _cells(row: HistoryRow) -> tuple[str, ...]:
    score = "" if row.best_score is None else f"{row.best_score:.2%}"
    budget = _budget(row.budget)
    return row.key, row.model, budget, row.strategy, str(row.seed), str(row.n_trials), score, row.created


def _trials(found: StoredSearch) -> list[tuple[str, ...]]:
    return [
        (
            str(t.trial.number + 1),
            t.trial.state.value,
            "" if t.trial.score is None else f"{t.trial.score:.2%}",
            "" if t.trial.objective is None else f"{t.trial.objective:.4f}",
            f"{t.use:.1%}",
            f"{t.quantities.get('macs', 0) / 1e6:.2f} M",
        )
        for t in found.trials
    ]


def _budget(shares: dict[str, float]) -> str:
    return ", ".join(f"{name} {share:g}" for name, share in shares.items())
