"""A pure result becomes text, JSON and Markdown."""

from bocr_onnx.report.front import front_record, front_rows, front_text
from bocr_onnx.report.record import Figures, GroupFigures, Report
from bocr_onnx.report.speed import clock_text, speed_text
from bocr_onnx.report.text import figure_rows, int8_rows, markdown, output_rows, remarks

__all__ = [
    "Figures",
    "GroupFigures",
    "Report",
    "clock_text",
    "figure_rows",
    "front_record",
    "front_rows",
    "front_text",
    "int8_rows",
    "markdown",
    "output_rows",
    "remarks",
    "speed_text",
]
