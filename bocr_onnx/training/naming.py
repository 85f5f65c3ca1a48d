"""Tensors of a file at the place that their name says: ``layer1.0.conv1.weight`` is in ``module.layer1[0].conv1``."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class Place:
    """Where a module holds a tensor.

    Attributes:
        holder: The module that it is registered with.
        leaf: Its name there.
    """

    holder: nn.Module
    leaf: str

    @property
    def tensor(self) -> Tensor:
        """Returns the tensor as it is now: a module that moves to another device may have a new one."""
        found: Tensor = getattr(self.holder, self.leaf)
        return found


def place(root: nn.Module, name: str, tensor: Tensor) -> Place:
    """Returns where a tensor has been registered, as a parameter if it is one, and otherwise as a buffer.

    Dots in the name are modules within modules, as a state dict reads them. Where that cannot be, because a module or a
    tensor is there already or a part of the name is empty, they become underscores.

    Args:
        root: The module.
        name: Name in the file.
        tensor: The tensor.
    """
    *path, leaf = name.split(".")
    holder = _reached(root, path) if all(path) and leaf else None
    if holder is None or hasattr(holder, leaf):
        holder, leaf = root, name.replace(".", "_") or "_"
        while hasattr(holder, leaf):
            leaf += "_"
    if isinstance(tensor, nn.Parameter):
        holder.register_parameter(leaf, tensor)
    else:
        holder.register_buffer(leaf, tensor)
    return Place(holder, leaf)


def _reached(root: nn.Module, path: list[str]) -> nn.Module | None:
    """Returns the module at the end of a path, made where it is not there; None where something else is in the way."""
    holder = root
    for part in path:
        child = holder._modules.get(part)
        if child is None:
            if hasattr(holder, part):
                return None
            child = nn.Module()
            holder.add_module(part, child)
        holder = child
    return holder
