"""A model for phones, on its own."""

from __future__ import annotations

from pathlib import Path

from bocr_onnx.errors import UsageError
from bocr_onnx.options import MobileOptions, keywords
from bocr_onnx.pipeline.mobile import Mobile, emit_mobile
from bocr_onnx.pipeline.model import read_model
from bocr_onnx.pipeline.places import mobile_of
from bocr_onnx.progress import shown


@keywords(MobileOptions)
def mobile(options: MobileOptions) -> Mobile:
    """Writes a model as .ort, for ONNX Runtime Mobile, and says what NNAPI and CoreML would run of it.

    Args: from the record.

    Raises:
        BocrError: The model cannot be used or converted, or the folder cannot be written.

    Example:
        >>> from importlib.resources import files
        >>> folder, place = files("bocr_onnx.calibration"), __import__("tempfile").mkdtemp()
        >>> found = mobile(str(folder / "demo.onnx"), output=place)
        >>> [one.provider for one in found.partitions], found.largest_error < 1e-5
        (['NNAPI', 'CoreML'], True)
    """
    progress = shown(options.progress)
    graph = read_model(options.model, options.input_shapes, note=progress.note)
    path = graph.path
    if path is None and options.output is None:
        raise UsageError("`output` must be given for a model in memory")
    name = "model" if path is None else path.stem
    folder = Path(options.output) if options.output is not None else mobile_of(path or Path(name))
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"`output` must be a folder, got the file {folder}")
    with progress.task("Converting") as update:
        found = emit_mobile(graph.proto, graph, folder, name, options.platform, fixed=options.fix_shape)
        update(1, 1)
    return found
