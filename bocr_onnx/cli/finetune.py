"""bocr-onnx finetune."""

from __future__ import annotations

import shlex
from pathlib import Path

import typer

from bocr_onnx.cli.command import command
from bocr_onnx.cli.output import print_error, print_json
from bocr_onnx.cli.signals import stopped_code
from bocr_onnx.options import FinetuneOptions


@command(FinetuneOptions)
def finetune(options: FinetuneOptions, as_json: bool) -> None:
    """Finetune a model by distillation from its original; the graph stays the same, only weights change."""
    from bocr_onnx import api
    from bocr_onnx.pipeline.rundir import default_run_dir

    made = api.finetune.run(options)
    if made is None:  # a further process of a training on several devices
        return
    if as_json:
        print_json(made.as_json())
    else:
        n_images = made.data["parts"]["final"]["n_images"]
        first, last = made.distortions
        print(
            f"{made.output}: {made.metric} {made.before:.2%} -> {made.after:.2%} (teacher {made.teacher:.2%}), "
            f"distortion {first:.3g} -> {last:.3g} on {n_images} unseen images; "
            f"{made.finetune['epochs_done']:.2f} epochs in {made.seconds:.0f} s"
        )
    if made.finetune["stopped"]:
        folder = options.resume or options.run_dir or default_run_dir(Path(made.output))
        again = ("bocr-onnx", "finetune", str(options.model), "--teacher", str(options.teacher))
        print_error(
            f"training stopped: {made.finetune['stopped']}; the best model so far is written",
            f"Go on with: {shlex.join((*again, '--data', str(options.data), '--resume', str(folder)))}",
        )
        raise typer.Exit(stopped_code() if "interrupted" in made.finetune["stopped"] else 1)
