"""bocr-onnx evaluate."""

from __future__ import annotations

from bocr_onnx.cli.command import command
from bocr_onnx.cli.output import print_json
from bocr_onnx.options import EvaluateOptions


@command(EvaluateOptions)
def evaluate(options: EvaluateOptions, as_json: bool) -> None:
    """Score a model on labelled images; of a folder with train/ and val/, on val/."""
    from bocr_onnx import api

    found = api.evaluate.run(options)
    if as_json:
        print_json(found.as_json())
        return
    print(
        f"{found.model}: {found.metric} {found.score.value:.2%} (+-{found.score.stderr:.2%}) "
        f"on {found.n_images} images, preprocessing {found.preprocessing}"
    )
