"""What a search is told of earlier searches."""

from __future__ import annotations

import math
from dataclasses import dataclass

from bocr_onnx.search.trial import Trial

Row = tuple[float, ...]

FEATURES = (
    *("depth", "channels", "outputs", "kernel", "stride", "share", "share after"),
    *("sensitivity", "quarter", "three quarters", "spread", "better half"),
)
"""Columns of `bocr_onnx.search.features.group_features`."""

PUBLISHED = ("depth", "outputs", "channels", "stride", "kernel", "parameters", "macs")
"""Columns of `bocr_onnx.search.features.published_features`."""


@dataclass(frozen=True, slots=True)
class PriorSearch:
    """An earlier search of another model, in terms that mean the same in every model.

    Attributes:
        model: Name of its model.
        budget: Share that was kept.
        features: Features of its groups, `n_groups` rows; see `bocr_onnx.search.features`.
        published: The features of its groups that the published agent sees, `n_groups` rows.
        allocation: Keep ratios of the allocation on its error curves, one per group.
        ratios: Executed keep ratios of its trials, `n_trials` rows.
        rewards: Their objectives.
    """

    model: str
    budget: float
    features: tuple[Row, ...]
    published: tuple[Row, ...]
    allocation: Row
    ratios: tuple[Row, ...]
    rewards: Row

    def is_sound(self) -> bool:
        """Returns whether all parts speak of the same groups and trials, in numbers."""
        n = len(self.allocation)
        tables = ((self.features, len(FEATURES)), (self.published, len(PUBLISHED)), (self.ratios, n))
        values = (self.budget, *self.allocation, *self.rewards, *(v for t, _ in tables for row in t for v in row))
        return (
            len(self.features) == len(self.published) == n > 0
            and len(self.ratios) == len(self.rewards) > 0
            and all(len(row) == width for table, width in tables for row in table)
            and all(map(math.isfinite, values))
        )


@dataclass(frozen=True, slots=True)
class Prior:
    """What is known before a search begins.

    Attributes:
        same: Trials of the same model on the same images, at any budget: values of the same function.
        others: Searches of other models.
    """

    same: tuple[Trial, ...] = ()
    others: tuple[PriorSearch, ...] = ()
