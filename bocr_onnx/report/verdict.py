"""What `check` says: a criterion each, and what all of them together mean."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any, Literal

Verdict = Literal["passed", "failed", "cannot tell", "error"]
"""``cannot tell``: the limit lies within the interval of what was measured; ``error``: it could not be measured."""

MARKS: dict[Verdict, str] = {"passed": "✅", "failed": "❌", "cannot tell": "❔", "error": "⚠️"}


@dataclass(frozen=True, slots=True)
class Criterion:
    """One thing that was checked.

    Attributes:
        name: Name of the option, or what was checked.
        verdict: What came of it.
        limit: What was asked for, in words; empty where there is no number.
        value: What was found, in words.
        detail: Why, where the numbers do not say it.
        measured: What was found, as a number.
        bound: What was asked for, as a number.
        interval: Where the value may lie, at 99 % confidence; None where it is exact.
        seconds: Time it took.
    """

    name: str
    verdict: Verdict
    limit: str = ""
    value: str = ""
    detail: str = ""
    measured: float | None = None
    bound: float | None = None
    interval: tuple[float, float] | None = None
    seconds: float = 0.0

    @property
    def line(self) -> str:
        """Returns it as one line."""
        limit = f", limit {self.limit}" if self.limit else ""
        detail = f": {self.detail}" if self.detail else ""
        return f"{self.name} {self.verdict}{' with ' if self.value else ''}{self.value}{limit}{detail}"


@dataclass(frozen=True, slots=True)
class Checked:
    """What checking a model gave.

    Attributes:
        model: Its file.
        against: The file that it was compared with; empty for none.
        criteria: In order.
        strict: Whether a limit that cannot be told counts as missed.
    """

    model: str
    against: str
    criteria: tuple[Criterion, ...]
    strict: bool = False

    @property
    def verdict(self) -> Verdict:
        """Returns the worst of all, errors first."""
        found = {criterion.verdict for criterion in self.criteria}
        for verdict in ("error", "failed"):
            if verdict in found:
                return verdict
        if "cannot tell" in found:
            return "failed" if self.strict else "cannot tell"
        return "passed"

    @property
    def exit_code(self) -> int:
        """Returns 0 where nothing was missed, 1 where a limit was, 2 where one could not be measured."""
        return {"passed": 0, "cannot tell": 0, "failed": 1, "error": 2}[self.verdict]

    @property
    def headline(self) -> str:
        """Returns the verdict in words."""
        counts = Counter(criterion.verdict for criterion in self.criteria)
        parts = [f"{counts[verdict]} {verdict}" for verdict in MARKS if counts[verdict]]
        compared = f" against {self.against}" if self.against else ""
        return f"{self.model}{compared}: {self.verdict} ({', '.join(parts)})"

    def as_json(self) -> dict[str, Any]:
        """Returns what ``bocr-onnx check --json`` prints."""
        return {
            "schema": 1,
            "model": self.model,
            "against": self.against or None,
            "verdict": self.verdict,
            "strict": self.strict,
            "criteria": [asdict(criterion) for criterion in self.criteria],
        }


def markdown(checked: Checked) -> str:
    """Returns the verdict as Markdown, for the summary of a CI job."""
    head = ["| | criterion | found | limit | |", "|---|---|---|---|---|"]
    rows = [
        f"| {MARKS[c.verdict]} | {_cell(c.name)} | {_cell(c.value)} | {_cell(c.limit)} | {_cell(c.detail)} |"
        for c in checked.criteria
    ]
    return "\n".join([f"### {MARKS[checked.verdict]} {_cell(checked.headline)}", "", *head, *rows, ""])


def _cell(text: str) -> str:
    """Returns text that stays in a cell, whatever names a model has."""
    flat = " ".join(text.split())
    return "".join(f"\\{c}" if c in "\\|`*_<>[]#" else c for c in flat)
