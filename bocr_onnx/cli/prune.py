"""bocr-onnx prune."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bocr_onnx.cli.output import (
    EXIT_MISSED,
    InputShape,
    TerminalProgress,
    print_error,
    print_json,
    print_table,
)
from bocr_onnx.cli.signals import stopped_code
from bocr_onnx.errors import UsageError

if TYPE_CHECKING:
    from bocr_onnx.report import Report


STRATEGY, MACHINES = "Options of particular strategies", "Machines and history"


def prune(
    model: Annotated[Path, typer.Argument(help="The .onnx file.")],
    flops: Annotated[str | None, typer.Option(help="Share of the MACs to keep, or several: 0.7,0.5,0.3.")] = None,
    params: Annotated[str | None, typer.Option(help="Share of the parameters to keep, or several.")] = None,
    size: Annotated[str | None, typer.Option(help="Share of the file size to keep, or several.")] = None,
    data: Annotated[
        str | None,
        typer.Option(help="Images: a folder, an .npz, or torchvision:NAME@ROOT. Labels are optional."),
    ] = None,
    preset: Annotated[str | None, typer.Option(help="Preprocessing preset; guessed if not given.")] = None,
    preprocess: Annotated[str | None, typer.Option(help="Preprocessing file (TOML).")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="The slim file.")] = None,
    search: Annotated[
        str, typer.Option(help="Strategy: bocr, bocr-paper, bo, local, amc, sensitivity, random or uniform.")
    ] = "bocr",
    trials: Annotated[int, typer.Option(help="Policies to evaluate, in total over all budgets.")] = 40,
    race: Annotated[bool, typer.Option(help="Stop hopeless trials early, after the first images.")] = True,
    seed: Annotated[int, typer.Option(help="Random seed; the same seed gives the same plan.")] = 0,
    recover: Annotated[str, typer.Option(help="How weights are refitted: none, oneshot or sequential.")] = "sequential",
    finetune: Annotated[float, typer.Option(help="Epochs of finetuning after the search.")] = 0,
    steps: Annotated[int, typer.Option(help="Number of rounds of search, recovery and finetuning.")] = 1,
    round_to: Annotated[
        str, typer.Option(help="Keep multiples of this many channels: auto or a whole number.")
    ] = "auto",
    freeze: Annotated[list[str] | None, typer.Option(help="Groups to leave uncut (shell pattern).")] = None,
    only: Annotated[list[str] | None, typer.Option(help="The only groups to cut (shell pattern).")] = None,
    min_width: Annotated[int, typer.Option(help="Minimum number of channels kept in every group.")] = 1,
    input_shape: InputShape = None,
    run_dir: Annotated[Path | None, typer.Option(help="Directory for the plan, journal and report.")] = None,
    resume: Annotated[Path | None, typer.Option(help="Run directory to continue.")] = None,
    score_images: Annotated[int, typer.Option(help="Number of images each trial is scored on.")] = 2_000,
    recovery_images: Annotated[int, typer.Option(help="Number of images the recovery is fitted on.")] = 1_000,
    final_images: Annotated[int, typer.Option(help="Number of unseen images for the reported score.")] = 10_000,
    memory: Annotated[float, typer.Option(help="Memory limit for images and activations, in GiB.")] = 2.0,
    threads: Annotated[int, typer.Option(help="Threads used when measuring latency (does not limit the search).")] = 1,
    similarity: Annotated[
        str, typer.Option(help="bocr-paper: euclidean, jensen-shannon or structural.", rich_help_panel=STRATEGY)
    ] = "euclidean",
    rollback: Annotated[str, typer.Option(help="bocr-paper: gradual, direct or none.", rich_help_panel=STRATEGY)] = (
        "gradual"
    ),
    constraint: Annotated[str, typer.Option(help="bocr-paper: shift or wall.", rich_help_panel=STRATEGY)] = "shift",
    transfer: Annotated[str, typer.Option(help="amc: none, plain or augmented.", rich_help_panel=STRATEGY)] = "none",
    assistant: Annotated[str, typer.Option(help="amc: on or off.", rich_help_panel=STRATEGY)] = "off",
    warm_up: Annotated[
        str, typer.Option(help="amc: auto, or short as with transfer.", rich_help_panel=STRATEGY)
    ] = "auto",
    workers: Annotated[int, typer.Option(help="Number of trials run in parallel.", rich_help_panel=MACHINES)] = 1,
    ray: Annotated[
        str | None, typer.Option(help="Address of a Ray cluster to run trials on.", rich_help_panel=MACHINES)
    ] = None,
    history: Annotated[
        str | None, typer.Option(help="History file, or none to disable.", rich_help_panel=MACHINES)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print report.json.")] = False,
) -> None:
    """Write a physically slimmer ONNX file within a budget, with proof and figures."""
    from bocr_onnx import api

    options = api.build_options(
        model,
        flops=_shares("--flops", flops),
        params=_shares("--params", params),
        size=_shares("--size", size),
        data=data,
        preset=preset,
        preprocess=preprocess,
        output=output,
        strategy=search,
        settings=api.Settings(
            similarity=similarity,
            rollback=rollback,
            constraint=constraint,
            transfer=transfer,
            assistant=assistant,
            warm_up=warm_up,
        ),
        trials=trials,
        race=race,
        seed=seed,
        recover=recover,
        finetune=finetune,
        steps=steps,
        round_to=round_to,
        freeze=freeze or (),
        only=only or (),
        min_width=min_width,
        n_score=score_images,
        n_recovery=recovery_images,
        n_final=final_images,
        memory=memory,
        threads=threads,
        workers=workers,
        ray=ray,
        history=history,
        input_shapes=api.parse_shapes(input_shape or ()),
    )
    try:
        reports = api.prune_each(options, run_dir, resume=resume, progress=TerminalProgress())
    except KeyboardInterrupt:
        folder = Path(resume or run_dir or api.default_run_dir(output or api.default_output(model)))
        if not api.is_resumable(folder):
            raise
        again = shlex.join(("bocr-onnx", "prune", str(model), "--resume", str(folder)))
        print_error("interrupted; what is finished is kept", f"Go on with: {again}")
        raise typer.Exit(stopped_code()) from None
    _show(reports, as_json)
    if any(report.missed for report in reports):
        raise typer.Exit(EXIT_MISSED)


def _shares(name: str, text: str | None) -> tuple[float, ...]:
    """Returns the shares of an option, as 0.7,0.5,0.3."""
    try:
        return tuple(float(part) for part in text.split(",")) if text is not None else ()
    except ValueError as error:
        raise UsageError(f"{name} must be a share or several with commas between, got {text!r}") from error


def _show(reports: tuple[Report, ...], as_json: bool) -> None:
    from bocr_onnx.report import front_record, front_rows

    if as_json:
        print_json(reports[0].as_json() if len(reports) == 1 else front_record(reports))
        return
    for report in reports:
        _show_one(report)
    if len(reports) > 1:
        print_table("front", *front_rows(reports))


def _show_one(report: Report) -> None:
    from bocr_onnx.report import figure_rows, is_slower, undecided_text

    print_table(report.output, ("", "original", "slim", "change"), figure_rows(report))
    print(f"proof: equal to the masked original within {report.proof['max_rel_diff']:.1e} relative")
    if undecided := undecided_text(report):
        print(undecided)
    for missed in report.missed:
        print(f"missed: {missed}")
    baseline, result = report.baseline.latency_ms, report.result.latency_ms
    if baseline and result and is_slower(baseline, result):
        print("slower than the original on this host: try a coarser grid, --round-to 8 or 16")
