"""The road to PyTorch and back: a file becomes a module, its trained weights become a file of the same graph."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from bocr_onnx.errors import TrainingError, UsageError
from bocr_onnx.graph import check_writable, save
from bocr_onnx.pipeline.model import read_model

if TYPE_CHECKING:
    from onnx import ModelProto

    from bocr_onnx.training import OnnxModule


def to_torch(model: str | Path | ModelProto) -> OnnxModule:
    """Returns a `torch.nn.Module` that computes what a file says and whose weights train.

    Parameters and buffers have the names of the file. Calling it takes the inputs in the order of the graph and returns
    its outputs as a tuple. In training mode norms take the statistics of the batch, and dropout is on.

    Args:
        model: An .onnx file, or a model in memory.

    Raises:
        ModelError: The file cannot be used.
        TrainingError: The model has an operator without a function in torch.

    Example:
        >>> from importlib.resources import files
        >>> import torch
        >>> module = to_torch(str(files("bocr_onnx.calibration") / "demo.onnx"))
        >>> (logits,) = module.eval()(torch.zeros(2, 1, 8, 8))
        >>> tuple(logits.shape), next(iter(module.state_dict()))
        ((2, 10), 'features.0.0.weight')
    """
    from bocr_onnx.training import OnnxModule

    return OnnxModule(read_model(model))


def to_onnx(module: Any, output: str | Path | None = None) -> ModelProto:
    """Returns the model of a module from `to_torch`: the same graph, with the weights that the module has now.

    What did not change keeps its bits.

    Args:
        module: From `to_torch`, on any device; a compiled module stands for the one that was compiled.
        output: Where the file is written; nowhere if None.

    Raises:
        OutputError: The file cannot be written.
        TrainingError: A weight is not a finite number.
        UsageError: It is another module, or the file would be the original.

    Example:
        >>> from importlib.resources import files
        >>> import torch
        >>> demo = str(files("bocr_onnx.calibration") / "demo.onnx")
        >>> module = to_torch(demo)
        >>> with torch.no_grad():
        ...     _ = module.classify.bias.add_(1)
        >>> changed = to_onnx(module)
        >>> len(changed.graph.node) == len(module.graph.proto.graph.node)
        True
    """
    from bocr_onnx.training import OnnxModule, export

    module = getattr(module, "_orig_mod", module)
    if not isinstance(module, OnnxModule):
        raise UsageError(f"`module` must be one that `to_torch` has made, got {type(module).__name__}")
    broken = [name for name, tensor in module.named_initializers() if not bool(tensor.isfinite().all())]
    if broken:
        raise TrainingError(f"the weights of {module.graph.label} must be finite, got others in {broken[0]!r}")
    made = export(module, module.graph)
    if output is not None:
        path = check_writable(output)
        if module.graph.path is not None and path.resolve() == module.graph.path.resolve():
            raise UsageError(f"`output` must not be a file that is read, got {path}")
        save(made, path, external=bool(module.graph.external))
    return made
