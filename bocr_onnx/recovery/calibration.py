"""Everything recovery needs, collected once on the original; a trial is arithmetic and one evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from onnx import ModelProto

from bocr_onnx.graph import Array, InputRows, ModelGraph, Operand
from bocr_onnx.groups import GroupIndex
from bocr_onnx.options import Recovery
from bocr_onnx.recovery.blas import one_thread
from bocr_onnx.recovery.importance import collect_energies
from bocr_onnx.recovery.moments import Moments, collect_moments
from bocr_onnx.recovery.oneshot import fit_targets, recover_oneshot
from bocr_onnx.recovery.patches import Affine, Floats, find_affines, is_refitted
from bocr_onnx.recovery.sensitivity import Sensitivity, scan_sensitivity
from bocr_onnx.recovery.sequential import MEMORY_BYTES, recover_sequential
from bocr_onnx.recovery.statistics import Statistics, output_statistics, restore_statistics
from bocr_onnx.runtime import Head, Outputs, Progress, predict_heads
from bocr_onnx.slimming import Mask, cut
from bocr_onnx.tasks import total_distortion

Weights = dict[Operand, Array]

N_STATISTICS = 200
"""Images whose batch statistics are taken per trial."""

N_SCAN = 200
"""Images of the sensitivity scan."""

SCAN_RATIOS = (0.5, 0.75)
"""Keep ratios at which each group is cut alone."""

MAX_BEND = 10.0
"""The two factors of a group differ by this at most; beyond it the smaller distortion is rounding."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """A model, its groups, and what was measured on images without labels.

    Attributes:
        index: Groups of the original.
        affines: Its weighted operators.
        moments: Moments of their inputs, by node index, shrunk; empty without images.
        targets: C W^T, by node index.
        statistics: Statistics of convolution outputs, by node index.
        sensitivity: Ranking and error curve of every group.
        images: Preprocessed recovery images, `(n, ...)`, float32, or None.
        seed: Seed for all random draws.
        memory_bytes: What activations of the sequential recovery may take.
        heads: Tensors that the model is measured at; the first output where empty.
    """

    index: GroupIndex
    affines: tuple[Affine, ...]
    moments: Mapping[int, Moments]
    targets: Mapping[int, Floats]
    statistics: Mapping[int, Statistics]
    sensitivity: Sensitivity
    images: InputRows | None
    seed: int
    memory_bytes: int = MEMORY_BYTES
    heads: tuple[Head, ...] = ()

    @property
    def graph(self) -> ModelGraph:
        """Returns the original."""
        return self.index.graph

    def predict(self, model: ModelProto, images: InputRows) -> Outputs:
        """Returns the tensors that the model is measured at, of it or of a slim model of it."""
        return predict_heads(self.graph, model, images, self.heads or (Head(self.graph.outputs[0]),))

    def mask(self, widths: npt.NDArray[np.int64]) -> Mask:
        """Returns the mask that keeps the highest ranked channels of every group.

        Args:
            widths: Kept channels per group, shape `(n_groups,)`.
        """
        mask = np.zeros(self.index.n_channels, dtype=bool)
        for group, order, width in zip(self.index.groups, self.sensitivity.ranked, widths, strict=True):
            mask[group.start + order[: int(width)]] = True
        return mask

    def fit(self, mask: Mask) -> Weights:
        """Returns the weights of the closed-form fit alone, in slim shape."""
        with one_thread():
            return recover_oneshot(self.index, self.affines, self.moments, self.targets, mask)

    def recover(self, mask: Mask, recovery: Recovery, progress: Progress | None = None) -> Weights:
        """Returns the weights of the slim model after recovery, in slim shape.

        Args:
            mask: Which channels stay.
            recovery: ``none``, ``oneshot`` (closed form, then statistics; for trials) or ``sequential``.
            progress: Told after each node of the sequential recovery.
        """
        if recovery == "none" or self.images is None:
            return {}
        if recovery == "sequential":
            return recover_sequential(
                self.index,
                self.affines,
                mask,
                self.images,
                start=self.fit(mask),
                seed=self.seed,
                memory_bytes=self.memory_bytes,
                progress=progress,
            )
        return self.rescale(mask, self.fit(mask))

    def rescale(self, mask: Mask, weights: Weights) -> Weights:
        """Returns weights with the original's statistics of channels restored, in slim shape; as they are if it cannot.

        Args:
            mask: Which channels stay.
            weights: Weights of the slim model that differ from the cut originals.
        """
        if self.images is None or not self.graph.batch_is_symbolic() or not self.statistics:
            return weights
        batch = self.images[:N_STATISTICS]
        return restore_statistics(self.index, self.affines, self.statistics, mask, weights, batch)


def calibrate(
    index: GroupIndex,
    images: InputRows | None,
    *,
    seed: int = 0,
    progress: Progress | None = None,
) -> Calibration:
    """Returns the calibration of a model.

    Args:
        index: Groups of the model.
        images: Preprocessed recovery images, or None: then channels are ranked by the norm of their weights.
        seed: Seed for the positions drawn.
        progress: Told after each batch.
    """
    graph = index.graph
    affines = find_affines(index)
    found = {} if images is None else collect_moments(graph, affines, images, seed=seed, progress=progress)
    moments = {index: known.shrunk() for index, known in found.items()}
    refitted = {a.node.index for a in affines if is_refitted(a) and a.node.index in moments}
    seen = None if images is None else images[:N_SCAN]
    energies = collect_energies(index, seen, without=refitted)
    with one_thread():
        sensitivity = scan_sensitivity(index, affines, moments, energies)
    return Calibration(
        index=index,
        affines=affines,
        moments=moments,
        targets=fit_targets(graph, affines, moments),
        statistics=output_statistics(graph, affines, found),
        sensitivity=sensitivity,
        images=images,
        seed=seed,
    )


def weigh_curves(calibration: Calibration, images: InputRows, *, progress: Progress | None = None) -> Calibration:
    """Returns the calibration with every error curve scaled to what the group does to the model's output.

    The closed form knows a group's error at its consumers, not how far it travels. So every group is cut alone, to
    half and to three quarters, recovered in one shot, and its curve is scaled to the distortion of the output that
    causes; between and beyond the two the factor is interpolated geometrically. Statistics are not restored here:
    their sampling noise would drown groups that hardly matter. On the images of the fit themselves, a group of many
    channels and few positions seems to matter little, however much it does.

    Args:
        calibration: With images.
        images: Preprocessed images to measure on, of which the fit has seen none.
        progress: Told after each group.
    """
    if calibration.images is None:
        return calibration
    seen = images[:N_SCAN]
    reference = calibration.predict(calibration.graph.proto, seen)
    curves = []
    for i, curve in enumerate(calibration.sensitivity.curves):
        factors = [_travel(calibration, i, ratio, seen, reference) for ratio in SCAN_RATIOS]
        factors[1] = float(np.clip(factors[1], factors[0] / MAX_BEND, factors[0] * MAX_BEND))
        ratios = np.arange(len(curve)) / (len(curve) - 1)
        scaled = curve * np.exp(np.interp(ratios, SCAN_RATIOS, np.log(factors)))
        curves.append(np.maximum.accumulate(scaled[::-1])[::-1])
        if progress:
            progress(i + 1, len(calibration.index.groups))
    return replace(calibration, sensitivity=replace(calibration.sensitivity, curves=tuple(curves)))


def _travel(calibration: Calibration, group: int, ratio: float, images: Array, reference: Outputs) -> float:
    """Returns the distortion of the output per unit of error at the consumers, when one group is cut alone."""
    index = calibration.index
    widths = np.array([g.n_channels for g in index.groups], dtype=np.int64)
    widths[group] = max(1, round(ratio * float(widths[group])))
    mask = calibration.mask(widths)
    outputs = calibration.predict(cut(index, mask, calibration.fit(mask)), images)
    error = float(calibration.sensitivity.curves[group][widths[group]])
    return max(total_distortion(outputs, reference, calibration.heads), 1e-9) / max(error, 1e-9)
