"""Detectors: boxes and classes of objects."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from bocr_onnx.data import BOX, NOTHING
from bocr_onnx.errors import DataError, did_you_mean
from bocr_onnx.graph import Array, ModelGraph
from bocr_onnx.runtime import Columns, Head, Outputs
from bocr_onnx.tasks.detection.layouts import ASKED_FOR, LAYOUTS, Block, Layout, Seen
from bocr_onnx.tasks.detection.precision import average_precision
from bocr_onnx.tasks.generic import Generic
from bocr_onnx.tasks.score import Score

CONFIDENT = 0.25
"""Score from which a detection of the original is taken for true where there are no labels."""

MAX_ENTRIES = 32_768
"""Entries per image that are compared, over all tensors; of more, a fixed sample stands for all."""


@dataclass(frozen=True, slots=True, eq=False)
class Detections(Head):
    """The detections of an image, which all tensors of a layout say together; they have no distortion.

    Attributes:
        layout: How they are read.
        whole_reads: Tensors without an axis of images.
    """

    layout: Layout | None = None
    whole_reads: frozenset[str] = frozenset()

    @property
    def reads(self) -> tuple[str, ...]:
        """Returns the tensors that `view` takes."""
        assert self.layout is not None
        return self.layout.reads

    def view(self, *arrays: Array) -> Array:
        """Returns `(n, MAX_BOXES)` of `BOX`."""
        assert self.layout is not None
        pairs = zip(self.reads, arrays, strict=True)
        return self.layout.found(*(a[None] if name in self.whole_reads else a for name, a in pairs))


@dataclass(frozen=True, slots=True)
class Detection:
    """A detector; COCO's average precision with labels, at an overlap of 0.5 against the original's without.

    Attributes:
        heads: What is compared with the original, then the detections.
        layout: How they are read.
        names: Names of the classes; empty where the file has none.
        option: The layout as ``--layout`` names it.
        name: ``detection``.
    """

    heads: tuple[Head, ...]
    layout: Layout
    names: tuple[str, ...] = ()
    option: str = ""
    name: str = "detection"

    def metric(self, *, labelled: bool) -> str:
        """Returns what a score means."""
        return "mAP" if labelled else "mAP50 with the original"

    def check(self, outputs: Outputs, labels: Array | None, source: str) -> None:
        """Checks that labels are boxes of known classes, and that there is something to find.

        Raises:
            DataError: They are not, or the original detects nothing with confidence on any image.
        """
        if labels is None:
            Generic(self.heads[:-1]).check(outputs[:-1], None, source)
            self._check_confident(outputs[-1], source)
            return
        if labels.dtype != BOX:
            raise DataError(
                f"`data={source}`: labels of a detector must be boxes, got shape {labels.shape} {labels.dtype}",
                hint="Give COCO annotations: `data=coco:FILE@FOLDER`, or annotations.json beside the images.",
            )
        if not (labels["label"] != NOTHING).any():
            raise DataError(f"`data={source}`: an image must have a box, got none")
        n_classes, most = self.layout.n_classes, int(labels["label"].max())
        if n_classes is not None and most >= n_classes:
            raise DataError(
                f"`data={source}`: classes must be below the model's {n_classes}, got {most}",
                hint="Categories count from 0 in the order of their ids.",
            )

    def _check_confident(self, found: Array, source: str) -> None:
        if not _confident(found).any():
            best = float(found["score"].max(initial=0.0))
            raise DataError(
                f"`data={source}`: the original must detect something with a score of {CONFIDENT} or more, "
                f"got {best:.3f} at best on {len(found)} images",
                hint="Give images that show what it detects, preprocessed as it was trained (`preset`, `preprocess`); "
                "`layout=NAME` if its outputs are read wrongly, or `task=generic`.",
            )

    def truth(self, outputs: Outputs, labels: Array | None) -> Outputs:
        """Returns the labels, or the original's confident detections."""
        if labels is not None:
            return (labels,)
        found = outputs[-1].copy()
        found["label"][~_confident(found)] = NOTHING
        return (found,)

    def learns(self, labels: Array | None) -> None:
        """Returns None: the original is all there is to learn from."""
        del labels

    def figures(self, outputs: Outputs, reference: Outputs) -> tuple[dict[str, float], ...]:
        """Returns how many of the original's detections are still there, beside the detections."""
        (truth,) = self.truth(reference, None)
        nothing: tuple[dict[str, float], ...] = ({},) * (len(self.heads) - 1)
        if not (truth["label"] != NOTHING).any():
            return (*nothing, {})
        found = average_precision(outputs[-1], truth)
        return (*nothing, {"mAP50": found.half, "mAP50-95": found.mean, "found": found.recall})

    def score(self, outputs: Outputs, truth: Outputs) -> Score:
        """Returns the average precision: against labels the mean over overlaps, else at an overlap of 0.5."""
        boxes = truth[0]
        if not (boxes["label"] != NOTHING).any():
            return Score(0.0, len(boxes))
        found = average_precision(outputs[-1], boxes)
        labelled = not boxes["score"].any()  # labels have no score
        return Score(found.mean if labelled else found.half, len(boxes))


def _confident(found: Array) -> Array:
    return np.asarray((found["label"] != NOTHING) & (found["score"] >= CONFIDENT))


def make_detection(graph: ModelGraph, names: tuple[str, ...], layout: str = "auto") -> Detection:
    """Returns the task of a detector.

    Args:
        graph: The model.
        names: Its measured tensors.
        layout: Name of the layout, or ``auto``.

    Raises:
        DataError: The outputs have none of the known layouts, or not the one that is named.
    """
    read = find_layout(graph, names, layout)
    if read is None:
        wanted = f"the layout {layout!r}" if layout != "auto" else "a known layout"
        shapes = ", ".join(f"{name} {graph.shapes.get(name, '?')}" for name in names)
        raise DataError(
            f"outputs of {graph.label} must have {wanted} to be read as detections, got {shapes}",
            hint="`task=generic` compares any outputs with the original's; a task of your own reads others.",
        )
    (option, found), seen = read, Seen(graph, names)
    whole = frozenset(n for n in found.reads if _is_whole(graph, n))
    heads = _heads(seen, found, names)
    return Detection(
        (*heads, Detections("detections", weight=0.0, layout=found, whole_reads=whole)), found, seen.class_names, option
    )


def find_layout(graph: ModelGraph, names: tuple[str, ...], name: str = "auto") -> tuple[str, Layout] | None:
    """Returns how detections are read from the outputs of a model, with its name; None where no layout fits.

    Raises:
        DataError: No layout has this name.
    """
    if name != "auto" and name not in LAYOUTS:
        raise DataError(
            f"`layout` must be auto or one of {', '.join(LAYOUTS)}, got {name!r}", hint=did_you_mean(name, LAYOUTS)
        )
    seen = Seen(graph, tuple(n for n in graph.outputs if n in graph.shapes) or names)
    if not all(seen.sides):
        return None
    tried = [n for n in LAYOUTS if n not in ASKED_FOR] if name == "auto" else [name]
    return next(((n, found) for n in tried if (found := LAYOUTS[n](seen)) is not None), None)


def _is_whole(graph: ModelGraph, name: str) -> bool:
    return graph.shapes[name][:1] != (graph.batch,)


def _heads(seen: Seen, layout: Layout, names: tuple[str, ...]) -> tuple[Head, ...]:
    """Returns what is compared: the kinds of the layout, and outputs beside them such as landmarks and masks."""
    others = [n for n in names if n not in layout.reads and len(seen.graph.shapes.get(n, ())) > 1]
    blocks = [*layout.blocks(), *(Block(n, Columns(1, 0, seen.graph.shapes[n][1])) for n in others)]
    n = max(16, MAX_ENTRIES // len(blocks))
    heads = []
    for block in blocks:
        axis, start, stop = block.columns
        shape = list(seen.shape(block.tensor))
        shape[axis - 1] = stop - start
        size = math.prod(shape)
        kept = np.sort(np.random.default_rng(0).permutation(size)[:n]) if size > n else None
        whole = _is_whole(seen.graph, block.tensor)
        head = Head(block.tensor, None, kept, whole=whole, columns=block.columns, part=block.part, sure=block.sure)
        heads.append(head)
    return tuple(heads)
