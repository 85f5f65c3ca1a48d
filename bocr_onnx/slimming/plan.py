"""A plan: which channels of every group stay. In memory a mask, on disk plan.json."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, ValidationError

from bocr_onnx.errors import PlanError
from bocr_onnx.graph import ModelGraph, write_text
from bocr_onnx.groups import Channels, GroupIndex

Mask = npt.NDArray[np.bool_]
"""Over all channels of all groups, shape `(n_channels,)`, True where the channel stays."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Which channels stay.

    Attributes:
        kept: For every group, in the order of the index, the kept channel numbers within the group, ascending.
    """

    kept: tuple[tuple[int, ...], ...]

    def mask(self, index: GroupIndex) -> Mask:
        """Returns the mask over all channels."""
        made = np.zeros(index.n_channels, dtype=bool)
        for group, kept in zip(index.groups, self.kept, strict=True):
            made[group.start + np.array(kept, dtype=np.int64)] = True
        return made

    @property
    def widths(self) -> tuple[int, ...]:
        """Returns the number of kept channels of every group."""
        return tuple(len(kept) for kept in self.kept)


def plan_of_mask(index: GroupIndex, mask: Mask) -> Plan:
    """Returns the plan of a mask over all channels."""
    return Plan(tuple(tuple(np.flatnonzero(mask[g.span]).tolist()) for g in index.groups))


def kept_positions(channels: Channels, mask: Mask) -> npt.NDArray[np.int64]:
    """Returns which positions of an axis stay: the fixed ones and those whose channel is kept, ascending."""
    if not mask.size:
        return np.arange(len(channels))
    return np.flatnonzero((channels < 0) | mask[channels])


class _Strict(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)


class _GroupEntry(_Strict):
    name: str
    n_channels: int
    kept: list[int]


class _AxisEntry(_Strict):
    axis: int
    n_channels: int
    kept: list[int]


class PlanFile(_Strict):
    """The schema of plan.json, version 1."""

    schema_: Literal[1]
    model_sha256: str
    groups: list[_GroupEntry]
    activations: dict[str, _AxisEntry]


def masked_reads(index: GroupIndex, mask: Mask) -> Mapping[tuple[int, int], tuple[int, npt.NDArray[np.int64]]]:
    """Returns every read of a weighted operator that loses channels.

    Returns:
        (node index, input position) -> (axis, kept positions along it).
    """
    found = {}
    for read, (axis, channels) in index.reads.items():
        kept = kept_positions(channels, mask)
        if len(kept) < len(channels):
            found[read] = (axis, kept)
    return found


def write_plan(path: Path, graph: ModelGraph, index: GroupIndex, plan: Plan) -> None:
    """Writes plan.json.

    Raises:
        OutputError: The path cannot be written.
    """
    activations = {
        graph.nodes[node].inputs[position]: {
            "axis": axis,
            "n_channels": len(index.reads[(node, position)][1]),
            "kept": kept.tolist(),
        }
        for (node, position), (axis, kept) in masked_reads(index, plan.mask(index)).items()
    }
    record = {
        "schema": 1,
        "model_sha256": graph.sha256,
        "groups": [
            {"name": g.name, "n_channels": g.n_channels, "kept": list(kept)}
            for g, kept in zip(index.groups, plan.kept, strict=True)
        ],
        "activations": activations,
    }
    write_text(path, json.dumps(record, indent=1) + "\n")


def read_plan(path: str | Path, graph: ModelGraph, index: GroupIndex) -> Plan:
    """Returns the plan of a file, if it belongs to the model.

    Raises:
        PlanError: The file is missing or malformed, or was made for another model.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
        record = json.loads(text)
        if isinstance(record, dict):
            record["schema_"] = record.pop("schema", None)
        file = PlanFile.model_validate(record)
    except (OSError, UnicodeDecodeError) as error:
        raise PlanError(f"plan {path} must be a readable file, got: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(p).rstrip("_") for p in first["loc"])
        raise PlanError(f"plan {path}: {where or 'the file'} is wrong: {first['msg']}") from error
    except (ValueError, RecursionError) as error:  # not JSON, or an integer of thousands of digits
        raise PlanError(f"plan {path} must be JSON, got: {error}") from error
    if file.model_sha256 != graph.sha256:
        raise PlanError(
            f"plan {path} must belong to {graph.label} (sha256 {graph.sha256[:12]}...), "
            f"got one of a model with sha256 {file.model_sha256[:12]}...",
            hint="Apply it to the file it was made for, or make a new one with: bocr-onnx prune",
        )
    return _check_groups(path, file, index)


def _check_groups(path: str | Path, file: PlanFile, index: GroupIndex) -> Plan:
    given = [(g.name, g.n_channels) for g in file.groups]
    expected = [(g.name, g.n_channels) for g in index.groups]
    if given != expected:
        wrong = next((a for a, b in zip(given, expected, strict=False) if a != b), given[-1:] or "none")
        raise PlanError(f"plan {path}: groups must be those of the model, got {wrong}")
    for group in file.groups:
        ascending = all(a < b for a, b in zip(group.kept, group.kept[1:], strict=False))
        if not group.kept or not ascending or group.kept[0] < 0 or group.kept[-1] >= group.n_channels:
            raise PlanError(
                f"plan {path}: kept of group {group.name!r} must be ascending channel numbers in "
                f"0..{group.n_channels - 1}, at least one of them"
            )
    return Plan(tuple(tuple(g.kept) for g in file.groups))
