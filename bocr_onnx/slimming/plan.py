"""A plan: which channels of every group stay. In memory a mask, on disk plan.json."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, ValidationError

from bocr_onnx.errors import PlanError
from bocr_onnx.graph import read_text, write_text
from bocr_onnx.groups import Channels, GroupIndex
from bocr_onnx.slimming.structure import structure_digest

MAX_BYTES = 1 << 28
"""A longer plan.json is none."""

Mask = npt.NDArray[np.bool_]
"""Over all channels of all groups, shape `(n_channels,)`, True where the channel stays."""

ANOTHER = "Apply it to the file it was made for, or make a new one with: bocr-onnx prune"
"""What to do with a plan that does not fit."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Which channels stay.

    Attributes:
        kept: For every group, in the order of the index, the kept channel numbers within the group, ascending.
        model_sha256: Digest of the model that its file names, which may have other weights than the one it was read
            for; empty where it comes from no file.
    """

    kept: tuple[tuple[int, ...], ...]
    model_sha256: str = field(default="", compare=False)

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
    """The schema of plan.json, version 1; the first files had no structure."""

    schema_: Literal[1]
    model_sha256: str
    structure: str | None = None
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


def write_plan(path: Path, index: GroupIndex, plan: Plan) -> None:
    """Writes plan.json.

    Raises:
        OutputError: The path cannot be written.
    """
    graph = index.graph
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
        "structure": structure_digest(index),
        "groups": [
            {"name": g.name, "n_channels": g.n_channels, "kept": list(kept)}
            for g, kept in zip(index.groups, plan.kept, strict=True)
        ],
        "activations": activations,
    }
    write_text(path, json.dumps(record, indent=1) + "\n")


def read_plan(path: str | Path, index: GroupIndex, *, strict: bool = False) -> Plan:
    """Returns the plan of a file, if it belongs to the model.

    A plan belongs to every model of the same structure, whatever its weights and the names of its nodes;
    `Plan.model_sha256` tells which file it was made for. Where its file names no structure, the names and widths of the
    groups decide.

    Args:
        path: A plan.json.
        index: Groups of the model.
        strict: Whether it must have been made for this very file.

    Raises:
        PlanError: The file is missing or malformed, or was made for another model.
    """
    graph = index.graph
    try:
        text = read_text(path, MAX_BYTES)
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
    if strict and file.model_sha256 != graph.sha256:
        raise PlanError(
            f"plan {path} must belong to {graph.label} (sha256 {graph.sha256[:12]}...), "
            f"got one of a model with sha256 {file.model_sha256[:12]}...",
            hint=ANOTHER,
        )
    same_file = file.model_sha256 == graph.sha256
    same_structure = not same_file and file.structure == structure_digest(index)
    _check_groups(path, file, index, by_name=not same_structure)
    if not (same_file or same_structure or file.structure is None):
        raise PlanError(
            f"plan {path} must be for the structure of {graph.label}, got one for a model with equal groups and "
            "other operators or attributes (or shapes of constants, inputs or outputs)",
            hint=ANOTHER,
        )
    _check_kept(path, file)
    return Plan(tuple(tuple(g.kept) for g in file.groups), file.model_sha256)


def _check_groups(path: str | Path, file: PlanFile, index: GroupIndex, *, by_name: bool) -> None:
    for given, expected in zip_longest(file.groups, index.groups):
        ours, theirs = (f"{g.name!r} of {g.n_channels} channels" if g else "none" for g in (given, expected))
        alike = given and expected and given.n_channels == expected.n_channels
        if not alike or (by_name and ours != theirs):
            raise PlanError(
                f"plan {path}: groups must be those of the model, got {ours} where the model has {theirs}",
                hint=ANOTHER,
            )


def _check_kept(path: str | Path, file: PlanFile) -> None:
    for group in file.groups:
        ascending = all(a < b for a, b in zip(group.kept, group.kept[1:], strict=False))
        if not group.kept or not ascending or group.kept[0] < 0 or group.kept[-1] >= group.n_channels:
            raise PlanError(
                f"plan {path}: kept of group {group.name!r} must be ascending channel numbers in "
                f"0..{group.n_channels - 1}, at least one of them"
            )
