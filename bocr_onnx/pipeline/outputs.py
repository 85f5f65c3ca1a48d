"""Where results may go: never over what they were made from, nor over each other."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bocr_onnx.errors import UsageError
from bocr_onnx.graph import ModelGraph


def check_outputs(graph: ModelGraph, output: Path, others: Sequence[Path], *, inputs: Sequence[Path] = ()) -> None:
    """Checks that writing the results destroys nothing that was read, and no other result.

    Args:
        graph: The model, which knows the files it was read from.
        output: The slim file.
        others: Further files and folders that will be written.
        inputs: Further files that are read.

    Raises:
        UsageError: Two of them are the same place.
    """
    made = [output, *others, *([output.with_name(f"{output.name}.data")] if graph.external else [])]
    read = [*([graph.path] if graph.path else []), *graph.external, *inputs]
    for path in made:
        if any(_same(path, source) for source in read):
            raise UsageError(f"output {path} must not be a file that is read", hint="Name another file with -o")
    for i, path in enumerate(made):
        if any(_same(path, other) for other in made[i + 1 :]):
            raise UsageError(f"output {path} must be one file, got it twice", hint="Name another file or `run_dir`")


def _same(a: Path, b: Path) -> bool:
    return a.resolve() == b.resolve()
