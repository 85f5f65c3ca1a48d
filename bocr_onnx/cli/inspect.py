"""bocr-onnx inspect."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bocr_onnx.cli.command import command
from bocr_onnx.cli.output import print_json, print_table
from bocr_onnx.options import InspectOptions

if TYPE_CHECKING:
    from bocr_onnx.api import Inspection


@command(InspectOptions)
def inspect(options: InspectOptions, as_json: bool) -> None:
    """Show which channels are cut together, what they cost, and what cannot be cut."""
    from bocr_onnx import api

    found = api.inspect.run(options)
    if as_json:
        print_json(found.as_json())
        return
    rows = [
        (g.name, str(g.n_channels), f"{share:.1%}", str(len({m.node for m in g.members})))
        for g, share in zip(found.groups, found.shares, strict=True)
    ]
    print_table(found.path, ("group", "channels", "share of MACs", "nodes"), rows)
    for line in _refusal_lines(found):
        print(f"left alone: {line}")
    print(
        f"{found.cost.macs / 1e6:.2f} M MACs, {found.cost.params:,} parameters; "
        f"{found.prunable_share:.1%} of the MACs can be pruned"
        f"{'' if sum(found.shares) <= 1 else ' (an operator counts for the group it reads and for the one it makes)'}"
    )


def _refusal_lines(found: Inspection) -> list[str]:
    """Returns a line for every reason; nodes that say the same of as many channels share one."""
    lines: dict[tuple[str, str, int, float], list[str]] = {}
    for refusal, share in zip(found.refusals, found.refusal_shares, strict=True):
        lines.setdefault((refusal.op, refusal.reason, refusal.n_channels, share), []).append(refusal.node)
    return [
        f"{nodes[0]}{f' and {len(nodes) - 1} more' if len(nodes) > 1 else ''} ({op}): {reason}; "
        f"{n} channels, {share:.1%} of the MACs ({share * found.cost.macs / 1e6:.2f} M) touched"
        for (op, reason, n, share), nodes in lines.items()
    ]
