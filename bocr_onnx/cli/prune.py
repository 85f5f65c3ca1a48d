"""bocr-onnx prune."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

import typer

from bocr_onnx.cli.output import EXIT_INTERRUPTED, EXIT_MISSED, TerminalProgress, print_error, print_json, print_table

if TYPE_CHECKING:
    from bocr_onnx.report import Report


def prune(
    model: Annotated[Path, typer.Argument(help="The .onnx file.")],
    flops: Annotated[float | None, typer.Option(help="Share of the MACs to keep, between 0 and 1.")] = None,
    params: Annotated[float | None, typer.Option(help="Share of the parameters to keep.")] = None,
    size: Annotated[float | None, typer.Option(help="Share of the file size to keep.")] = None,
    data: Annotated[
        str | None,
        typer.Option(help="Images: a folder, an .npz, or torchvision:NAME@ROOT. Labels are optional."),
    ] = None,
    preset: Annotated[str | None, typer.Option(help="Preprocessing preset; guessed where not given.")] = None,
    preprocess: Annotated[str | None, typer.Option(help="Preprocessing file (TOML).")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="The slim file.")] = None,
    search: Annotated[str, typer.Option(help="bocr, sensitivity, random or uniform.")] = "bocr",
    trials: Annotated[int, typer.Option(help="Policies to evaluate.")] = 40,
    seed: Annotated[int, typer.Option(help="Same seed, same plan.")] = 0,
    recover: Annotated[str, typer.Option(help="none, oneshot or sequential.")] = "sequential",
    finetune: Annotated[float, typer.Option(help="Epochs of training after the search.")] = 0,
    round_to: Annotated[str, typer.Option(help="Channel grid: auto or a whole number.")] = "auto",
    freeze: Annotated[list[str] | None, typer.Option(help="Groups to leave alone, by shell pattern.")] = None,
    only: Annotated[list[str] | None, typer.Option(help="The only groups to cut, by shell pattern.")] = None,
    min_width: Annotated[int, typer.Option(help="Channels that every group keeps at least.")] = 1,
    run_dir: Annotated[Path | None, typer.Option(help="Where plan, journal and report go.")] = None,
    resume: Annotated[Path | None, typer.Option(help="Run directory to continue.")] = None,
    score_images: Annotated[int, typer.Option(help="Images a trial is scored on.")] = 2_000,
    recovery_images: Annotated[int, typer.Option(help="Images the recovery is fitted on.")] = 1_000,
    threads: Annotated[int, typer.Option(help="Threads of the latency measurement.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print report.json.")] = False,
) -> None:
    """Write a physically slimmer ONNX file within a budget, with proof and figures."""
    from bocr_onnx import api

    try:
        report = api.prune(
            model,
            flops=flops,
            params=params,
            size=size,
            data=data,
            preset=preset,
            preprocess=preprocess,
            output=output,
            strategy=search,
            trials=trials,
            seed=seed,
            recover=cast(Literal["none", "oneshot", "sequential"], recover),
            finetune=finetune,
            round_to=round_to,
            freeze=freeze or (),
            only=only or (),
            min_width=min_width,
            run_dir=run_dir,
            resume=resume,
            n_score=score_images,
            n_recovery=recovery_images,
            threads=threads,
            progress=TerminalProgress(),
        )
    except KeyboardInterrupt:
        folder = resume or run_dir or api.default_run_dir(output or api.default_output(model))
        print_error("interrupted; finished trials are kept", f"Go on with: bocr-onnx prune {model} --resume {folder}")
        raise typer.Exit(EXIT_INTERRUPTED) from None
    if as_json:
        print_json(report.as_json())
    else:
        _show(report)
    if report.missed:
        raise typer.Exit(EXIT_MISSED)


def _show(report: Report) -> None:
    from bocr_onnx.report import figure_rows

    print_table(report.output, ("", "original", "slim", "change"), figure_rows(report))
    print(f"proof: equal to the masked original within {report.proof['max_rel_diff']:.1e} relative")
    for missed in report.missed:
        print(f"missed: {missed}")
    baseline, result = report.baseline.latency_ms, report.result.latency_ms
    if baseline and result and result > baseline:
        print("slower than the original on this host: try a coarser grid, --round-to 8 or 16")
