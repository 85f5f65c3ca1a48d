"""The space of policies: one keep ratio per group, and which channel counts a group may keep."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bocr_onnx.cost import Widths
from bocr_onnx.errors import UsageError
from bocr_onnx.groups import GroupIndex

Point = npt.NDArray[np.float64]
"""Keep ratios, shape `(n_groups,)`, float64, each in (0, 1]."""

MIN_RATIO = 0.1


@dataclass(frozen=True, slots=True)
class SearchSpace:
    """Which policies there are.

    Attributes:
        names: Group names.
        full: Channels per group, shape `(n_groups,)`.
        choices: For every group the channel counts it may keep, ascending; the last one is all of them.
    """

    names: tuple[str, ...]
    full: Widths
    choices: tuple[Widths, ...]

    @property
    def low(self) -> Widths:
        """Returns the smallest widths, shape `(n_groups,)`."""
        return np.array([c[0] for c in self.choices], dtype=np.int64)

    @property
    def free(self) -> npt.NDArray[np.int64]:
        """Returns the numbers of the groups that have a choice."""
        return np.array([i for i, c in enumerate(self.choices) if len(c) > 1], dtype=np.int64)

    def snap(self, ratios: Point) -> Widths:
        """Returns the allowed widths nearest to keep ratios, shape as `ratios`; ties go to the smaller width.

        Args:
            ratios: Shape `(n_policies, n_groups)`.
        """
        columns = []
        for i, choice in enumerate(self.choices):
            wish = ratios[:, i] * self.full[i]
            between = (choice[1:] + choice[:-1]) / 2
            columns.append(choice[np.searchsorted(between, wish, side="left")])
        return np.stack(columns, axis=1) if columns else np.zeros((len(ratios), 0), dtype=np.int64)

    def holds(self, widths: Sequence[int]) -> bool:
        """Returns whether widths are a policy of this space."""
        return len(widths) == len(self.choices) and all(w in c for w, c in zip(widths, self.choices, strict=True))

    def step(self, group: int, width: int, direction: int) -> int | None:
        """Returns the next allowed width up (1) or down (-1), or None at the end."""
        choice = self.choices[group]
        at = int(np.searchsorted(choice, width)) + direction
        return int(choice[at]) if 0 <= at < len(choice) else None


def build_space(index: GroupIndex, *, grid: int = 1, frozen: tuple[str, ...] = (), min_width: int = 1) -> SearchSpace:
    """Returns the space of an index.

    Args:
        index: The groups.
        grid: Kept counts are multiples of it, or all channels; a group smaller than two grid steps moves in
            steps of its half, so that it is not locked. Channels of a group that stand for several entries of every
            axis, as attention heads do, count as that many.
        frozen: Names of groups that keep all channels.
        min_width: Channels that every group keeps at least, or all it has.

    Raises:
        UsageError: The grid or the minimum width is below one.
    """
    if grid < 1:
        raise UsageError(f"`round_to` must be at least 1, got {grid}")
    if min_width < 1:
        raise UsageError(f"`min_width` must be at least 1, got {min_width}")
    choices = []
    for group in index.groups:
        n = group.n_channels
        if group.name in frozen:
            choices.append(np.array([n]))
            continue
        own = grid // math.gcd(grid, min(m.width // n for m in group.members)) if group.members else grid
        step = own if n >= 2 * own else max(1, n // 2)
        low = max(min_width, int(np.ceil(MIN_RATIO * n)))
        counts = [k for k in range(step, n, step) if k >= low] if step > 1 else list(range(low, n))
        choices.append(np.array([*counts, n], dtype=np.int64))
    full = np.array([g.n_channels for g in index.groups], dtype=np.int64)
    return SearchSpace(tuple(g.name for g in index.groups), full, tuple(choices))
