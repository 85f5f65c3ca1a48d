"""A model against limits, for a pipeline that must not ship what misses them."""

from __future__ import annotations

from pathlib import Path

from bocr_onnx.graph import check_writable, write_text
from bocr_onnx.options import CheckOptions, keywords
from bocr_onnx.pipeline.check import check_all
from bocr_onnx.report.junit import junit
from bocr_onnx.report.verdict import Checked, markdown


@keywords(CheckOptions)
def check(options: CheckOptions) -> Checked:
    """Checks a model: that it runs, has its original's interface, and keeps every limit that is given.

    Args: from the record.

    Raises:
        BocrError: The original cannot be used, or a report cannot be written.

    Example:
        >>> from importlib.resources import files
        >>> demo = str(files("bocr_onnx.calibration") / "demo.onnx")
        >>> check(demo, against=demo, max_flops=1.0).verdict
        'passed'
    """
    junit_path, summary = (None if p is None else check_writable(p) for p in (options.junit, options.summary))
    against = "" if options.against is None else str(options.against)
    found = Checked(str(options.model), against, check_all(options), options.strict)
    if junit_path is not None:
        write_text(junit_path, junit(found))
    if summary is not None:
        with Path(summary).open("a", encoding="utf-8") as file:
            file.write(markdown(found))
    return found
