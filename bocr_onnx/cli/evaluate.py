"""bocr-onnx evaluate."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bocr_onnx.cli.command import command
from bocr_onnx.cli.output import print_json
from bocr_onnx.options import EvaluateOptions

if TYPE_CHECKING:
    from bocr_onnx.tasks import Score


@command(EvaluateOptions)
def evaluate(options: EvaluateOptions, as_json: bool) -> None:
    """Score a model on labelled images, or against its original; of a folder with train/ and val/, on val/."""
    from bocr_onnx import api

    found = api.evaluate.run(options)
    if as_json:
        print_json(found.as_json())
        return
    print(
        f"{found.model}: {found.metric} {with_error(found.score)} "
        f"on {found.n_images} images, preprocessing {found.preprocessing}"
    )
    if found.original is not None and found.agreement is not None:
        print(f"{found.against}: {found.metric} {with_error(found.original)}")
        print(f"agreement of the two: {with_error(found.agreement)}")


def with_error(score: Score) -> str:
    """Returns a score with its standard error."""
    return f"{score.value:.2%} (+-{score.stderr:.2%})"
