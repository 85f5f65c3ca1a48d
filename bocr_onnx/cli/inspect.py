"""bocr-onnx inspect."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bocr_onnx.cli.output import print_json, print_table


def inspect(
    model: Annotated[Path, typer.Argument(help="The .onnx file.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show which channels are cut together, what they cost, and what cannot be cut."""
    from bocr_onnx import api

    found = api.inspect(model)
    if as_json:
        print_json(found.as_json())
        return
    rows = [
        (g.name, str(g.n_channels), f"{share:.1%}", str(len({m.node for m in g.members})))
        for g, share in zip(found.groups, found.shares, strict=True)
    ]
    print_table(str(model), ("group", "channels", "share of MACs", "nodes"), rows)
    for refusal, share in zip(found.refusals, found.refusal_shares, strict=True):
        print(
            f"left alone: {refusal.node} ({refusal.op}): {refusal.reason}; "
            f"{refusal.n_channels} channels, {share:.1%} of MACs touched"
        )
    print(
        f"{found.cost.macs / 1e6:.2f} M MACs, {found.cost.params:,} parameters; "
        f"{found.prunable_share:.1%} of the MACs can be pruned"
    )
