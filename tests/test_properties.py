"""Random graphs and random masks: every cut is proved, and its cost is what was predicted."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bocr_onnx.cost import build_cost_model
from bocr_onnx.graph import ModelGraph, from_proto
from bocr_onnx.groups import GroupIndex, build_index
from bocr_onnx.slimming import changed_operands, cut, prove
from tests.oracle import bn, build, n_elements, run

SIDE = 6
KINDS = ("conv", "grouped", "bn", "relu", "residual", "dense", "depthwise", "gate", "pool", "pad", "window", "scale")


class Net:
    """Grows a graph text block by block; `width` is the number of channels of the stream `at`."""

    def __init__(self) -> None:
        self.nodes: list[str] = []
        self.constants: dict[str, Any] = {}
        self.at, self.width, self.count = "x", 3, 0

    def add(self, call: str, width: int | None = None) -> str:
        """Appends a node and makes it the stream; `{}` in the call stands for the stream."""
        self.count += 1
        name = f"t{self.count}"
        self.nodes.append(f"{name} = {call.format(self.at)}")
        self.at, self.width = name, width or self.width
        return name

    def weight(self, *shape: int) -> str:
        name = f"k{len(self.constants)}"
        self.constants[name] = shape
        return name

    def conv(self, width: int, kernel: int = 1) -> None:
        w, b = self.weight(width, self.width, kernel, kernel), self.weight(width)
        pads = ", ".join([str(kernel // 2)] * 4)
        self.add(f"Conv <pads = [{pads}]> ({{}}, {w}, {b})", width)

    def block(self, kind: str, width: int) -> None:
        getattr(self, f"_{kind}")(width)

    def _conv(self, width: int) -> None:
        self.conv(width, 3)

    def _grouped(self, width: int) -> None:
        even = self.width % 2 == 0
        w = self.weight(2 * width, self.width // 2 if even else self.width, 1, 1)
        self.add(f"Conv <group = {2 if even else 1}> ({{}}, {w})", 2 * width)

    def _bn(self, width: int) -> None:
        prefix = f"bn{len(self.constants)}_"
        self.constants |= bn(self.width, prefix)
        self.add(f"BatchNormalization ({{}}, {', '.join(prefix + k for k in 'sbmv')})")

    def _relu(self, width: int) -> None:
        self.add("LeakyRelu ({})")

    def _residual(self, width: int) -> None:
        skip, own = self.at, self.width
        self.conv(width)
        self.add("Sigmoid ({})")
        self.conv(own, 3)
        self.add(f"Add ({{}}, {skip})")

    def _dense(self, width: int) -> None:
        skip, own = self.at, self.width
        self.conv(width)
        self.add(f"Concat <axis = 1> ({skip}, {{}})", own + width)

    def _depthwise(self, width: int) -> None:
        w = self.weight(self.width, 1, 3, 3)
        self.add(f"Conv <group = {self.width}, pads = [1, 1, 1, 1]> ({{}}, {w})")

    def _gate(self, width: int) -> None:
        skip, own = self.at, self.width
        self.add("GlobalAveragePool ({})")
        self.conv(width)
        self.add("Relu ({})")
        self.conv(own)
        self.add("Sigmoid ({})")
        self.add(f"Mul ({skip}, {{}})")

    def _pool(self, width: int) -> None:
        self.add("AveragePool <kernel_shape = [3, 3], pads = [1, 1, 1, 1], count_include_pad = 1> ({})")

    def _pad(self, width: int) -> None:
        skip, own = self.at, self.width
        self.conv(own + width, 3)
        pads = f"pads{self.count}"
        before = width // 3
        self.constants[pads] = [0, before, 0, 0, 0, width - before, 0, 0]
        branch, wide = self.at, self.width
        self.at = skip
        self.add(f"Pad ({{}}, {pads})", wide)
        self.add(f"Add ({{}}, {branch})")

    def _window(self, width: int) -> None:
        """Gated by its own other half, as the two halves of a split are."""
        half = self.width // 2
        if half < 2:
            return
        names = [f"bound{self.count}_{i}" for i in range(4)]
        self.constants |= dict(zip(names, ([0], [half], [-half], [1]), strict=True))
        stream, (zero, middle, behind, axis) = self.at, names
        end = f"end{self.count}"
        self.constants[end] = [1 << 60]
        first = self.add(f"Slice ({stream}, {zero}, {middle}, {axis})", half)
        self.add(f"Slice ({stream}, {behind}, {end}, {axis})")
        self.add("Sigmoid ({})")
        self.add(f"Mul ({first}, {{}})")

    def _scale(self, width: int) -> None:
        k = self.weight(1, self.width, 1, 1)
        self.add(f"Mul ({{}}, {k})")
        self.add(f"Sub ({{}}, {self.weight(self.width, 1, 1)})")

    def build(self, head: str) -> ModelGraph:
        if head == "gemm":
            self.add("Flatten ({})")
            size = self.width * SIDE * SIDE
            self.add(f"Gemm <transB = 1> ({{}}, {self.weight(5, size)})")
            self.add("Sigmoid ({})")
            self.add(f"Gemm ({{}}, {self.weight(5, 4)}, {self.weight(4)})")
            out = "float[N, 4]"
        else:
            self.add("Transpose <perm = [0, 2, 3, 1]> ({})")
            self.add(f"MatMul ({{}}, {self.weight(self.width, 4)})")
            out = f"float[N, {SIDE}, {SIDE}, 4]"
        self.nodes.append(f"y = Identity({self.at})")
        text = f"m (float[N, 3, {SIDE}, {SIDE}] x) => ({out} y) {{ {' '.join(self.nodes)} }}"
        return build(text, **self.constants)


@st.composite
def graphs(draw: st.DrawFn) -> ModelGraph:
    net = Net()
    net.conv(draw(st.integers(4, 6)), 3)
    for kind, width in draw(st.lists(st.tuples(st.sampled_from(KINDS), st.integers(2, 5)), max_size=5)):
        net.block(kind, width)
    return net.build(draw(st.sampled_from(["gemm", "matmul"])))


def masked(index: GroupIndex, seed: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Returns a mask in which every group keeps at least one channel, and some keep all."""
    rng = np.random.default_rng(seed)
    mask = np.zeros(index.n_channels, dtype=bool)
    for group in index.groups:
        kept = rng.choice(group.n_channels, size=rng.integers(1, group.n_channels + 1), replace=False)
        mask[group.start + kept] = True
    return mask


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(graphs(), st.integers(0, 1 << 30))
def test_every_cut_is_proved_and_its_cost_is_the_predicted_one(graph: ModelGraph, seed: int) -> None:
    index = build_index(graph)
    assert index.groups
    mask = masked(index, seed)
    slim = cut(graph, index, mask)
    assert changed_operands(graph, index, mask, from_proto(slim)) == {}
    assert prove(graph, index, mask, slim, run, weights={}).passed
    widths = np.array([mask[g.span].sum() for g in index.groups])
    predicted = build_cost_model(graph, index).cost(widths)
    read = from_proto(slim)
    again = build_cost_model(read, build_index(read))
    assert predicted.params == n_elements(slim)
    assert predicted.macs == again.cost(again.full).macs


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(graphs())
def test_channels_are_numbered_once_and_every_group_can_be_cut_alone(graph: ModelGraph) -> None:
    index = build_index(graph)
    assert [g.start for g in index.groups] == np.cumsum([0, *(g.n_channels for g in index.groups)])[:-1].tolist()
    assert len({g.name for g in index.groups}) == len(index.groups)
    for channels in (c for axes in index.slices.values() for c in axes.values()):
        assert channels.max(initial=-1) < index.n_channels
    full = n_elements(graph.proto)
    for group in index.groups:
        mask = np.ones(index.n_channels, dtype=bool)
        mask[group.start] = False
        assert n_elements(cut(graph, index, mask)) < full
