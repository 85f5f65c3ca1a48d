"""The shared oracle: a slim model equals the original with the removed channels zeroed where they are consumed.

`build` makes a tiny model from ONNX text and seeded constants, `check` draws random masks, cuts and proves.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import ModelProto, numpy_helper

from bocr_onnx.cost import build_cost_model
from bocr_onnx.graph import Array, ModelGraph, from_proto, random_feeds
from bocr_onnx.groups import GroupIndex, build_index
from bocr_onnx.runtime.session import open_session, run_session
from bocr_onnx.slimming import changed_operands, compare, cut, prove_structure

Constant = Array | tuple[int, ...] | list[int]
SEEDS = (0, 1, 2)


def run(model: ModelProto, feeds: Mapping[str, Array]) -> list[Array]:
    """Returns the outputs in ONNX Runtime, on one thread: tests share the machine."""
    return run_session(open_session(model, threads=1), feeds)


def drawn(shape: tuple[int, ...], seed: int, name: str = "") -> Array:
    """Returns a seeded normal float32 array whose scale keeps activations near one."""
    rng = np.random.default_rng([seed, *name.encode()])
    fan_in = int(np.prod(shape[1:])) if len(shape) > 1 else 8
    return (rng.standard_normal(shape) * np.sqrt(2 / max(fan_in, 1))).astype(np.float32)


def proto(text: str, *, opset: int = 17, ir: int = 8, seed: int = 0, **constants: Constant) -> ModelProto:
    """Returns a model.

    Args:
        text: A graph in ONNX text, `name (inputs) => (outputs) { nodes }`; a text that opens with `<` brings its
            own header.
        opset: Version of the standard operators.
        ir: Version of the format.
        seed: Seed for the drawn constants.
        constants: Initializers: an array, a shape to draw, or a list of int64.
    """
    header = "" if text.lstrip().startswith("<") else f'<ir_version: {ir}, opset_import: ["" : {opset}]>'
    made = onnx.parser.parse_model(header + text)
    for name, value in constants.items():
        made.graph.initializer.append(numpy_helper.from_array(_array(name, value, seed), name))
    return made


def _array(name: str, value: Constant, seed: int) -> Array:
    if isinstance(value, list):
        return np.array(value, dtype=np.int64)
    return drawn(value, seed, name) if isinstance(value, tuple) else np.asarray(value)


def build(text: str, **settings: Any) -> ModelGraph:
    """Returns the graph of `proto(text, **settings)`."""
    return from_proto(proto(text, **settings))


def bn(width: int, prefix: str = "bn_", seed: int = 0) -> dict[str, Array]:
    """Returns the constants `<prefix>s, b, m, v` of a BatchNormalization."""
    rng = np.random.default_rng([seed, *prefix.encode()])
    drawn = (rng.uniform(0.5, 1.5, width), rng.normal(size=width), rng.normal(size=width), rng.uniform(0.5, 2, width))
    return {f"{prefix}{k}": a.astype(np.float32) for k, a in zip("sbmv", drawn, strict=True)}


def random_mask(index: GroupIndex, seed: int) -> npt.NDArray[np.bool_]:
    """Returns a mask in which every group keeps at least one channel and loses at least one."""
    rng = np.random.default_rng(seed)
    mask = np.zeros(index.n_channels, dtype=bool)
    for group in index.groups:
        kept = rng.choice(group.n_channels, size=rng.integers(1, group.n_channels), replace=False)
        mask[group.start + kept] = True
    return mask


def widths(index: GroupIndex) -> dict[str, int]:
    """Returns the channels of every group by its name."""
    return {g.name: g.n_channels for g in index.groups}


def reasons(index: GroupIndex) -> dict[str, str]:
    """Returns the refusals: node -> reason."""
    return {r.node: r.reason for r in index.refusals}


def n_elements(model: ModelProto, *, quantized: bool = False) -> int:
    """Returns the number of floating-point (and of 8-bit) elements stored in initializers and Constant nodes."""
    tensors = [*model.graph.initializer]
    tensors += [a.t for n in model.graph.node if n.op_type == "Constant" for a in n.attribute if a.name == "value"]
    return sum(
        a.size for t in tensors if (a := numpy_helper.to_array(t)).dtype.kind == "f" or (quantized and a.itemsize == 1)
    )


def foreseen(graph: ModelGraph, index: GroupIndex, mask: npt.NDArray[np.bool_] | None = None) -> int:
    """Returns the MACs that the cost model predicts for a mask."""
    cost = build_cost_model(index)
    kept = cost.full if mask is None else np.array([mask[g.span].sum() for g in index.groups])
    return cost.cost(kept).macs


def check(graph: ModelGraph, *, seeds: Iterable[int] = SEEDS, tolerance: float = 1e-4) -> GroupIndex:
    """Cuts by random masks and proves each cut; returns the index for further assertions.

    Cuts that remove nothing or that no output can tell from the original would prove nothing, so both fail.
    """
    index = build_index(graph)
    assert index.groups, f"nothing to cut: {index.refusals}"
    feeds = random_feeds(graph, batch=2, seed=7)
    original = run(graph.proto, feeds)
    seen = 0.0
    for seed in seeds:
        mask = random_mask(index, seed)
        slim = cut(index, mask)
        assert n_elements(slim, quantized=True) < n_elements(graph.proto, quantized=True)
        read = from_proto(slim)
        assert changed_operands(index, mask, read) == {}
        assert foreseen(graph, index, mask) == pytest.approx(foreseen(read, build_index(read)), abs=0.5)
        assert read.inputs == graph.inputs
        proof = prove_structure(index, mask, slim, run, seed=seed)
        assert proof.passed
        assert proof.max_rel_diff <= tolerance
        seen = max(seen, compare(original, run(slim, feeds)).max_rel_diff)
    assert seen > 1e-3
    return index
