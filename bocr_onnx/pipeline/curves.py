"""Curves of a training for TensorBoard, where they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from bocr_onnx.errors import UsageError

Curves = Callable[[int, Mapping[str, float]], None]
"""Takes named values at a step."""


@contextmanager
def open_curves(folder: Path | None) -> Iterator[Curves]:
    """Yields what takes the curves; nothing is written if there is no folder.

    Raises:
        UsageError: TensorBoard is not installed.
    """
    if folder is None:
        yield lambda step, values: None
        return
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise UsageError(
            "`tensorboard` must have TensorBoard installed, got none",
            hint="Try: pip install 'bocr-onnx[tensorboard]'",
        ) from error
    writer = SummaryWriter(str(folder))

    def write(step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            writer.add_scalar(name, value, step)

    try:
        yield write
    finally:
        writer.close()
