"""bocr-onnx mobile."""

from __future__ import annotations

from bocr_onnx.cli.command import command
from bocr_onnx.cli.output import print_json, print_table
from bocr_onnx.options import MobileOptions


@command(MobileOptions)
def mobile(options: MobileOptions, as_json: bool) -> None:
    """Write a model as .ort for ONNX Runtime Mobile, and say what NNAPI and CoreML would run of it."""
    from bocr_onnx import api
    from bocr_onnx.deploy import NNAPI_NOTE

    found = api.mobile.run(options)
    if as_json:
        print_json(found.as_json())
        return
    rows = [
        (p.provider, p.verdict, f"{p.n_supported} of {p.n_nodes}", str(p.n_partitions), ", ".join(p.blocked_by) or "-")
        for p in found.partitions
    ]
    print_table("", ("accelerator", "worth a try", "nodes", "stretches", "left to the CPU"), rows)
    print(f"{found.ort}: {found.size_bytes / 1e6:.2f} MB, equal to the model within {found.largest_error:.1g} relative")
    print(f"{found.operators}: operators for a build of ONNX Runtime Mobile with no others")
    print(f"note: {NNAPI_NOTE}")
