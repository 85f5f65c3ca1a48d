"""A pure result becomes text, JSON and Markdown."""

from bocr_onnx.report.front import front_record, front_rows, front_text
from bocr_onnx.report.record import Figures, GroupFigures, Report
from bocr_onnx.report.text import figure_rows, markdown

__all__ = ["Figures", "GroupFigures", "Report", "figure_rows", "front_record", "front_rows", "front_text", "markdown"]
