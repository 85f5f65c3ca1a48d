"""Some unseen images with what the original and the slim model find on them, side by side, for people to look at."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
from onnx import ModelProto
from PIL import Image

from bocr_onnx.data import Preprocessing
from bocr_onnx.graph import Array
from bocr_onnx.pipeline.run import Run
from bocr_onnx.runtime import Outputs, predict_heads
from bocr_onnx.tasks import Task, drawn, is_drawn
from bocr_onnx.tasks.segmentation import Segmentation

N_EXAMPLES, SIDE, GAP = 3, 320, 8
"""How many; the longer side of each picture and the gap between two, in pixels."""


def examples(run: Run) -> tuple[Image.Image, ...]:
    """Returns pictures of the original's findings on the left and the slim model's on the right.

    There are none where nothing can be drawn: of other tasks than detection and segmentation, of models that read more
    than one image, and of images that are not grey or coloured ones.
    """
    images, slim = run.images, run.slim
    if images is None or slim is None or not is_drawn(images.task) or len(run.graph.inputs) != 1:
        return ()
    inputs = images.final[:N_EXAMPLES]
    preprocessing = images.data.preprocessing
    if not isinstance(inputs, np.ndarray) or inputs.ndim != 4 or not _is_picture(inputs, preprocessing):
        return ()
    pictures = [pictured(one, preprocessing) for one in inputs]
    sides = [_found(run, images.task, proto, inputs) for proto in (run.graph.proto, slim.proto)]
    if isinstance(images.task, Segmentation) and sides[0].ndim != 4:
        return ()
    return tuple(
        _pair([drawn(images.task, picture, side[i], SIDE) for side in sides]) for i, picture in enumerate(pictures)
    )


def _is_picture(inputs: Array, preprocessing: Preprocessing) -> bool:
    """Returns whether images have one channel or three, and as many factors or one for all."""
    n_channels = inputs.shape[3 if preprocessing.layout == "NHWC" else 1]
    return n_channels in (1, 3) and len(preprocessing.std) in (1, n_channels)


def pictured(image: Array, preprocessing: Preprocessing) -> npt.NDArray[np.uint8]:
    """Returns a preprocessed image as a picture again, shape `(height, width, 3)`: its pixels, rounded.

    Args:
        image: Shape `(channels, height, width)`, or channels last, as the preprocessing says.
        preprocessing: What it went through.
    """
    planes = image if preprocessing.layout == "NHWC" else np.moveaxis(image, 0, -1)
    pixels = (
        planes.astype(np.float64) * np.array(preprocessing.std) + np.array(preprocessing.mean)
    ) / preprocessing.scale
    if preprocessing.channels == "BGR":
        pixels = pixels[..., ::-1]
    whole = np.nan_to_num(np.repeat(pixels, 3 // pixels.shape[-1], axis=-1))
    return np.asarray(whole.round().clip(0, 255), dtype=np.uint8)


def _found(run: Run, task: Task, proto: ModelProto, inputs: Array) -> Array:
    """Returns what is drawn of every image: the last head, which tells detections, with all its positions."""
    head = replace(task.heads[-1], positions=None)
    outputs: Outputs = predict_heads(run.graph, proto, inputs, (head,))
    return outputs[0]


def _pair(sides: list[Image.Image]) -> Image.Image:
    left, right = sides
    both = Image.new("RGB", (left.width + GAP + right.width, left.height), "white")
    both.paste(left, (0, 0))
    both.paste(right, (left.width + GAP, 0))
    return both
