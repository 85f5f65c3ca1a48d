"""The channel grid of a device: counts of channels after which further ones cost nothing until a plateau ends.

Kernels work on blocks of channels. A count that is not a multiple of one pays for the whole block, and one that is
not even a multiple of a vector may lose the fast path altogether. Which block that is cannot be told from the name of a
processor, so convolutions of some widths are timed::

    t(C)    CPU time of a 1x1, a depthwise 3x3 and a 3x3 convolution of C channels
    grid    the largest g for which, of the widths C that are not multiples of g, nearly none is faster than the next
            multiple of it: t(ceil(C / g) g) <= 1.05 t(C)
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from bocr_onnx.devices.device import Device, Machine, Request, Rounds
from bocr_onnx.devices.place import kept_at
from bocr_onnx.errors import DeviceError

WIDTHS = (32, 34, 36, 38, 40, 42, 44, 46, 48, 52, 56, 60, 64)
GRIDS = (32, 16, 8, 4, 2)
FREE = 1.05
"""Time of the next multiple over that of a width up to which the wider one costs nothing."""

NEARLY_ALL = 0.8
BUDGET_S = 6.0


@dataclass(frozen=True, slots=True)
class Probe:
    """What was found.

    Attributes:
        grid: Channel grid; 1 where every channel costs.
        times_ms: Median time by width.
    """

    grid: int
    times_ms: Mapping[int, float]


def probe(device: Device, progress: Rounds | None = None) -> Probe:
    """Returns the channel grid of a device.

    Raises:
        DeviceError: It cannot be reached, or is lost.
    """
    feeds = {"x": np.random.default_rng(0).standard_normal((1, 16, 28, 28)).astype(np.float32)}
    measured = device.measure([_model(width) for width in WIDTHS], feeds, Request(1, budget_s=BUDGET_S), progress)
    times = {
        width: one.median_of("cpu") or one.median_ms for width, one in zip(WIDTHS, measured.latencies, strict=True)
    }
    return Probe(find_grid(times), times)


def find_grid(times_ms: Mapping[int, float]) -> int:
    """Returns the largest grid whose multiples cost no more than the widths below them; 1 where there is none.

    Example:
        >>> find_grid({32: 0.4, 40: 0.65, 48: 0.65, 56: 1.0, 64: 1.0})
        16
    """
    for grid in GRIDS:
        pairs = [(c, -(-c // grid) * grid) for c in times_ms if c % grid and -(-c // grid) * grid in times_ms]
        free = [times_ms[top] <= FREE * times_ms[c] for c, top in pairs]
        if free and float(np.mean(free)) >= NEARLY_ALL:
            return grid
    return 1


VARIABLE = "BOCR_ONNX_DEVICES"
"""Environment variable that names another file for what was found."""


def default_file() -> Path:
    """Returns the file that `BOCR_ONNX_DEVICES` names, else the one in the user's cache folder."""
    return kept_at(VARIABLE, "devices.json")


def remember(file: Path, device: Device, machine: Machine, found: Probe) -> None:
    """Keeps what was found for a device and its runtime.

    Raises:
        DeviceError: The file cannot be written.
    """
    known = _known(file)
    known[_key(device.name, machine)] = {"grid": found.grid, "times_ms": {str(c): t for c, t in found.times_ms.items()}}
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise DeviceError(f"what was found must be kept in {file}, got: {error.strerror}") from error


def remembered_grid(file: Path, device: Device, machine: Machine) -> int | None:
    """Returns the channel grid that was found before; None where this device and runtime were not probed."""
    entry = _known(file).get(_key(device.name, machine))
    grid = entry.get("grid") if isinstance(entry, dict) else None
    return grid if isinstance(grid, int) and 1 <= grid <= max(GRIDS) else None


def _known(file: Path) -> dict[str, object]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _key(device: str, machine: Machine) -> str:
    return f"{device} {machine.architecture} {machine.cpu} {' '.join(machine.flags)} onnxruntime {machine.onnxruntime}"


def _model(width: int) -> bytes:
    """Returns a model of a narrow input, two pointwise, a depthwise and a full convolution of one width."""
    rng = np.random.default_rng(0)
    shapes = {"a": (width, 16, 1, 1), "b": (width, width, 1, 1), "c": (width, 1, 3, 3), "d": (width, width, 3, 3)}
    nodes, last = [], "x"
    for name, shape in shapes.items():
        attributes: dict[str, Any] = {"group": width if shape[1] == 1 else 1, "pads": [shape[2] // 2] * 4}
        attributes["strides"] = [2, 2] if name == "d" else [1, 1]
        nodes.append(helper.make_node("Conv", [last, name], [f"{name}_y"], **attributes))
        nodes.append(helper.make_node("Relu", [f"{name}_y"], [f"{name}_r"]))
        last = f"{name}_r"
    constants = [
        numpy_helper.from_array((0.1 * rng.standard_normal(s)).astype(np.float32), n) for n, s in shapes.items()
    ]
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 16, 28, 28])
    made = helper.make_tensor_value_info(last, TensorProto.FLOAT, [1, width, 14, 14])
    graph = helper.make_graph(nodes, "probe", [given], [made], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    return bytes(model.SerializeToString())
