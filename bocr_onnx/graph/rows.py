"""Inputs of many images, of which a few are looked at at a time."""

from __future__ import annotations

from typing import Any, Protocol


class InputRows(Protocol):
    """What inputs are used by: an array, or something that gives the rows of one."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Returns the shape, first axis the images."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Any, /) -> Any: ...
