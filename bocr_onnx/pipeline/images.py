"""Images for one model: preprocessing chosen or guessed, loaded, and checked against the model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx.helper import tensor_dtype_to_np_dtype

from bocr_onnx.data import (
    LazyInputs,
    Pools,
    Preprocessing,
    Samples,
    Source,
    are_boxes,
    fit_boxes,
    in_pieces,
    load_preprocessing,
    open_data,
    preset_names,
    with_pixels,
)
from bocr_onnx.errors import DataError, ModelError, did_you_mean
from bocr_onnx.graph import InputRows, ModelGraph, is_whole, row_shape, table
from bocr_onnx.runtime import predict, predict_heads
from bocr_onnx.tasks import Detection, class_names, find_task, is_own, own_pools

GUESS_IMAGES = 200
COLOURS = (1, 3)

PLAIN = ("unit", "signed")
"""Presets that say nothing of where a model comes from: tried where no other one fits."""

IMAGES_BYTES = 1 << 29
"""What one part of the images takes where nothing is said: a quarter of the default of --memory."""


@dataclass(frozen=True, slots=True)
class ModelData:
    """Where a model's images come from.

    Attributes:
        pools: What `--data` holds.
        preprocessing: From image to input.
        guessed: Whether the preset was chosen by trying them.
        pixels: Whether it is applied to columns of pixels among several inputs, too.
    """

    pools: Pools
    preprocessing: Preprocessing
    guessed: bool
    pixels: bool = False


def open_pools(task: str, source: Source) -> Pools:
    """Returns the data of a command: what a task of the user's own reads, or else what `open_data` does.

    Args:
        task: Name of the task.
        source: Where the data are.

    Raises:
        DataError: They cannot be used.
        TaskError: The task of the user's own raises.
    """
    own = own_pools(task, source) if is_own(task) else None
    return open_data(source) if own is None else own


def fit_images(
    graph: ModelGraph,
    pools: Pools,
    sample: Samples,
    preprocessing: str | None,
    *,
    any_size: bool = False,
    layout: str = "auto",
) -> ModelData:
    """Returns the pools with the preprocessing that makes them the model's input.

    Args:
        graph: The model.
        pools: What `--data` holds.
        sample: Images to try presets on; not those of the final score.
        preprocessing: A preset or a file; None tries the presets that give the model's input shape and keeps the
            one the model scores best with.
        any_size: Whether images may have other sizes along open axes than the graph was read with.
        layout: Layout of a detector, which has a preprocessing of its own.

    Raises:
        DataError: The data or the preprocessing does not fit the model.
    """
    _check_interface(graph, sample)
    if preprocessing is not None or sample.preprocessed:
        given = _sized(graph, load_preprocessing(preprocessing or "raw"), any_size)  # else inputs are fed as they are
        if not sample.preprocessed:
            _check_pixels(graph, given, sample)
        return ModelData(pools, given, guessed=False, pixels=preprocessing is not None)
    sample = sample.take(np.arange(min(len(sample), GUESS_IMAGES)))
    usual = _usual(graph, sample, layout)
    fitting, misfits = _try_presets(graph, sample, pools.path, any_size=any_size, letterbox=bool(usual))
    if not fitting:
        free = graph.symbolic.get(graph.inputs[0], ()) if any_size else ()
        raise DataError(
            f"`data={pools.path}`: no preset turns its images into the model's input "
            f"{_wanted(graph, graph.inputs[0], free)}: {misfits}",
            hint="Describe the preprocessing in a file: `preprocess=FILE` (see calibration/README.md).",
        )
    if usual and not pools.labelled:
        fitting = [p for p in fitting if p.name == usual] or fitting
    if len(fitting) > 1 and not pools.labelled:
        raise DataError(
            f"`data={pools.path}` has no labels, so the preprocessing cannot be guessed among "
            f"{', '.join(p.name for p in fitting)}",
            hint=f"Name it: `preset={fitting[0].name}`",
        )
    best = max(fitting, key=lambda p: _accuracy(graph, sample, p, layout)) if len(fitting) > 1 else fitting[0]
    return ModelData(pools, best, guessed=True)


def _try_presets(
    graph: ModelGraph, sample: Samples, path: str, *, any_size: bool, letterbox: bool
) -> tuple[list[Preprocessing], str]:
    """Returns the presets that give the model's input, of the letterboxes or of the others, and why others do not."""
    fitting: list[Preprocessing] = []
    misfits: list[str] = []
    for name in sorted(preset_names(), key=lambda name: name.startswith(PLAIN)):
        if fitting and name.startswith(PLAIN):
            break
        preset = load_preprocessing(name)
        if (preset.pad is not None) != letterbox:
            continue
        preset = _sized(graph, preset, any_size)
        if preset.keeps_pixels != _is_integer(graph) and not (letterbox and preset.keeps_pixels):
            continue  # a detector may read pixels as floating-point numbers
        try:
            image = as_input(graph, sample.take([0]).load(preset))
            check_shape(graph, image, path, any_size=any_size)
            if any_size:
                predict(graph, graph.proto, image)
        except (DataError, ModelError) as error:
            misfits.append(f"{name}: {error.message}")
        else:
            fitting.append(preset)
    return fitting, "; ".join(misfits)


def _accuracy(graph: ModelGraph, sample: Samples, preprocessing: Preprocessing, layout: str) -> float:
    sample = fit_boxes(sample, preprocessing, class_names(graph))
    task = find_task(graph, labels=sample.labels, layout=layout)
    outputs = predict_heads(graph, graph.proto, as_input(graph, sample.load(preprocessing)), task.heads)
    task.check(outputs, sample.labels, sample.name)
    return task.score(outputs, task.truth(outputs, sample.labels)).value


def _usual(graph: ModelGraph, sample: Samples, layout: str) -> str:
    """Returns the preset that detectors of a layout are usually trained with; empty where the model is none."""
    if sample.labels is not None and not are_boxes(sample.labels):
        return ""
    task = find_task(graph, layout=layout)
    return task.layout.preset if isinstance(task, Detection) else ""


def _sized(graph: ModelGraph, preprocessing: Preprocessing, any_size: bool) -> Preprocessing:
    """Returns a preprocessing with the size of the model's input, where it leaves that to the model."""
    name = graph.inputs[0]
    shape = graph.shapes.get(name, ())
    if preprocessing.pad != "input" or len(shape) != 4 or (any_size and set(graph.symbolic.get(name, ())) - {0}):
        return preprocessing
    if shape[3] in COLOURS and shape[1] not in COLOURS:
        return preprocessing.fitted(shape[1], shape[2], "NHWC")
    return preprocessing.fitted(shape[2], shape[3], "NCHW")


def load_images(graph: ModelGraph, data: ModelData, samples: Samples, memory_bytes: int = IMAGES_BYTES) -> InputRows:
    """Returns preprocessed images that fit the model, in the element type of its input, first axis the images.

    Raises:
        DataError: An image cannot be read, or its shape is not the model's.
    """
    images = samples.open(data.preprocessing, memory_bytes)
    if data.pixels and isinstance(images, np.ndarray) and images.dtype.names:
        images = with_pixels(images, data.preprocessing)
    check_shape(graph, images, data.pools.path)
    return as_input(graph, images)


def as_input(graph: ModelGraph, images: InputRows) -> InputRows:
    """Returns images in the element type of the model's input; integers are rounded.

    Raises:
        DataError: A value is out of the range of an integer type.
    """
    names = getattr(getattr(images, "dtype", None), "names", None)
    if names:
        return table({name: np.asarray(_as_one(graph, name, images[name])) for name in graph.inputs})
    return _as_one(graph, graph.inputs[0], images)


def _as_one(graph: ModelGraph, name: str, images: InputRows) -> InputRows:
    dtype = _input_type(graph, name)
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        least = min(float(np.rint(piece).min()) for piece in in_pieces(images))
        most = max(float(np.rint(piece).max()) for piece in in_pieces(images))
        if least < limits.min or most > limits.max:
            raise DataError(
                f"images must fit {dtype} input {name!r} of {graph.label}, {limits.min} to {limits.max}, "
                f"got {least:g} to {most:g}",
                hint="Shift the pixels in a preprocessing file: mean = [128, 128, 128] for int8.",
            )
    if isinstance(images, LazyInputs):
        return images.cast(dtype)
    array = np.asarray(images)
    return (np.rint(array) if dtype.kind in "iu" else array).astype(dtype, copy=False)


def _input_type(graph: ModelGraph, name: str = "") -> np.dtype[Any]:
    return np.dtype(tensor_dtype_to_np_dtype(graph.dtypes[name or graph.inputs[0]]))


def _is_integer(graph: ModelGraph) -> bool:
    return _input_type(graph).kind in "iu"


def _check_pixels(graph: ModelGraph, preprocessing: Preprocessing, sample: Samples) -> None:
    if preprocessing.dtype not in ("float32", _input_type(graph).name):
        raise DataError(
            f"dtype of preprocessing {preprocessing.name} must be that of input {graph.inputs[0]!r} of {graph.label}, "
            f"{_input_type(graph)}, got {preprocessing.dtype}",
            hint="Leave dtype out: images are fed in the input's own type.",
        )
    if _is_integer(graph) and not preprocessing.keeps_pixels and not sample.preprocessed:
        raise DataError(
            f"preprocessing {preprocessing.name} must keep the pixels for the {_input_type(graph)} input "
            f"{graph.inputs[0]!r} of {graph.label}, got scale {preprocessing.scale}, mean {preprocessing.mean} "
            f"and std {preprocessing.std}",
            hint="`preset=raw`, raw-nhwc, or a file with scale = 1, mean of 0 and std of 1.",
        )


def check_chance(data: ModelData, accuracy: float, n_images: int, chance: float) -> None:
    """Stops where the original does no better than guessing: then the preprocessing or the labels are wrong.

    Raises:
        DataError: The accuracy lies within three standard errors of chance, or below twice chance.
    """
    noise = (chance * (1 - chance) / n_images) ** 0.5
    if data.pools.labelled and accuracy < min(max(2 * chance, chance + 3 * noise), 0.9):
        raise DataError(
            f"the original must do better than guessing on `data={data.pools.path}`, got {accuracy:.1%} on "
            f"{n_images} images, by guessing {chance:.1%} (preprocessing {data.preprocessing.name!r})",
            hint="Is the preprocessing right (`preset`, `preprocess`), and are the classes in the model's order?",
        )


def _check_interface(graph: ModelGraph, sample: Samples) -> None:
    names = None if isinstance(sample.images, tuple) else sample.images.dtype.names
    if names is not None:
        for name in graph.inputs:
            if name not in names:
                raise DataError(
                    f"{sample.name} must hold an array for every input of {graph.label}, got none for {name!r}",
                    hint=did_you_mean(name, names),
                )
        for name in names:
            if name not in graph.inputs:
                raise DataError(
                    f"{sample.name}: array {name!r} must be named like an input of {graph.label}",
                    hint=f"{did_you_mean(name, graph.inputs)} Images of a single input are in the column path.",
                )
    elif len(graph.inputs) != 1 or graph.inputs[0] not in graph.shapes:
        raise DataError(
            f"{graph.label} must have one input to be fed images, got {list(graph.inputs)}",
            hint="Give an .npz with an array for each input, named like it; `search=uniform` needs no data.",
        )
    for name in graph.inputs:
        shape = graph.shapes[name]
        if not (is_whole(graph, name) or graph.batch_is_symbolic() or shape[:1] == (graph.batch,)):
            raise DataError(
                f"{graph.label}: input {name!r} must have the images along its first axis, and the outputs too, "
                f"got input shape {shape}",
                hint="`search=uniform` needs no data.",
            )


def check_shape(graph: ModelGraph, images: InputRows, path: str, *, any_size: bool = False) -> None:
    """Checks that images are the model's input.

    Args:
        graph: The model.
        images: Preprocessed, first axis the images.
        path: Where they come from, for messages.
        any_size: Whether they may have other sizes along open axes than the graph was read with.

    Raises:
        DataError: They have another shape.
    """
    names = getattr(getattr(images, "dtype", None), "names", None)
    for name in names or graph.inputs[:1]:
        _check_one(graph, name, images[name].shape if names else images.shape, path, any_size=any_size)


def _check_one(graph: ModelGraph, name: str, got: tuple[int, ...], path: str, *, any_size: bool) -> None:
    wanted = (len(graph.shapes[name]), *row_shape(graph, name))
    free = graph.symbolic.get(name, ()) if any_size else ()
    fits = len(got) == len(wanted) and all(
        axis == 0 or axis in free or a == b for axis, (a, b) in enumerate(zip(got, wanted, strict=True))
    )
    if not fits:
        raise DataError(
            f"`data={path}`: images must become the model's input {_wanted(graph, name, free)}, "
            f"got {tuple(got[1:])} per image",
            hint="Choose a preprocessing that resizes and crops: `preset=NAME` or `preprocess=FILE`.",
        )


def _wanted(graph: ModelGraph, name: str, free: tuple[int, ...] = ()) -> str:
    dims = ["?" if axis in free else str(n) for axis, n in enumerate(row_shape(graph, name), start=1)]
    return f"{name!r} ({', '.join(dims)})"
