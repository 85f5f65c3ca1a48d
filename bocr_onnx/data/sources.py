"""The one door for data: what a user names with `data` becomes pools of samples."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from bocr_onnx.data.arrays import TORCHVISION, Array, open_arrays, open_npy, open_npz, open_torchvision
from bocr_onnx.data.coco import BESIDE, COCO, open_coco
from bocr_onnx.data.folders import open_folder
from bocr_onnx.data.samples import Pools
from bocr_onnx.errors import DataError

Inputs = Array | Mapping[str, Array]
Source = str | Path | Inputs | tuple[Inputs, Array]
"""The name of a source, or images (inputs by name) in memory, alone or with labels."""

_FORMS = (
    "Data is a folder of images, an .npz or .npy file, coco:FILE@FOLDER or torchvision:NAME@ROOT; "
    "see calibration/README.md."
)


def open_data(source: Source) -> Pools:
    """Returns the pools of a data source; images in files are not decoded yet.

    Args:
        source: A folder (see `open_folder`), an .npz file (see `open_npz`), ``torchvision:NAME@ROOT`` (see
            `open_torchvision`), or images in memory, alone or with labels (see `Samples`).

    Raises:
        DataError: The path is missing or of another kind, or what it holds cannot be used.
    """
    if not isinstance(source, (str, Path)):
        return open_arrays(*source) if isinstance(source, tuple) else open_arrays(source)
    text = str(source)
    if text.startswith(TORCHVISION):
        return open_torchvision(text)
    if text.startswith(COCO):
        file, at, folder = text.removeprefix(COCO).partition("@")
        return open_coco(Path(file), Path(folder) if at else Path(file).parent, text)
    path = Path(source)
    beside = next((path / name for name in BESIDE if (path / name).is_file()), None)
    if beside is not None:
        return open_coco(beside, path, text)
    if path.is_dir():
        return open_folder(path)
    if not path.exists():
        raise DataError(f"data must exist, {text!r} does not", hint=_FORMS)
    if path.suffix.lower() == ".npy":
        return open_npy(path)
    if path.suffix.lower() == ".npz":
        return open_npz(path)
    raise DataError(f"data must be a folder, an .npz or an .npy file, got {text!r}", hint=_FORMS)
