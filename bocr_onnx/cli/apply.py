"""bocr-onnx apply."""

from __future__ import annotations

from bocr_onnx.cli.command import command
from bocr_onnx.cli.output import print_json
from bocr_onnx.options import ApplyOptions


@command(ApplyOptions)
def apply(options: ApplyOptions, as_json: bool) -> None:
    """Cut a model by a plan again, without a search; the weights are the model's own."""
    from bocr_onnx import api

    applied = api.apply.run(options)
    if as_json:
        print_json(applied.as_json())
        return
    print(
        f"{applied.output}: {applied.result.macs / max(applied.baseline.macs, 1):.1%} of the MACs, "
        f"{applied.result.params / max(applied.baseline.params, 1):.1%} of the parameters; "
        f"equal to the masked original within {applied.proof.max_rel_diff:.1e} relative"
    )
