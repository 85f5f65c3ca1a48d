"""bocr-onnx quantize."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from bocr_onnx.cli.command import command
from bocr_onnx.cli.output import print_json, print_table
from bocr_onnx.options import QuantizeOptions

if TYPE_CHECKING:
    from bocr_onnx.api import Int8Result


@command(QuantizeOptions)
def quantize(options: QuantizeOptions, as_json: bool) -> None:
    """Write a model in int8 that keeps its score, the fastest on a device; calibrated on images."""
    from bocr_onnx import api

    found = api.quantize.run(options)
    if as_json:
        print_json(found.as_json())
        return
    print_table(found.output, ("", "float", "int8", "change"), _rows(found))
    made = found.made
    kernels = ", ".join(f"{n} {op}" for op, n in sorted(made["float_kernels"].items())) or "nothing"
    print(f"{made['activations']} activations; still in floating point: {kernels}")
    if found.speedup.high < 1:
        print("note: int8 is slower than float on this device", file=sys.stderr)


def _rows(found: Int8Result) -> list[tuple[str, ...]]:
    size, time, points = found.sizes_bytes, found.latencies_ms, 100 * (found.after - found.before)
    of_images = f"{found.metric}, {found.n_images} images"
    speed = f"{found.speedup.value:.2f} ± {found.speedup.margin:.2f} times as fast"
    return [
        ("file size", f"{size[0] / 1e6:.2f} MB", f"{size[1] / 1e6:.2f} MB", f"{size[1] / size[0]:.0%}"),
        (of_images, f"{found.before:.2%}", f"{found.after:.2%}", f"{points:+.2f} points"),
        (f"latency on {found.device}", f"{time[0]:.3f} ms", f"{time[1]:.3f} ms", speed),
    ]
