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
    teacher: Annotated[Path, typer.Option(help="The .onnx file to distill from, e.g. the original before pruning.")],
    data: Annotated[
        str, typer.Option(help="Images: a folder, an .npz, or torchvision:NAME@ROOT. Labels are optional.")
    ],
    epochs: Annotated[float, typer.Option(help="Passes over the training images.")] = 1,
    preset: Annotated[str | None, typer.Option(help="Preprocessing preset; guessed if not given.")] = None,
    preprocess: Annotated[str | None, typer.Option(help="Preprocessing file (TOML).")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="The trained file.")] = None,
    run_dir: Annotated[Path | None, typer.Option(help="Directory for the checkpoint and report.")] = None,
    resume: Annotated[Path | None, typer.Option(help="Run directory to continue.")] = None,
    score_images: Annotated[int, typer.Option(help="Number of images used to choose the best epoch.")] = 2_000,
    final_images: Annotated[int, typer.Option(help="Number of unseen images for the reported score.")] = 10_000,
    patience: Annotated[
        int, typer.Option(help="Stop after this many epochs without a better score; 0 never stops early.")
    ] = 0,
    seed: Annotated[int, typer.Option(help="Random seed; the same seed gives the same weights (on one CPU).")] = 0,
    input_shape: InputShape = None,
    tensorboard: Annotated[Path | None, typer.Option(help="Folder for TensorBoard curves.")] = None,
    normalize: Annotated[
        bool,
        typer.Option(help="Restore folded BatchNormalization during training."),
    ] = True,
    label_weight: Annotated[
        float,
        typer.Option(help="Weight of the label loss; the distillation loss gets the rest.", rich_help_panel=LOSS),
    ] = 0.3,
    label_smoothing: Annotated[float, typer.Option(help="Label smoothing, in [0, 1).", rich_help_panel=LOSS)] = 0.0,
    temperature: Annotated[float, typer.Option(help="Distillation temperature.", rich_help_panel=LOSS)] = 4.0,
    feature_weight: Annotated[
        float,
        typer.Option(help="Weight of the distillation loss on uncut feature maps.", rich_help_panel=LOSS),
    ] = 0.0,
    optimizer: Annotated[str, typer.Option(help="Optimizer: sgd or adamw.", rich_help_panel=OPTIMIZER)] = "sgd",
    learning_rate: Annotated[float, typer.Option(help="Peak learning rate.", rich_help_panel=OPTIMIZER)] = 0.05,
    weight_decay: Annotated[float, typer.Option(help="Weight decay.", rich_help_panel=OPTIMIZER)] = 0.0001,
    warmup: Annotated[float, typer.Option(help="Fraction of steps used for warm-up.", rich_help_panel=OPTIMIZER)] = 0.1,
    average: Annotated[
        float,
        typer.Option(help="Decay of the moving average of weights; 0 disables it.", rich_help_panel=OPTIMIZER),
    ] = 0.0,
    batch_size: Annotated[int, typer.Option(help="Images per step.", rich_help_panel=OPTIMIZER)] = 128,
    device: Annotated[str, typer.Option(help="Device: auto, cpu, cuda or mps.", rich_help_panel=MACHINES)] = "auto",
    devices: Annotated[int, typer.Option(help="Number of devices.", rich_help_panel=MACHINES)] = 1,
    precision: Annotated[
        str,
        typer.Option(help="Precision: auto, 32-true, bf16-mixed or 16-mixed.", rich_help_panel=MACHINES),
    ] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print report.json.")] = False,
) -> None:
    """Finetune a model by distillation from its original; the graph stays the same, only weights change."""
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
        **settings,
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
