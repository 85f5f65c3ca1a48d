"""bocr-onnx finetune."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from bocr_onnx.cli.output import InputShape, TerminalProgress, print_error, print_json
from bocr_onnx.cli.signals import stopped_code

LOSS, OPTIMIZER, MACHINES = "Loss", "Optimizer", "Machines"


def finetune(
    model: Annotated[Path, typer.Argument(help="The .onnx file to train.")],
    teacher: Annotated[Path, typer.Option(help="The .onnx file to learn from, e.g. the one it was cut from.")],
    data: Annotated[str, typer.Option(help="Images as for prune. Labels are optional.")],
    epochs: Annotated[float, typer.Option(help="Passes over the training images.")] = 1,
    preset: Annotated[str | None, typer.Option(help="Preprocessing preset; guessed where not given.")] = None,
    preprocess: Annotated[str | None, typer.Option(help="Preprocessing file (TOML).")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="The trained file.")] = None,
    run_dir: Annotated[Path | None, typer.Option(help="Where checkpoint and report go.")] = None,
    resume: Annotated[Path | None, typer.Option(help="Run directory to continue.")] = None,
    score_images: Annotated[int, typer.Option(help="Images on which the best epoch is chosen.")] = 2_000,
    final_images: Annotated[int, typer.Option(help="Unseen images that the report's score is taken on.")] = 10_000,
    patience: Annotated[int, typer.Option(help="Epochs without a better score before it ends; 0: all.")] = 0,
    seed: Annotated[int, typer.Option(help="Same seed, same weights (on one CPU).")] = 0,
    input_shape: InputShape = None,
    tensorboard: Annotated[Path | None, typer.Option(help="Folder for TensorBoard curves.")] = None,
    normalize: Annotated[
        bool | None,
        typer.Option(
            help="Put BatchNormalization back, where it was folded away, for the time of training.", show_default="True"
        ),
    ] = None,
    label_weight: Annotated[
        float | None,
        typer.Option(help="Share of the labels; the teacher has the rest.", show_default="0.3", rich_help_panel=LOSS),
    ] = None,
    label_smoothing: Annotated[
        float | None, typer.Option(help="In [0, 1).", show_default="0.0", rich_help_panel=LOSS)
    ] = None,
    temperature: Annotated[
        float | None, typer.Option(help="Of the teacher's term.", show_default="4.0", rich_help_panel=LOSS)
    ] = None,
    feature_weight: Annotated[
        float | None,
        typer.Option(help="Of feature maps that are whole in both models.", show_default="0.0", rich_help_panel=LOSS),
    ] = None,
    optimizer: Annotated[
        str | None, typer.Option(help="sgd or adamw.", show_default="sgd", rich_help_panel=OPTIMIZER)
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option(help="At the peak.", show_default="0.05", rich_help_panel=OPTIMIZER)
    ] = None,
    weight_decay: Annotated[
        float | None, typer.Option(help="On weights.", show_default="0.0001", rich_help_panel=OPTIMIZER)
    ] = None,
    warmup: Annotated[
        float | None, typer.Option(help="Share of the steps.", show_default="0.1", rich_help_panel=OPTIMIZER)
    ] = None,
    average: Annotated[
        float | None,
        typer.Option(help="Decay of a moving average of the weights.", show_default="0.0", rich_help_panel=OPTIMIZER),
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(help="Images per step.", show_default="128", rich_help_panel=OPTIMIZER)
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="auto, cpu, cuda or mps.", show_default="auto", rich_help_panel=MACHINES)
    ] = None,
    devices: Annotated[
        int | None, typer.Option(help="How many of them.", show_default="1", rich_help_panel=MACHINES)
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(help="auto, 32-true, bf16-mixed or 16-mixed.", show_default="auto", rich_help_panel=MACHINES),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print report.json.")] = False,
) -> None:
    """Train a model towards its original; it comes back as the same graph with other weights."""
    from bocr_onnx import api

    settings = {
        "epochs": epochs,
        "patience": patience,
        "seed": seed,
        "normalize": normalize,
        "label_weight": label_weight,
        "label_smoothing": label_smoothing,
        "temperature": temperature,
        "feature_weight": feature_weight,
        "optimizer": optimizer,
        "learning_rate": learning_rate,
        "weight_decay": weight_decay,
        "warmup": warmup,
        "average": average,
        "batch_size": batch_size,
        "device": device,
        "devices": devices,
        "precision": precision,
    }
    made = api.finetune(
        model,
        teacher,
        data,
        preset=preset,
        preprocess=preprocess,
        output=output,
        run_dir=run_dir,
        resume=resume,
        score_images=score_images,
        final_images=final_images,
        tensorboard=tensorboard,
        input_shapes=api.parse_shapes(input_shape or ()),
        progress=TerminalProgress(),
        **{name: value for name, value in settings.items() if value is not None},
    )
    if made is None:  # a further process of a training on several devices
        return
    if as_json:
        print_json(made.as_json())
    else:
        print(
            f"{made.output}: {made.metric} {made.before:.2%} -> {made.after:.2%} on "
            f"{made.data['parts']['final']['n_images']} unseen images (teacher {made.teacher:.2%}); "
            f"{made.finetune['epochs_done']:.2f} epochs in {made.seconds:.0f} s"
        )
    if made.finetune["stopped"]:
        folder = resume or run_dir or api.default_run_dir(Path(made.output))
        again = ("bocr-onnx", "finetune", str(model), "--teacher", str(teacher), "--data", data)
        print_error(
            f"training stopped: {made.finetune['stopped']}; the best model so far is written",
            f"Go on with: {shlex.join((*again, '--resume', str(folder)))}",
        )
        raise typer.Exit(stopped_code() if "interrupted" in made.finetune["stopped"] else 1)
