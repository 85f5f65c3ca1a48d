"""The first stages, which all budgets of a model share: images, calibration, and the scorer of policies."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np

from bocr_onnx.data import Pools, fit_split, in_pieces, split
from bocr_onnx.graph import ModelGraph
from bocr_onnx.options import PruneOptions, QuantizeOptions
from bocr_onnx.pipeline.images import check_chance, fit_images, load_images
from bocr_onnx.pipeline.run import Images, Run
from bocr_onnx.progress import Silent
from bocr_onnx.recovery import Calibration, PolicyScorer, calibrate, weigh_curves
from bocr_onnx.runtime import predict_heads
from bocr_onnx.tasks import Classification, chance, class_names, compared, described, find_task

SCORING = 2
"""Changes whenever the same policy on the same images would get another objective."""


RECOVERY_SHARE, IMAGES_SHARE = 0.6, 0.08
"""Shares of `--memory`: the activations of the sequential recovery; each of the three parts of the images, two of which
are copied when they are joined."""


INFERRED = " (inferred; name another with `task`)"


def measure(run: Run) -> Run:
    """Returns the run with the measurements of its original, and with the scorer of policies where there are images."""
    images = run.images
    if images is None:
        return replace(run, calibration=calibrate(run.index, None, seed=run.options.seed))
    with run.progress.task("Measuring the original on recovery images") as update:
        calibration = calibrate(run.index, images.recovery, seed=run.options.seed, progress=update)
        memory = int(RECOVERY_SHARE * run.options.memory_bytes)
        calibration = replace(calibration, memory_bytes=memory, heads=compared(images.task.heads))
    with run.progress.task("Scanning sensitivity of groups") as update:
        calibration = weigh_curves(calibration, images.score, progress=update)
    return replace(run, calibration=calibration, scorer=_scorer(run, calibration, images))


def digest_of(images: Images) -> str:
    """Returns the digest of everything that decides how a policy scores, except the model and its recovery."""
    digest = hashlib.sha256(f"scoring {SCORING}".encode())
    for part in (images.score, images.recovery):
        for piece in in_pieces(part):
            digest.update(np.ascontiguousarray(piece).tobytes())
    return digest.hexdigest()


def load(run: Run) -> Run:
    """Returns the run with its images; as it is without data."""
    return run if run.pools is None else replace(run, images=open_images(run.graph, run.pools, run.options))


def open_images(graph: ModelGraph, pools: Pools, options: PruneOptions | QuantizeOptions) -> Images:
    """Returns images, divided, loaded and checked against the model, and the model's score on the unseen ones.

    Args:
        graph: The model.
        pools: What `--data` holds.
        options: Say how they become inputs, how many serve for what, and the task.

    Raises:
        DataError: Images or labels are not what the model and its task take.
    """
    progress = options.progress or Silent()
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


def _scorer(run: Run, calibration: Calibration, images: Images) -> PolicyScorer:
    task, labels = images.task, images.split.score.labels
    with run.progress.task("Scoring the original on search images") as update:
        reference = predict_heads(run.graph, run.graph.proto, images.score, task.heads, progress=update)
    task.check(reference, labels, images.data.pools.path)
    return PolicyScorer(calibration, images.score, task, task.truth(reference, labels), reference)
