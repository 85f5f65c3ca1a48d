"""What a model offers to a pruner."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from typing import Any

from bocr_onnx.cost import Cost, Prunable
from bocr_onnx.errors import UsageError, did_you_mean
from bocr_onnx.groups import ChannelGroup, GroupIndex, Refusal


@dataclass(frozen=True, slots=True)
class Inspection:
    """A model's groups, what they cost, and what cannot be cut.

    Attributes:
        path: The file.
        sha256: Its digest.
        cost: Cost of the original.
        prunable_share: Share of MACs that any group controls, in [0, 1].
        groups: Channels that are cut together.
        shares: Share of MACs each group controls, in the order of `groups`.
        refusals: What was left alone.
        refusal_shares: Share of MACs of the operators each refusal touches.
        warning: Why the file cannot be pruned although it can be read; empty where it can, or where it was not run.
    """

    path: str
    sha256: str
    cost: Cost
    prunable_share: float
    groups: tuple[ChannelGroup, ...]
    shares: tuple[float, ...]
    refusals: tuple[Refusal, ...]
    refusal_shares: tuple[float, ...]
    warning: str = ""

    def _repr_html_(self) -> str:
        """Returns what a notebook shows."""
        from bocr_onnx.report.notebook import inspection_html

        return inspection_html(self.as_json())

    def as_json(self) -> dict[str, Any]:
        """Returns what ``bocr-onnx inspect --json`` prints."""
        return {
            "schema": 1,
            "model": {"path": self.path, "sha256": self.sha256},
            "cost": asdict(self.cost),
            "prunable_share": self.prunable_share,
            "groups": [
                {
                    "name": g.name,
                    "n_channels": g.n_channels,
                    "macs_share": share,
                    "members": [asdict(m) for m in g.members],
                }
                for g, share in zip(self.groups, self.shares, strict=True)
            ],
            "refusals": list(refusal_records(self)),
            "warning": self.warning,
        }


def refusal_records(inspection: Inspection) -> tuple[dict[str, Any], ...]:
    """Returns refusals as records: node, op, reason, n_channels, macs, macs_share.

    MACs are those of the operators that make or read the channels; a refusal keeps them from shrinking.
    """
    return tuple(
        {
            "node": r.node,
            "op": r.op,
            "reason": r.reason,
            "n_channels": r.n_channels,
            "macs": round(share * inspection.cost.macs),
            "macs_share": share,
        }
        for r, share in zip(inspection.refusals, inspection.refusal_shares, strict=True)
    )


def inspect_graph(model: Prunable) -> Inspection:
    """Returns the inspection of a model."""
    graph, index, cost = model.graph, model.index, model.cost
    total = max(cost.macs(cost.full)[0], 1.0)
    return Inspection(
        path=graph.label,
        sha256=graph.sha256,
        cost=cost.cost(cost.full),
        prunable_share=cost.prunable_share(),
        groups=index.groups,
        shares=cost.shares(),
        refusals=index.refusals,
        refusal_shares=tuple(
            sum(cost.node_macs.get(i, 0.0) for i in refusal.nodes) / total for refusal in index.refusals
        ),
    )


def match_groups(index: GroupIndex, patterns: Sequence[str], option: str) -> tuple[str, ...]:
    """Returns the names of groups that match any pattern, by their own name or a member's node.

    Args:
        index: The groups.
        patterns: Shell patterns, e.g. ``"*/layer1*"``.
        option: Named in the error.

    Raises:
        UsageError: A pattern matches nothing.
    """
    found: dict[str, None] = {}
    for pattern in patterns:
        names = [
            g.name
            for g in index.groups
            if fnmatchcase(g.name, pattern) or any(fnmatchcase(m.node, pattern) for m in g.members)
        ]
        if not names:
            known = [g.name for g in index.groups]
            raise UsageError(f"`{option}` must match a group, got {pattern!r}", hint=did_you_mean(pattern, known))
        found.update(dict.fromkeys(names))
    return tuple(found)
