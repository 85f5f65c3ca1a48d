"""The run directory: options, journal, plan and report of one run."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from filelock import FileLock, Timeout
from onnx import ModelProto

from bocr_onnx.data import Pools
from bocr_onnx.errors import OutputError, ResumeError, UsageError
from bocr_onnx.graph import save, sweep_leftovers, write_text
from bocr_onnx.options import PruneOptions, stored
from bocr_onnx.pipeline.images import open_pools

OptionsType = TypeVar("OptionsType")


@dataclass(frozen=True, slots=True)
class _File:
    """A file of a run directory, and whether a run makes it."""

    name: str
    made: bool = True

    def __get__(self, folder: RunDir, owner: type[RunDir]) -> Path:
        return folder.path / self.name


class RunDir:
    """The folder of a run; nothing is written before `create`.

    Args:
        path: The folder.
    """

    options, journal, prior = _File("run.json"), _File("journal.jsonl"), _File("past.json")
    plan, checkpoint, front = _File("plan.json"), _File("finetune.pt"), _File("front.json")
    report_json, report_md = _File("report.json"), _File("report.md")
    timing = _File("latency.json")
    model, arrays = _File("model.onnx", made=False), _File("data.npz", made=False)
    """A model and images that were given in memory; a resumed run reads them."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def create(self, options: Any) -> None:
        """Makes the folder where it does not exist, and writes the options into it.

        Args:
            options: A record of options.

        Raises:
            OutputError: The folder cannot be made or written.
        """
        self.make()
        record = {name: self._kept(name, value) for name, value in stored(options).items()}
        if record.get("output"):
            record["output"] = str(Path(record["output"]).absolute())  # the same file from wherever it is continued
        write_text(self.options, json.dumps(record, indent=2) + "\n")

    def named(self, options: PruneOptions) -> PruneOptions:
        """Returns options with the names of the files that `create` makes of what is in memory."""
        if isinstance(options.model, ModelProto):
            options = replace(options, model=str(self.model.absolute()))
        in_memory = options.data is not None and not isinstance(options.data, (str, Path))
        return replace(options, data=str(self.arrays.absolute())) if in_memory else options

    def _kept(self, name: str, value: Any) -> Any:
        """Returns what run.json holds of an option: what is in memory becomes a file of the folder."""
        if isinstance(value, ModelProto):
            save(value, self.path / f"{name}.onnx")
            return str((self.path / f"{name}.onnx").absolute())
        arrays = value if isinstance(value, tuple) else (value,)
        if name == "data" and arrays and isinstance(arrays[0], (np.ndarray, Mapping)):
            images = arrays[0] if isinstance(arrays[0], Mapping) else {"images": arrays[0]}
            np.savez(self.arrays, **images, **dict(zip(("labels",), arrays[1:], strict=False)))
            return str(self.arrays.absolute())
        return value

    def make(self) -> None:
        """Makes the folder where it does not exist.

        Raises:
            OutputError: It cannot be made.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"run directory {self.path} must be a folder, got {error.strerror}") from error

    @contextmanager
    def alone(self, *outputs: Path) -> Iterator[None]:
        """Keeps other runs out of the folder until it is left or this process dies; makes it where it does not exist.

        What a run that was killed has left of writing its files is removed.

        Args:
            outputs: Files that this run writes elsewhere.

        Raises:
            OutputError: The folder cannot be made.
            ResumeError: Another run is in it.
        """
        self.make()
        lock = FileLock(self.path / ".lock", timeout=0)
        try:
            lock.acquire()
        except Timeout as error:
            raise ResumeError(
                f"run directory {self.path} must be used by one run at a time, got another one that is still going",
                hint="Wait for it, or name another directory: `run_dir=DIR`",
            ) from error
        try:
            for path in (*self.files[1:], *outputs):
                sweep_leftovers(path)
            yield
        finally:
            lock.release()

    def example(self, number: int) -> Path:
        """Returns where a picture of what both models find is kept."""
        return self.path / f"example{number}.jpg"

    def set_journal_aside(self) -> None:
        """Renames the journal of an earlier, different search, so that it is not lost."""
        self.journal.replace(self.path / "journal.old.jsonl")

    @property
    def files(self) -> tuple[Path, ...]:
        """Returns the folder and all that a run writes into it."""
        return (self.path, *(self.path / f.name for f in vars(RunDir).values() if isinstance(f, _File) and f.made))

    def read_options(self, kind: type[OptionsType]) -> OptionsType:
        """Returns the options of the run.

        Args:
            kind: Their record.

        Raises:
            ResumeError: The folder is not a run directory, or one of another version.
        """
        try:
            return kind(**_of_this_version(json.loads(self.options.read_text(encoding="utf-8"))))
        except FileNotFoundError as error:
            raise ResumeError(
                f"{self.path} must be a run directory, got no {self.options.name} in it",
                hint="The directory is the one that `run_dir` named, or <output>.run",
            ) from error
        except (OSError, ValueError, TypeError, RecursionError) as error:
            raise ResumeError(f"{self.options} must hold the options of a run, got: {error}") from error
        except UsageError as error:
            raise ResumeError(f"{self.options} must hold the options of a run: {error.message}") from error


def _of_this_version(record: dict[str, Any]) -> dict[str, Any]:
    """Returns options as this version names them; 0.1 kept some in a record of their own."""
    found = {**record, **record.pop("settings", {})}
    if "preprocessing" in found:
        found["preset"] = found.pop("preprocessing")
    if "race" in found:
        found.pop("teacher", None)
    return found


def folder_of(options: PruneOptions) -> Path:
    """Returns the run directory of a run: the one that is asked for, or the one beside its slim file."""
    named = options.resume or options.run_dir
    return Path(named) if named else default_run_dir(output_of(options))


def output_of(options: PruneOptions) -> Path:
    """Returns the slim file of a run: the one that is asked for, or one beside the original.

    Raises:
        UsageError: The model has no file to put it beside.
    """
    if options.output is not None:
        return Path(options.output)
    if not isinstance(options.model, (str, Path)):
        raise UsageError("`output` must be given for a model in memory")
    path = Path(options.model)
    return path.with_name(f"{path.stem}_slim.onnx")


def open_images(options: PruneOptions) -> Pools:
    """Returns the images of a run; those in memory are named after the file that keeps them.

    Raises:
        DataError: They cannot be used.
    """
    assert options.data is not None
    pools = open_pools(options.task, options.data)
    in_memory = not isinstance(options.data, (str, Path))
    return replace(pools, path=str(RunDir(folder_of(options)).arrays.absolute())) if in_memory else pools


def is_resumable(path: Path) -> bool:
    """Returns whether a folder holds what a run that was stopped needs to go on."""
    return RunDir(path).options.exists()


def default_run_dir(output: Path) -> Path:
    """Returns where the run directory lies where nothing is said: beside the slim file."""
    return output.with_suffix(".run")
