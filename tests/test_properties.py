"""Random graphs and random masks: every cut is proved, and its cost is what was predicted.

BOCR_EXAMPLES=2000 pytest tests/test_properties.py looks longer.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from bocr_onnx.cost import build_cost_model
from bocr_onnx.graph import ModelGraph, from_proto
from bocr_onnx.groups import GroupIndex, build_index
from bocr_onnx.slimming import changed_operands, cut, prove_cut
from tests.oracle import bn, build, n_elements, run

SIDE = 6
WIDEST = 24
KINDS = """
    conv grouped bn relu residual dense depthwise gate pool pad window scale
    branches permute shuffle depth space resize transposed instance blocks mlp heads projections einsum squeeze
    dynamic expand tile repeat reduce spatial rounded dequantized
""".split()
N_EXAMPLES = int(os.environ.get("BOCR_EXAMPLES", "100"))
REPEATABLE = "BOCR_EXAMPLES" not in os.environ
"""The default run draws the same graphs every time; a longer look draws new ones."""


class Net:
    """Grows a graph text block by block; `width` is the number of channels of the stream `at`."""

    def __init__(self, opset: int = 17) -> None:
        self.nodes: list[str] = []
        self.constants: dict[str, Any] = {}
        self.at, self.width, self.count = "x", 3, 0
        self.opset, self.variant = opset, 0

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

    def number(self, *values: int) -> str:
        """Returns the name of a constant tensor of integers."""
        name = f"n{len(self.constants)}"
        self.constants[name] = list(values)
        return name

    def block(self, kind: str, width: int, variant: int) -> None:
        """Appends a block; `variant` chooses among the ways to write it."""
        if self.width > WIDEST:
            self.conv(width)
        self.variant = variant
        getattr(self, f"_{kind}")(width)

    def pooled(self) -> None:
        """Averages over space, and keeps both axes."""
        if self.variant % 2:
            self.add("GlobalAveragePool ({})")
        else:
            self.over("ReduceMean", 2, 3)

    def over(self, op: str, *axes: int, keep: bool = True) -> None:
        """Reduces; the axes are an attribute in older operator sets."""
        kept = f"keepdims = {int(keep)}"
        if self.opset < 18:
            self.add(f"{op} <axes = {list(axes)}, {kept}> ({{}})")
        else:
            self.add(f"{op} <{kept}> ({{}}, {self.number(*axes)})")

    def product(self, width: int) -> None:
        """Multiplies the last axis by a matrix."""
        self.add(f"MatMul ({{}}, {self.weight(self.width, width)})", width)

    def tokens(self) -> None:
        """Turns the image into N rows of SIDE * SIDE tokens."""
        self.add(f"Reshape ({{}}, {self.number(0, self.width, SIDE * SIDE)})")
        self.add("Transpose <perm = [0, 2, 1]> ({})")

    def image(self) -> None:
        """Turns tokens back into an image."""
        self.add("Transpose <perm = [0, 2, 1]> ({})")
        self.add(f"Reshape ({{}}, {self.number(0, self.width, SIDE, SIDE)})")

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
        stream, (zero, middle, outside, axis) = self.at, names
        end = f"end{self.count}"
        self.constants[end] = [1 << 60]
        first = self.add(f"Slice ({stream}, {zero}, {middle}, {axis})", half)
        self.add(f"Slice ({stream}, {outside}, {end}, {axis})")
        self.add("Sigmoid ({})")
        self.add(f"Mul ({first}, {{}})")

    def _scale(self, width: int) -> None:
        k = self.weight(1, self.width, 1, 1)
        self.add(f"Mul ({{}}, {k})")
        self.add(f"Sub ({{}}, {self.weight(self.width, 1, 1)})")

    def _branches(self, width: int) -> None:
        """Split, of which each part goes its own way, and Concat."""
        self.conv(2 * width)
        first, second = f"u{self.count}", f"v{self.count}"
        sizes = [width, width] if self.variant % 2 else [1, 2 * width - 1]
        self.nodes.append(f"{first}, {second} = Split <axis = 1> ({self.at}, {self.number(*sizes)})")
        self.at, self.width = second, sizes[1]
        if self.variant % 3:
            self.conv(width, 3)
        self.add("Tanh ({})")
        order = f"{{}}, {first}" if self.variant < 4 else f"{first}, {{}}, {first}"
        self.add(f"Concat <axis = 1> ({order})", self.width + sizes[0] * (1 if self.variant < 4 else 2))

    def _permute(self, width: int) -> None:
        order = np.random.default_rng(width).permutation(self.width)[: self.width - self.variant % 2]
        self.add(f"Gather <axis = 1> ({{}}, {self.number(*order.tolist())})", len(order))

    def _shuffle(self, width: int) -> None:
        """Channel shuffle, plain or with an activation inside, so that it stays a Reshape."""
        self.conv(2 * width)
        blocks = (2, width) if self.variant % 2 else (width, 2)
        self.add(f"Reshape ({{}}, {self.number(0, *blocks, SIDE, SIDE)})")
        self.add("Transpose <perm = [0, 2, 1, 3, 4]> ({})")
        if self.variant > 2:
            self.add("Sigmoid ({})")
        self.add(f"Reshape ({{}}, {self.number(0, -1, SIDE, SIDE)})", 2 * width)

    def _depth(self, width: int) -> None:
        """As in super resolution."""
        self.conv(4 * width)
        mode = ("DCR", "CRD")[self.variant % 2]
        self.add(f'DepthToSpace <blocksize = 2, mode = "{mode}"> ({{}})', width)
        if self.variant > 2:
            self.add("SpaceToDepth <blocksize = 2> ({})", 4 * width)
        else:
            self.add(f"Conv <strides = [2, 2]> ({{}}, {self.weight(width + 1, width, 2, 2)})", width + 1)

    def _space(self, width: int) -> None:
        self.add("SpaceToDepth <blocksize = 2> ({})", 4 * self.width)
        if self.variant % 2:
            self.conv(width)
        self.enlarge()

    def enlarge(self) -> None:
        if self.variant < 3:
            scales = f"scales{self.count}"
            self.constants[scales] = np.array([1, 1, 2, 2], np.float32)
            self.add(f'Resize <mode = "nearest"> ({{}}, , {scales})')
            return
        part = f"part{self.count}"
        self.nodes.append(f"{part}s = Shape({self.at}) {part} = Slice({part}s, {self.number(0)}, {self.number(2)})")
        self.nodes.append(f"{part}t = Concat <axis = 0> ({part}, {self.number(SIDE, SIDE)})")
        self.add(f'Resize <mode = "linear"> ({{}}, , , {part}t)')

    def _resize(self, width: int) -> None:
        """As in a feature pyramid."""
        skip, own = self.at, self.width
        self.add("MaxPool <kernel_shape = [2, 2], strides = [2, 2]> ({})")
        self.conv(width, 3)
        self.enlarge()
        if self.variant % 2:
            self.add(f"Concat <axis = 1> ({{}}, {skip})", own + width)
        else:
            self.conv(own)
            self.add(f"Add ({skip}, {{}})")

    def _transposed(self, width: int) -> None:
        groups = (1, 2 if self.width % 2 == 0 else 1, self.width)[self.variant % 3]
        each = 1 if groups == self.width and self.variant < 3 else width
        w = self.weight(self.width, each, 3, 3)
        bias = f", {self.weight(groups * each)}" if self.variant % 2 else ""
        call = f"ConvTranspose <group = {groups}, pads = [1, 1, 1, 1]> ({{}}, {w}{bias})"
        self.add(call, groups * each)

    def _instance(self, width: int) -> None:
        self.add(f"InstanceNormalization ({{}}, {self.weight(self.width)}, {self.weight(self.width)})")

    def _blocks(self, width: int) -> None:
        """GroupNormalization, or what exporters wrote before there was one."""
        self.conv(2 * width)
        n = 2 if self.variant % 2 else width
        if self.opset >= 21:
            scale, bias = self.weight(2 * width), self.weight(2 * width)
            self.add(f"GroupNormalization <num_groups = {n}> ({{}}, {scale}, {bias})")
            return
        ones, zeros = f"ones{self.count}", f"zeros{self.count}"
        self.constants |= {ones: np.ones(n, np.float32), zeros: np.zeros(n, np.float32)}
        self.add(f"Reshape ({{}}, {self.number(0, n, -1)})")
        self.add(f"InstanceNormalization ({{}}, {ones}, {zeros})")
        self.add(f"Reshape ({{}}, {self.number(0, 2 * width, SIDE, SIDE)})")
        self.add(f"Mul ({{}}, {self.weight(2 * width, 1, 1)})")

    def _mlp(self, width: int) -> None:
        """As in ConvNeXt: layer norm and an MLP over the last axis."""
        skip, own = self.at, self.width
        self.add("Transpose <perm = [0, 2, 3, 1]> ({})")
        self.add(f"LayerNormalization ({{}}, {self.weight(own)}, {self.weight(own)})")
        self.product(2 * width)
        self.add(f"Add ({{}}, {self.weight(2 * width)})")
        stream = self.add("Identity ({})")
        self.add("Erf ({})")
        self.add(f"Mul ({stream}, {{}})")
        self.product(own)
        if self.variant % 2:
            self.add(f"Mul ({{}}, {self.weight(own)})")
        self.add("Transpose <perm = [0, 3, 1, 2]> ({})")
        self.add(f"Add ({skip}, {{}})")

    def _heads(self, width: int) -> None:
        """Attention whose queries, keys and values are made by one product."""
        skip, own, tokens = self.at, self.width, SIDE * SIDE
        n = 2 + self.variant % 2
        self.tokens()
        self.product(3 * n * width)
        self.add(f"Reshape ({{}}, {self.number(0, tokens, 3, n, width)})")
        self.add("Transpose <perm = [2, 0, 3, 1, 4]> ({})")
        parts = []
        for i in range(3):
            parts.append(f"qkv{self.count}_{i}")
            name = f"one{self.count}_{i}"
            self.constants[name] = np.array(i, np.int64)
            self.nodes.append(f"{parts[-1]} = Gather <axis = 0> ({self.at}, {name})")
        self.attend(parts, n, width)
        self.product(own)
        self.image()
        self.add(f"Add ({skip}, {{}})")

    def attend(self, parts: list[str], n: int, width: int) -> None:
        """Attends with heads (N, n, tokens, width); the tokens are the new stream."""
        q, k, v = parts
        self.add(f"Transpose <perm = [0, 1, 3, 2]> ({k})")
        self.add(f"MatMul ({q}, {{}})")
        self.add("Softmax <axis = -1> ({})")
        self.add(f"MatMul ({{}}, {v})")
        self.add("Transpose <perm = [0, 2, 1, 3]> ({})")
        self.add(f"Reshape ({{}}, {self.number(0, SIDE * SIDE, n * width)})", n * width)

    def _projections(self, width: int) -> None:
        """Attention with a product each for queries, keys and values."""
        skip, own, n = self.at, self.width, 2 + self.variant % 2
        self.tokens()
        stream, parts = self.at, []
        for _ in range(3):
            self.at, self.width = stream, own
            self.product(n * width)
            if self.variant > 2:
                self.add(f"Add ({{}}, {self.weight(n * width)})")
            self.add(f"Reshape ({{}}, {self.number(0, SIDE * SIDE, n, width)})")
            parts.append(self.add("Transpose <perm = [0, 2, 1, 3]> ({})"))
        self.attend(parts, n, width)
        self.product(own)
        self.image()
        self.add(f"Add ({skip}, {{}})")

    def _einsum(self, width: int) -> None:
        equation = ("nchw,cd->ndhw", "nchw,dc->ndhw", "n...w,nd->d...w")[self.variant % 2]
        shape = (self.width, width) if "cd" in equation else (width, self.width)
        self.add(f'Einsum <equation = "{equation}"> ({{}}, {self.weight(*shape)})', width)

    def _squeeze(self, width: int) -> None:
        """Squeeze and excite with Gemm."""
        skip, own = self.at, self.width
        self.over("ReduceMean", 2, 3, keep=False)
        self.add(f"Gemm ({{}}, {self.weight(own, width)}, {self.weight(width)})")
        self.add("Relu ({})")
        self.add(f"Gemm <transB = 1> ({{}}, {self.weight(own, width)}, {self.weight(own)})")
        self.add("HardSigmoid ({})")
        if self.variant % 2:
            self.add(f"Unsqueeze ({{}}, {self.number(2, 3)})")
        else:
            self.add(f"Reshape ({{}}, {self.number(-1, own, 1, 1)})")
        self.add(f"Mul ({{}}, {skip})")

    def _dynamic(self, width: int) -> None:
        """Reshapes whose batch is computed, as torch writes them."""
        c = f"d{self.count}"
        self.nodes.append(f"{c}s = Shape({self.at}) {c}n = Slice({c}s, {self.number(0)}, {self.number(1)})")
        channels = f"{c}c" if self.variant % 2 else self.number(self.width)
        self.nodes.append(f"{c}c = Slice({c}s, {self.number(1)}, {self.number(2)})" if self.variant % 2 else "")
        self.nodes.append(f"{c}t = Concat <axis = 0> ({c}n, {channels}, {self.number(-1)})")
        self.nodes.append(f"{c}b = Concat <axis = 0> ({c}n, {channels}, {self.number(SIDE, SIDE)})")
        self.add(f"Reshape ({{}}, {c}t)")
        self.add("Softmax <axis = -1> ({})")
        self.add(f"Reshape ({{}}, {c}{'s' if self.variant > 2 else 'b'})")

    def _expand(self, width: int) -> None:
        skip = self.at
        self.pooled()
        if self.variant < 3:
            self.add(f"Expand ({{}}, {self.number(1, 1, SIDE, SIDE)})")
        else:
            self.nodes.append(f"like{self.count} = Shape({skip})")
            self.add(f"Expand ({{}}, like{self.count})")
        self.add(f"Concat <axis = 1> ({skip}, {{}})", 2 * self.width)

    def _tile(self, width: int) -> None:
        skip = self.at
        self.pooled()
        self.conv(self.width)
        self.add(f"Tile ({{}}, {self.number(1, 1, SIDE, SIDE)})")
        self.add(f"Add ({skip}, {{}})")

    def _repeat(self, width: int) -> None:
        """Every channel twice."""
        self.conv(width)
        self.add(f"Tile ({{}}, {self.number(1, 2, 1, 1)})", 2 * width)

    def _reduce(self, width: int) -> None:
        skip = self.at
        self.over(
            ("ReduceMax", "ReduceMean", "ReduceL2", "ReduceMin")[self.variant % 4], *((3,), (2, 3))[self.variant % 2]
        )
        self.add(f"Sub ({skip}, {{}})")

    def _spatial(self, width: int) -> None:
        """Attention over space: the channels are averaged."""
        skip = self.at
        self.over("ReduceMean", 1)
        self.add("Sigmoid ({})")
        self.add(f"Mul ({skip}, {{}})")

    def _rounded(self, width: int) -> None:
        scale, zero = f"scale{self.count}", f"zero{self.count}"
        shape: tuple[int, ...] = (self.width,) if self.variant % 2 else ()
        self.constants[scale] = np.full(shape, 0.05, np.float32)
        self.constants[zero] = np.full(shape, 128, np.uint8)
        self.add(f"QuantizeLinear <axis = 1> ({{}}, {scale}, {zero})")
        self.add(f"DequantizeLinear <axis = 1> ({{}}, {scale}, {zero})")

    def _dequantized(self, width: int) -> None:
        """A convolution whose weight is stored as integers."""
        w = f"w{self.count}"
        shape = (width, self.width, 1, 1)
        stored = np.random.default_rng(width).integers(-100, 100, size=shape, dtype=np.int8)
        scale = np.full((width,) if self.variant % 2 else (), 0.005, np.float32)
        self.constants |= {f"{w}_i": stored, f"{w}_s": scale}
        self.nodes.append(f"{w} = DequantizeLinear <axis = 0> ({w}_i, {w}_s)")
        self.add(f"Conv ({{}}, {w})", width)

    def build(self, head: str) -> ModelGraph:
        if head == "gemm":
            self.add("Flatten ({})")
            size = self.width * SIDE * SIDE
            self.add(f"Gemm <transB = 1> ({{}}, {self.weight(5, size)})")
            self.add("Sigmoid ({})")
            self.add(f"Gemm ({{}}, {self.weight(5, 4)}, {self.weight(4)})")
            out = "float[N, 4]"
        elif head == "pooled":
            self.over("ReduceMean", 2, 3, keep=False)
            self.add(f"MatMul ({{}}, {self.weight(self.width, 4)})")
            self.add("Softmax <axis = 1> ({})")
            out = "float[N, 4]"
        else:
            self.add("Transpose <perm = [0, 2, 3, 1]> ({})")
            self.add(f"MatMul ({{}}, {self.weight(self.width, 4)})")
            out = f"float[N, {SIDE}, {SIDE}, 4]"
        self.nodes.append(f"y = Identity({self.at})")
        text = f"m (float[N, 3, {SIDE}, {SIDE}] x) => ({out} y) {{ {' '.join(self.nodes)} }}"
        return build(text, opset=self.opset, ir=10, **self.constants)


@st.composite
def graphs(draw: st.DrawFn) -> ModelGraph:
    net = Net(draw(st.sampled_from([17, 21])))
    net.conv(draw(st.integers(4, 6)), 3)
    blocks = st.tuples(st.sampled_from(KINDS), st.integers(2, 5), st.integers(0, 5))
    for kind, width, variant in draw(st.lists(blocks, max_size=6)):
        net.block(kind, width, variant)
    return net.build(draw(st.sampled_from(["gemm", "matmul", "pooled"])))


def masked(index: GroupIndex, seed: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Returns a mask in which every group keeps at least one channel, and some keep all."""
    rng = np.random.default_rng(seed)
    mask = np.zeros(index.n_channels, dtype=bool)
    for group in index.groups:
        kept = rng.choice(group.n_channels, size=rng.integers(1, group.n_channels + 1), replace=False)
        mask[group.start + kept] = True
    return mask


@settings(max_examples=N_EXAMPLES, derandomize=REPEATABLE, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(graphs(), st.integers(0, 1 << 30))
def test_every_cut_is_proved_and_its_cost_is_the_predicted_one(graph: ModelGraph, seed: int) -> None:
    index = build_index(graph)
    assume(index.groups)  # a mean over the channels keeps them all
    mask = masked(index, seed)
    slim = cut(index, mask)
    assert changed_operands(index, mask, from_proto(slim)) == {}
    assert prove_cut(index, mask, slim, run).passed
    widths = np.array([mask[g.span].sum() for g in index.groups])
    predicted = build_cost_model(index).cost(widths)
    read = from_proto(slim)
    again = build_cost_model(build_index(read))
    found = again.cost(again.full)
    assert (predicted.params, predicted.macs) == (found.params, found.macs)
    if all(node.op != "DequantizeLinear" for node in graph.nodes):
        assert predicted.params == n_elements(slim)


@settings(
    max_examples=N_EXAMPLES // 3, derandomize=REPEATABLE, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
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
        assert n_elements(cut(index, mask)) < full
