"""Images, divided, loaded and checked against their model: what every run on data begins with."""

from __future__ import annotations

from dataclasses import dataclass

from bocr_onnx.data import Pools, Split, fit_split, split
from bocr_onnx.graph import InputRows, ModelGraph
from bocr_onnx.options import PruneOptions, QuantizeOptions
from bocr_onnx.pipeline.images import ModelData, check_chance, fit_images, load_images
from bocr_onnx.progress import shown
from bocr_onnx.runtime import Outputs, predict_heads
from bocr_onnx.tasks import Classification, Task, chance, class_names, described, find_task

IMAGES_SHARE = 0.08
"""Share of `--memory` for each of the three parts of the images, two of which are copied when they are joined."""

INFERRED = " (inferred; name another with `task`)"


@dataclass(frozen=True, slots=True)
class Images:
    """Data, split and loaded.

    Attributes:
        data: Where they come from.
        split: Which of them serve for what.
        score: For the search.
        recovery: For the recovery.
        final: Seen by nothing but the figures of the report.
        task: What a score means.
        final_reference: The original's outputs on the final images.
        final_truth: What is scored against on them.
        baseline: Score of the original on them.
    """

    data: ModelData
    split: Split
    score: InputRows
    recovery: InputRows
    final: InputRows
    task: Task
    final_reference: Outputs
    final_truth: Outputs
    baseline: float

    @property
    def metric(self) -> str:
        """Returns what a score means."""
        return self.task.metric(labelled=self.split.final.labels is not None)


def load_parts(graph: ModelGraph, pools: Pools, options: PruneOptions | QuantizeOptions) -> Images:
    """Returns images, divided, loaded and checked against the model, and the model's score on the unseen ones.

    Args:
        graph: The model.
        pools: What `--data` holds.
        options: Say how they become inputs, how many serve for what, and the task.

    Raises:
        DataError: Images or labels are not what the model and its task take.
    """
    progress = shown(options.progress)
    parts = split(pools, seed=options.seed, **options.n_images)
    data = fit_images(graph, pools, parts.score, options.preprocessing, layout=options.layout)
    if data.guessed:
        progress.note(f"preprocessing: {data.preprocessing.name} (the best fit; name it with `preset`)")
    parts = fit_split(parts, data.preprocessing, class_names(graph))
    with progress.task("Loading images") as update:
        loaded = []
        for i, samples in enumerate((parts.score, parts.recovery, parts.final)):
            loaded.append(load_images(graph, data, samples, int(IMAGES_SHARE * options.memory_bytes)))
            update(i + 1, 3)
    score, recovery, final = loaded
    task = find_task(graph, options.task, parts.final.labels, options.output_weights, options.layout)
    progress.note(f"task: {described(task)}{INFERRED if options.task == 'auto' else ''}")
    with progress.task("Scoring the original on unseen images") as update:
        outputs = predict_heads(graph, graph.proto, final, task.heads, progress=update)
    task.check(outputs, parts.final.labels, pools.path)
    truth = task.truth(outputs, parts.final.labels)
    baseline = task.score(outputs, truth).value
    if isinstance(task, Classification):
        check_chance(data, baseline, len(final), chance(task, outputs))
    return Images(data, parts, score, recovery, final, task, outputs, truth, baseline)
