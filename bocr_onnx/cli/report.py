"""bocr-onnx report."""

from __future__ import annotations

from bocr_onnx.cli.command import command
from bocr_onnx.cli.output import print_json
from bocr_onnx.options import ReportOptions


@command(ReportOptions)
def report(options: ReportOptions, as_json: bool) -> None:
    """Write report.html of a run: one file without scripts, with charts and tables."""
    from bocr_onnx import api

    path = api.write_report.run(options)
    if as_json:
        print_json({"schema": 1, "page": str(path)})
        return
    print(f"{path}: {path.stat().st_size / 1000:.0f} kB")
