"""The verdict as JUnit XML, which CI systems show as tests: a case for every criterion."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

from bocr_onnx.report.verdict import Checked, Criterion

FORBIDDEN = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML 1.0 does not allow."""


def junit(checked: Checked) -> str:
    """Returns a test suite: a limit that cannot be told is skipped, or a failure where that is strict."""
    tags = [_tag(criterion, checked.strict) for criterion in checked.criteria]
    suite = ET.Element("testsuite", {
        "name": _text(f"bocr-onnx check {checked.model}"), "tests": str(len(tags)),
        "failures": str(tags.count("failure")), "errors": str(tags.count("error")),
        "skipped": str(tags.count("skipped")), "time": f"{sum(c.seconds for c in checked.criteria):.3f}",
    })  # fmt: skip
    properties = ET.SubElement(suite, "properties")
    for name, value in (("model", checked.model), ("against", checked.against), ("verdict", checked.verdict)):
        ET.SubElement(properties, "property", {"name": name, "value": _text(value)})
    for criterion, tag in zip(checked.criteria, tags, strict=True):
        case = ET.SubElement(suite, "testcase", {
            "classname": _text(checked.model), "name": _text(criterion.name), "time": f"{criterion.seconds:.3f}",
        })  # fmt: skip
        if tag:
            ET.SubElement(case, tag, {"type": criterion.verdict, "message": _text(criterion.line)})
        ET.SubElement(case, "system-out").text = _text(criterion.line)
    whole = ET.Element("testsuites")
    whole.append(suite)
    ET.indent(whole)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(whole, encoding="unicode") + "\n"


def _tag(criterion: Criterion, strict: bool) -> str:
    unknown = "failure" if strict else "skipped"
    return {"passed": "", "failed": "failure", "cannot tell": unknown, "error": "error"}[criterion.verdict]


def _text(text: str) -> str:
    return FORBIDDEN.sub("?", text)
