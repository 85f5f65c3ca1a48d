"""Which task a model has, from its outputs, its names and the labels; and the tensors that it is measured at."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType

from onnx import TensorProto

from bocr_onnx.data import are_boxes
from bocr_onnx.errors import DataError, did_you_mean
from bocr_onnx.graph import FLOATING, Array, ModelGraph
from bocr_onnx.runtime import Head, make_head
from bocr_onnx.slimming.decisions import decisions
from bocr_onnx.tasks.classification import Classification
from bocr_onnx.tasks.detection import Detection, find_layout, make_detection
from bocr_onnx.tasks.embedding import Embedding
from bocr_onnx.tasks.generic import Generic
from bocr_onnx.tasks.own import Own, is_own, own_heads
from bocr_onnx.tasks.regression import Regression
from bocr_onnx.tasks.score import compared
from bocr_onnx.tasks.segmentation import Segmentation
from bocr_onnx.tasks.task import Task

REGRESSES = re.compile(r"landmark|point|coord|(?<!trans)pose|regress|angle|(\b|_)age\b|depth\b|offset|box")
EMBEDS = re.compile(r"embed|feature|descriptor|_emb\b|^emb")
CLASSES = re.compile(r"logit|prob|class|softmax|score|pred|label")
NO_WEIGHTS: Mapping[str, float] = MappingProxyType({})
MASKS = re.compile(r"mask|seg|logit|prob|class")


def measured(graph: ModelGraph) -> tuple[str, ...]:
    """Returns the tensors that a model is measured at: floating outputs with a row per image.

    A model with a batch of one may have dropped the axis of images. Of an output that comes out of a decision
    (indices, boxes that were selected) it is the tensors that decide.
    """
    decided = decisions(graph)
    found: dict[str, None] = {}
    for name in graph.outputs:
        if _has_rows(graph, name):
            found[name] = None
        else:
            deciders = _deciders(graph, name, decided)
            found |= dict.fromkeys(n for n in deciders if _has_rows(graph, n))
            if not deciders and _is_whole(graph, name):
                found[name] = None
    return tuple(found)


def _has_rows(graph: ModelGraph, name: str) -> bool:
    shape = graph.shapes.get(name, (graph.batch,))  # not known before the sizes of the images are
    return _is_computed(graph, name) and shape[:1] == (graph.batch,)


def _is_whole(graph: ModelGraph, name: str) -> bool:
    """Returns whether a tensor is that of the only image of a run, without an axis for it."""
    alone = graph.batch == 1 and not graph.batch_is_symbolic() and name in graph.shapes
    return alone and _is_computed(graph, name) and not _has_rows(graph, name)


def _is_computed(graph: ModelGraph, name: str) -> bool:
    floating = graph.dtypes.get(name, TensorProto.UNDEFINED) in FLOATING
    return floating and name not in (*graph.inputs, *graph.constants)


def _deciders(graph: ModelGraph, name: str, decided: dict[str, tuple[str, ...]]) -> list[str]:
    """Returns the tensors that the nearest decisions on the way to an output are made from."""
    waiting, seen = [name], set[str]()
    found: list[str] = []
    while waiting:
        name = waiting.pop(0)
        if name in seen:
            continue
        seen.add(name)
        if name in decided:
            found += decided[name]
        elif name in graph.producer:
            waiting += [n for n in graph.nodes[graph.producer[name]].inputs if n]
    return found


def _classifier(graph: ModelGraph, names: tuple[str, ...]) -> Task:
    if len(names) == 1 and names[0] in graph.shapes and _entries(graph, names[0]) == 1:
        return Classification((Head(names[0]),), threshold=0.5 if _ends_in(graph, names[0], "Sigmoid") else 0.0)
    return Classification(tuple(Head(name) for name in names))


def _segmenter(graph: ModelGraph, names: tuple[str, ...]) -> Task:
    axis = _class_axis(graph, names[0])
    threshold = None
    if graph.shapes[names[0]][axis] == 1:
        threshold = 0.5 if _ends_in(graph, names[0], "Sigmoid") else 0.0
    return Segmentation((make_head(graph, names[0], axis),), threshold)


def _heads(graph: ModelGraph, names: tuple[str, ...]) -> tuple[Head, ...]:
    n = len(names)
    return tuple(
        make_head(graph, name, share=n, whole=_is_whole(graph, name)) if name in graph.shapes else Head(name)
        for name in names
    )


def _pictures(graph: ModelGraph, names: tuple[str, ...]) -> frozenset[str]:
    """Returns the outputs that are pictures: as many axes as the input, one or three channels, 8 pixels a side."""
    found = set()
    for name in names:
        shape, given = graph.shapes.get(name, ()), graph.shapes.get(graph.inputs[0], ())
        if len(shape) == len(given) == 4 and any(
            channels in (1, 3) and min(sides) >= 8 for channels, *sides in (shape[1:], (shape[3], *shape[1:3]))
        ):
            found.add(name)
    return frozenset(found)


TASKS: dict[str, Callable[[ModelGraph, tuple[str, ...]], Task]] = {
    "generic": lambda graph, names: Generic(_heads(graph, names), _pictures(graph, names)),
    "classification": _classifier,
    "segmentation": _segmenter,
    "embedding": lambda graph, names: Embedding(_heads(graph, names)),
    "regression": lambda graph, names: Regression(_heads(graph, names[:1])),
    "detection": make_detection,
}
"""What makes a task of a model and the tensors it is measured at, by its name."""


def find_task(
    graph: ModelGraph,
    name: str = "auto",
    labels: Array | None = None,
    weights: Mapping[str, float] = NO_WEIGHTS,
    layout: str = "auto",
) -> Task:
    """Returns the task of a model.

    Args:
        graph: The model.
        name: Name of the task, or ``module:Name`` for a class of the user's; ``auto`` infers it.
        labels: Labels, if there are any.
        weights: How much the distortion of an output counts, by name; 1 where nothing is said.
        layout: Layout of a detector's outputs; ``auto`` recognizes it.

    Raises:
        DataError: No tensor of the model can be measured, or a weight is that of none, or none has a weight.

    Example:
        >>> import onnx
        >>> from bocr_onnx.graph import from_proto
        >>> proto = onnx.parser.parse_model('''
        ... <ir_version: 8, opset_import: ["" : 17]>
        ... net (float[N, 4] x) => (float[N, 4] a, float[N, 4] b) { a = Relu(x)  b = Neg(x) }''')
        >>> find_task(from_proto(proto)).name
        'generic'
    """
    names = measured(graph)
    if not names:
        raise DataError(
            f"{graph.label} must have a floating output with a row per image to be scored, got none",
            hint="`search=uniform` needs no data.",
        )
    if name == "auto":
        name = "detection" if layout != "auto" else _inferred(graph, names, labels)
    if name not in ("generic", "detection") and not is_own(name) and any(_is_whole(graph, n) for n in names):
        raise DataError(
            f"{graph.label} must have outputs with an axis of images for `task={name}`, got {graph.shapes[names[0]]}",
            hint="`task=generic` compares them as they are.",
        )
    task = _made(graph, name, names, layout)
    return _weighed(graph, task, weights) if weights else task


def described(task: Task) -> str:
    """Returns a task in words: its name, how detections are read, and the tensors that are measured."""
    names = ", ".join(dict.fromkeys(head.name for head in compared(task.heads)))
    layout = ""
    if isinstance(task, Detection):
        kind = "" if task.layout.name == task.option else f", {task.layout.name}"
        layout = f" (layout {task.option}{kind})"
    return f"{task.name}{layout}, measured at {names}"


def _made(graph: ModelGraph, name: str, names: tuple[str, ...], layout: str) -> Task:
    if is_own(name):
        return Own(own_heads(graph, names, name), name)
    return make_detection(graph, names, layout) if name == "detection" else TASKS[name](graph, names)


def _weighed(graph: ModelGraph, task: Task, weights: Mapping[str, float]) -> Task:
    names = [head.name for head in compared(task.heads)]
    for name in weights:
        if name not in names:
            raise DataError(
                f"`output_weights` must name outputs that {graph.label} is scored at, got {name!r}",
                hint=did_you_mean(name, names),
            )
    heads = tuple(replace(h, weight=weights.get(h.name, h.weight)) if h.weight else h for h in task.heads)
    if not any(head.weight for head in heads):
        raise DataError(f"`output_weights` must leave an output of {graph.label} a weight above 0, got none")
    return replace(task, heads=heads)


def _inferred(graph: ModelGraph, names: tuple[str, ...], labels: Array | None) -> str:
    first = names[0]
    if are_boxes(labels) or (labels is None and _is_detector(graph, names)):
        return "detection"
    if any(_is_whole(graph, name) for name in names):
        return "generic"
    if labels is not None:
        if labels.ndim > 2 or (labels.ndim == 2 and labels.dtype.kind in "iu"):
            return "segmentation"
        if labels.dtype.kind == "f":
            return "regression"
        return "classification"
    if first not in graph.shapes:
        return "generic"
    rank, entries = len(graph.shapes[first]), _entries(graph, first)
    if len(names) > 1:
        vectors = all(_is_vector(graph, name) and _entries(graph, name) > 1 for name in names)
        return "classification" if vectors and all(_says(graph, name, CLASSES) for name in names) else "generic"
    if _is_vector(graph, first):
        if entries == 1:
            return "classification" if _ends_in(graph, first, "Sigmoid") else "regression"
        if EMBEDS.search(first.lower()) or _ends_in(graph, first, "LpNormalization", "Div"):
            return "embedding"
        return "regression" if REGRESSES.search(first.lower()) else "classification"
    if rank == 4 and (_ends_in(graph, first, "Softmax") or _says(graph, first, MASKS)):
        return "segmentation"
    return "generic"


def _is_detector(graph: ModelGraph, names: tuple[str, ...]) -> bool:
    """Returns whether outputs have a layout of detectors; a run of the model decides between those of equal shapes."""
    if all(_is_vector(graph, name) and not _is_whole(graph, name) for name in names if name in graph.shapes):
        return False
    return find_layout(graph, names) is not None


def _says(graph: ModelGraph, name: str, words: re.Pattern[str]) -> bool:
    return bool(words.search(name.lower())) or _ends_in(graph, name, "Softmax")


def _is_vector(graph: ModelGraph, name: str) -> bool:
    """Returns whether a tensor is a vector per image: `(N,)`, `(N, K)` or `(N, K, 1, 1)`; not `(N, anchors, 1)`."""
    shape = graph.shapes[name]
    return len(shape) <= 2 or (len(shape) == 4 and shape[2:] == (1, 1))


def _entries(graph: ModelGraph, name: str) -> int:
    n = 1
    for size in graph.shapes[name][1:]:
        n *= size
    return n


def _class_axis(graph: ModelGraph, name: str) -> int:
    """Returns the axis of the classes: the last one where a Softmax says so, else axis 1."""
    node = graph.maker(name)
    rank = len(graph.shapes[name])
    if node is not None and node.op == "Softmax":
        return int(node.attributes.get("axis", -1)) % rank
    return 1 if graph.shapes[name][1] <= graph.shapes[name][-1] else rank - 1


def _ends_in(graph: ModelGraph, name: str, *ops: str) -> bool:
    node = graph.maker(name)
    return node is not None and node.op in ops
