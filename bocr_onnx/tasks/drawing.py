"""What a model finds on an image, drawn onto it: boxes of a detector, classes of a segmenter."""

from __future__ import annotations

import colorsys

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from bocr_onnx.data import NOTHING
from bocr_onnx.graph import Array
from bocr_onnx.tasks.detection import CONFIDENT, Detection
from bocr_onnx.tasks.segmentation import UNLABELLED, Segmentation
from bocr_onnx.tasks.task import Task

GOLDEN = 0.618
"""Turn of the colour wheel from one class to the next."""

OPACITY = 0.55


def is_drawn(task: Task) -> bool:
    """Returns whether what a task finds can be drawn."""
    return isinstance(task, (Detection, Segmentation))


def drawn(task: Task, picture: npt.NDArray[np.uint8], output: Array, side: int) -> Image.Image:
    """Returns a picture with what was found on it.

    Args:
        task: A task that is drawn.
        picture: Shape `(height, width, 3)`, as the model sees it.
        output: `BOX` of a detector, shape `(n_boxes,)`, or scores of a segmenter, shape `(n_classes, h, w)`.
        side: Longer side of what is returned, in pixels.
    """
    scale = side / max(picture.shape[:2])
    height, width = (max(1, round(n * scale)) for n in picture.shape[:2])
    image = Image.fromarray(picture).resize((width, height))
    if isinstance(task, Detection):
        return _with_boxes(image, output, task.names, scale)
    assert isinstance(task, Segmentation)
    return _with_classes(image, task.classes(output[None]).reshape(output.shape[1:]))


def colour(number: int) -> tuple[int, int, int]:
    """Returns the colour of a class; neighbours in number are far apart."""
    red, green, blue = colorsys.hsv_to_rgb((number * GOLDEN) % 1, 0.85, 0.95)
    return round(255 * red), round(255 * green), round(255 * blue)


def _with_boxes(image: Image.Image, boxes: Array, names: tuple[str, ...], scale: float) -> Image.Image:
    pen = ImageDraw.Draw(image)
    for one in boxes[(boxes["label"] != NOTHING) & (boxes["score"] >= CONFIDENT)]:
        number = int(one["label"])
        x1, y1, x2, y2 = (scale * float(value) for value in np.nan_to_num(one["box"]))
        name = names[number] if number < len(names) else str(number)
        pen.rectangle((min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)), outline=colour(number), width=2)
        pen.text(
            (x1 + 3, y1 + 1), f"{name}: {one['score']:.2f}", fill=colour(number), stroke_width=1, stroke_fill="black"
        )
    return image


def _with_classes(image: Image.Image, classes: npt.NDArray[np.int64]) -> Image.Image:
    palette = np.array([(0, 0, 0), *(colour(number) for number in range(1, UNLABELLED + 1))], dtype=np.uint8)
    painted = Image.fromarray(palette[np.clip(classes, 0, UNLABELLED)])
    return Image.blend(image, painted.resize(image.size, Image.Resampling.NEAREST), OPACITY)
