"""Tasks of a user's own: a class in a module that the user names, ``--task module:Name``.

What it may have, of which only `score` and `metric` must be there::

    class Pose:
        metric = "PCK"                                # what a score is called
        outputs = ("heatmaps",)                       # tensors that are measured; all floating outputs if left out

        def samples(self, source):                    # -> inputs, labels: reads what `data` names
        def score(self, outputs, labels):             # -> a number in [0, 1], larger is better
        def agreement(self, outputs, original):       # -> the same without labels; fidelity if left out
        def loss(self, outputs, labels):              # -> a scalar, torch: what finetuning learns from labels

Outputs are dicts by name, first axis the samples. Inputs are an array or a dict of arrays by name, as the model reads
them; labels are an array with a row per sample, or None. Without `samples` the data are read as ever.
"""

from __future__ import annotations

import functools
import importlib
import math
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bocr_onnx.data import Pools, Samples
from bocr_onnx.errors import DataError, TaskError, UsageError, did_you_mean
from bocr_onnx.graph import Array, ModelGraph, table
from bocr_onnx.options import OWN_TASK
from bocr_onnx.runtime import Head, Outputs
from bocr_onnx.tasks.generic import Generic
from bocr_onnx.tasks.score import Score


def is_own(name: str) -> bool:
    """Returns whether a task is a class of the user's."""
    return bool(OWN_TASK.fullmatch(name))


@functools.cache
def load_own(name: str) -> Any:
    """Returns an instance of the class that ``module:Name`` names; the module is looked for here, too.

    Raises:
        UsageError: There is no such module or class, or it does not say how to score.
        TaskError: The module or the class raises.
    """
    module_name, _, class_name = name.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise _theirs(name, error) from error
        raise UsageError(
            f"`task={name}` must name a module that can be imported, got no {error.name!r}",
            hint="It is looked for in this folder and among installed packages.",
        ) from error
    except Exception as error:
        raise _theirs(name, error) from error
    if not hasattr(module, class_name):
        raise UsageError(
            f"`task={name}` must name a class of {module_name}, got none with this name",
            hint=did_you_mean(class_name, [n for n in vars(module) if not n.startswith("_")]),
        )
    made = call(name, getattr(module, class_name))
    if not callable(getattr(made, "score", None)) or not isinstance(getattr(made, "metric", None), str):
        raise UsageError(
            f"`task={name}` must have a method 'score' and a text 'metric', got a {type(made).__name__} without",
            hint="docs/own_tasks.md shows a whole one.",
        )
    return made


def call(name: str, function: Callable[..., Any], *args: Any) -> Any:
    """Returns what a function of the user's returns.

    Raises:
        TaskError: It raises; with its traceback.
    """
    try:
        return function(*args)
    except Exception as error:
        raise _theirs(name, error) from error


def _theirs(name: str, error: Exception) -> TaskError:
    """Returns an error of the user's code, with the traceback from where their code begins."""
    frames = traceback.extract_tb(error.__traceback__)
    while frames and frames[0].filename in (__file__, importlib.__file__):
        frames = traceback.StackSummary.from_list(frames[1:])
    frames = traceback.StackSummary.from_list([f for f in frames if not f.filename.startswith("<frozen")])
    told = "".join([*frames.format(), *traceback.format_exception_only(error)]).rstrip()
    return TaskError(
        f"`task={name}` raised {type(error).__name__}; its own traceback:", hint=told.replace("\n", "\n  ")
    )


@dataclass(frozen=True, slots=True)
class Own:
    """A task that a user's class scores.

    Attributes:
        heads: What is measured.
        name: ``module:Name``; worker processes import it again.
    """

    heads: tuple[Head, ...]
    name: str

    @property
    def user(self) -> Any:
        """Returns the instance of the user's class."""
        return load_own(self.name)

    def metric(self, *, labelled: bool) -> str:
        """Returns what a score means."""
        if labelled:
            return str(self.user.metric)
        return f"{self.user.metric} with the original" if hasattr(self.user, "agreement") else "fidelity"

    def check(self, outputs: Outputs, labels: Array | None, source: str) -> None:
        """Checks that an output differs between images; raises as `Generic.check`."""
        Generic(self.heads).check(outputs, labels, source)

    def truth(self, outputs: Outputs, labels: Array | None) -> Outputs:
        """Returns the labels; or the original's outputs, and then a row of nothing, which tells the two apart."""
        return (*outputs, np.zeros(len(outputs[0]))) if labels is None else (labels,)

    def learns(self, labels: Array | None) -> Array | None:
        """Returns the labels where the user's class has a loss of them."""
        return labels if hasattr(self.user, "loss") else None

    def figures(self, outputs: Outputs, reference: Outputs) -> tuple[dict[str, float], ...]:
        """Returns nothing beside the distortion of each tensor."""
        del reference
        return ({},) * len(outputs)

    def score(self, outputs: Outputs, truth: Outputs) -> Score:
        """Returns what the user's class says of outputs.

        Raises:
            TaskError: It raises, or returns no number in [0, 1].
        """
        named, n = self._named(outputs), len(outputs[0])
        if len(truth) == 1:
            return self._checked("score", call(self.name, self.user.score, named, truth[0]), n)
        original = truth[:-1]
        if not hasattr(self.user, "agreement"):
            return Generic(self.heads).score(outputs, original)
        return self._checked("agreement", call(self.name, self.user.agreement, named, self._named(original)), n)

    def loss(self, outputs: Mapping[str, Any], labels: Any) -> Any:
        """Returns the user's loss, a scalar tensor.

        Raises:
            TaskError: It raises.
        """
        return call(self.name, self.user.loss, outputs, labels)

    def _named(self, outputs: Outputs) -> dict[str, Array]:
        return {head.name: output for head, output in zip(self.heads, outputs, strict=True)}

    def _checked(self, method: str, value: Any, n: int) -> Score:
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = math.nan
        if not 0 <= number <= 1:
            raise TaskError(f"{method!r} of `task={self.name}` must return a number in [0, 1], got {value!r}")
        return Score(number, n)


def own_heads(graph: ModelGraph, names: tuple[str, ...], name: str) -> tuple[Head, ...]:
    """Returns the tensors that a user's class names, whole; all that are measured where it names none.

    Raises:
        DataError: The model has no such tensor.
    """
    wanted = tuple(getattr(load_own(name), "outputs", names))
    known = (*names, *(n for n in graph.shapes if n not in names))
    for output in wanted:
        if output not in known:
            raise DataError(
                f"`task={name}` must name tensors of {graph.label}, got {output!r}", hint=did_you_mean(output, known)
            )
    return tuple(Head(output) for output in wanted)


def own_pools(name: str, source: Any) -> Pools | None:
    """Returns what a user's class reads from the data; None where it leaves that to us.

    Raises:
        TaskError: It raises, or returns something else than inputs and labels, with a row per sample.
    """
    user = load_own(name)
    if not hasattr(user, "samples"):
        return None
    given = call(name, user.samples, source)
    try:
        inputs, labels = given
        arrays = {k: np.asarray(v) for k, v in inputs.items()} if isinstance(inputs, Mapping) else np.asarray(inputs)
        known = None if labels is None else np.asarray(labels)
        rows = {len(a) for a in (*(arrays.values() if isinstance(arrays, dict) else (arrays,)), known) if a is not None}
    except (TypeError, ValueError) as error:
        raise TaskError(
            f"'samples' of `task={name}` must return inputs and labels, got {type(given).__name__}: {error}"
        ) from error
    if len(rows) != 1 or not min(rows):
        raise TaskError(f"'samples' of `task={name}` must return a row per sample, got {sorted(rows)} rows")
    images = table(arrays) if isinstance(arrays, dict) else arrays.astype(np.float32, copy=False)
    samples = Samples(images=images, labels=known, classes=(), name=str(source))
    return Pools(train=None, held_out=None, single=samples, labelled=known is not None, path=str(source))
