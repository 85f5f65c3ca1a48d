"""The one door for data: what a user names with ``--data`` becomes pools of samples."""

from __future__ import annotations

from pathlib import Path

from bocr_onnx.data.arrays import TORCHVISION, open_npz, open_torchvision
from bocr_onnx.data.folders import open_folder
from bocr_onnx.data.samples import Pools
from bocr_onnx.errors import DataError

_FORMS = "Data is a folder of images, an .npz file, or torchvision:NAME@ROOT; see calibration/README.md."


def open_data(path: str | Path) -> Pools:
    """Returns the pools of a data source; images in files are not decoded yet.

    Args:
        path: A folder (see `open_folder`), an .npz file (see `open_npz`) or ``torchvision:NAME@ROOT`` (see
            `open_torchvision`).

    Raises:
        DataError: The path is missing or of another kind, or what it holds cannot be used.
    """
    text = str(path)
    if text.startswith(TORCHVISION):
        return open_torchvision(text)
    source = Path(path)
    if source.is_dir():
        return open_folder(source)
    if not source.exists():
        raise DataError(f"data must exist, {text!r} does not", hint=_FORMS)
    if source.suffix.lower() == ".npz":
        return open_npz(source)
    raise DataError(f"data must be a folder or an .npz file, got {text!r}", hint=_FORMS)
