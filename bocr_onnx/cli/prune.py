"""bocr-onnx prune."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

import typer

from bocr_onnx.cli.command import command
from bocr_onnx.cli.output import EXIT_MISSED, print_error, print_json, print_table
from bocr_onnx.cli.signals import stopped_code
from bocr_onnx.options import PruneOptions

if TYPE_CHECKING:
    from bocr_onnx.report import Report


@command(PruneOptions)
def prune(options: PruneOptions, as_json: bool) -> None:
    """Write a physically slimmer ONNX file within a budget, with proof and figures."""
    from bocr_onnx import api
    from bocr_onnx.pipeline.rundir import folder_of, is_resumable

    try:
        reports = api.prune_each.run(options)
    except KeyboardInterrupt:
        folder = folder_of(options)
        if not is_resumable(folder):
            raise
        again = shlex.join(("bocr-onnx", "prune", str(options.model), "--resume", str(folder)))
        print_error("interrupted; what is finished is kept", f"Go on with: {again}")
        raise typer.Exit(stopped_code()) from None
    _show(reports, as_json)
    if any(report.missed for report in reports):
        raise typer.Exit(EXIT_MISSED)


def _show(reports: tuple[Report, ...], as_json: bool) -> None:
    from bocr_onnx.report import front_record, front_rows

    if as_json:
        print_json(reports[0].as_json() if len(reports) == 1 else front_record(reports))
        return
    for report in reports:
        _show_one(report)
    if len(reports) > 1:
        print_table("front", *front_rows(reports))


def _show_one(report: Report) -> None:
    from bocr_onnx.report import figure_rows, int8_rows, output_rows, remarks

    print_table(report.output, ("", "original", "slim", "change"), figure_rows(report))
    if rows := int8_rows(report):
        print_table(report.int8["output"], ("", "original", "slim", "slim, int8"), rows)
    if report.outputs and (report.task != "classification" or len(report.outputs) > 1):
        print_table("outputs", *output_rows(report))
    print(f"proof: equal to the masked original within {report.proof['max_rel_diff']:.1e} relative")
    for text in remarks(report):
        print(text)
    for missed in report.missed:
        print(f"missed: {missed}")
