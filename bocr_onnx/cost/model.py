"""Cost of a policy by arithmetic: no graph is built, thousands of policies take milliseconds.

Along an axis that is cut, the number of kept entries is linear in the group widths w:

    n(w) = n_fixed + sum_g multiplicity_g * w_g

The size of a constant is a product of such lengths, and so are the MACs of an operator: the entries of its output
times what is summed up for each.

    size(w) = c * n_0(w) * n_1(w)        MACs(w) = c * n_out(w) * n_in(w)
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from bocr_onnx.cost.full import full_macs, hidden_params
from bocr_onnx.cost.latency import Features, LatencyModel, features_of
from bocr_onnx.graph import INTEGER, ModelGraph, Node, Operand, operand_positions, serialized_size, weight_positions
from bocr_onnx.groups import Channels, GroupIndex, Work

Widths = npt.NDArray[np.int64]
"""Kept channels per group, shape `(n_policies, n_groups)`, int64."""

_Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Cost:
    """What a model costs.

    Attributes:
        macs: Multiply-accumulates per sample (`ModelGraph.batch`): of operators with weights, of products of tensors.
        params: Elements of floating-point constants, and of quantized weights and biases.
        size_bytes: Size as one file.
    """

    macs: int
    params: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Terms:
    """A sum of products of axis lengths.

    Attributes:
        scale: Factor of each term, shape `(n_terms,)`.
        forms: The axis lengths of each term as linear forms in `[1, w]`, shape `(n_terms, n_axes, 1 + n_groups)`.
    """

    scale: _Floats
    forms: _Floats

    def total(self, widths: Widths) -> _Floats:
        """Returns the sum for every policy, shape `(n_policies,)`."""
        n_terms, n_axes, n = self.forms.shape
        lengths = widths @ self.forms[:, :, 1:].reshape(n_axes * n_terms, n - 1).T + self.forms[:, :, 0].reshape(-1)
        product = lengths[:, 0::n_axes]
        for axis in range(1, n_axes):
            product = product * lengths[:, axis::n_axes]
        return np.asarray(product @ self.scale)

    def losses(self, widths: Widths) -> _Floats:
        """Returns by how much the sum falls when one group after the other is gone, shape `(n_groups,)`.

        Args:
            widths: One policy, shape `(n_groups,)`.
        """
        portions = self.forms[:, :, 1:]
        lengths = self.forms[:, :, 0] + portions @ widths
        term, group = np.nonzero(portions.any(axis=1))
        without = lengths[term] - portions[term, :, group] * widths[group, None]
        lost = self.scale[term] * (lengths[term].prod(axis=1) - without.prod(axis=1))
        return np.asarray(np.bincount(group, lost, minlength=len(widths)), dtype=np.float64)


@dataclass(frozen=True)
class CostModel:
    """Cost of any policy of one model.

    Attributes:
        full: Widths of the original, shape `(n_groups,)`.
        macs_terms: MACs.
        params_terms: Parameters.
        bytes_terms: Bytes of the stored constants.
        overhead_bytes: Bytes of the file that no policy changes.
        node_macs: MACs of every weighted node of the original, by node index.
        latency: Time on a device; None where none was fitted.
    """

    full: Widths
    macs_terms: Terms
    params_terms: Terms
    bytes_terms: Terms
    overhead_bytes: int
    node_macs: Mapping[int, float] = field(default_factory=dict)
    latency: LatencyModel | None = None

    def latency_ms(self, widths: Widths) -> _Floats:
        """Returns the predicted time of policies in ms, shape `(n_policies,)`."""
        if self.latency is None:
            raise ValueError("no latency was fitted")
        share = self.latency.coefficients[0] + self._time.of(np.atleast_2d(widths))[:, 0]
        return np.asarray(self.latency.full_ms * share)

    def features(self, block: int) -> Features:
        """Returns what the time of policies follows, for kernels that work on blocks of channels."""
        return features_of(self.macs_terms.scale, self.macs_terms.forms, self.full, block)

    @cached_property
    def _time(self) -> Features:
        assert self.latency is not None
        return self.features(self.latency.block).weighed(np.array(self.latency.coefficients[1:]))

    def macs(self, widths: Widths) -> _Floats:
        """Returns MACs of policies, shape `(n_policies,)`, for widths `(n_policies, n_groups)`."""
        return self.macs_terms.total(np.atleast_2d(widths))

    def params(self, widths: Widths) -> _Floats:
        """Returns parameters of policies, shape `(n_policies,)`."""
        return self.params_terms.total(np.atleast_2d(widths))

    def size_bytes(self, widths: Widths) -> _Floats:
        """Returns file sizes of policies in bytes, shape `(n_policies,)`."""
        return self.bytes_terms.total(np.atleast_2d(widths)) + self.overhead_bytes

    def cost(self, widths: Widths) -> Cost:
        """Returns the cost of one policy."""
        return Cost(
            round(float(self.macs(widths)[0])),
            round(float(self.params(widths)[0])),
            round(float(self.size_bytes(widths)[0])),
        )

    def shares(self) -> tuple[float, ...]:
        """Returns the share of all MACs that each group controls: what would be gone without it, in [0, 1]."""
        total = max(float(self.macs(self.full)[0]), 1.0)
        return tuple((self.macs_terms.losses(self.full) / total).tolist()) if len(self.full) else ()

    def prunable_share(self) -> float:
        """Returns the share of all MACs that any group controls, in [0, 1]."""
        total = self.macs(self.full)[0]
        return float(1 - self.macs(np.zeros_like(self.full))[0] / total) if total else 0.0


def build_cost_model(index: GroupIndex) -> CostModel:
    """Returns the cost model of a graph.

    Args:
        index: Groups of the model.
    """
    graph = index.graph
    n_groups = len(index.groups)
    full = np.array([g.n_channels for g in index.groups], dtype=np.int64)
    form = _FormOf(np.repeat(np.arange(n_groups), full), full, graph.batch)
    weighted = {node.index: terms for node in graph.nodes if (terms := _macs_terms(index, node, form))}
    stored = _stored(graph)
    hidden: _Term = (float(hidden_params(graph)), [])
    sizes = _terms(
        [form.term(1.0, graph.shapes[_read(graph, at)], index.slices.get(at, {})) for at in stored.values()] + [hidden],
        n_groups,
    )
    floating = np.array([*(_is_parameter(graph, name) for name in stored), True], dtype=np.float64)
    itemsize = np.array([*(graph.constants[name].dtype.itemsize for name in stored), 0], dtype=np.float64)
    model = CostModel(
        full=full,
        macs_terms=_terms([term for terms in weighted.values() for term in terms], n_groups),
        params_terms=Terms(sizes.scale * floating, sizes.forms),
        bytes_terms=Terms(sizes.scale * itemsize, sizes.forms),
        overhead_bytes=0,
        node_macs={i: float(_terms(terms, n_groups).total(full[None])[0]) for i, terms in weighted.items()},
    )
    return replace(model, overhead_bytes=serialized_size(graph.proto) - int(model.size_bytes(full)[0]))


@dataclass(frozen=True, slots=True)
class _FormOf:
    owner: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int64]
    batch: int

    def form(self, channels: Channels) -> _Floats:
        made = np.zeros(1 + len(self.sizes))
        made[0] = np.count_nonzero(channels < 0)
        found, times = np.unique(self.owner[channels[channels >= 0]], return_counts=True)
        made[1 + found] = times / self.sizes[found]
        return made

    def term(self, scale: float, shape: tuple[int, ...], axes: Mapping[int, Channels]) -> _Term:
        uncut = math.prod(size for axis, size in enumerate(shape) if axis not in axes)
        return scale * uncut, [self.form(channels) for _, channels in sorted(axes.items())]


_Term = tuple[float, list[_Floats]]


def _terms(terms: list[_Term], n_groups: int) -> Terms:
    n_axes = max((len(forms) for _, forms in terms), default=1)
    made = np.zeros((len(terms), max(n_axes, 1), 1 + n_groups))
    made[:, :, 0] = 1
    for i, (_, forms) in enumerate(terms):
        for axis, form in enumerate(forms):
            made[i, axis] = form
    return Terms(np.array([scale for scale, _ in terms], dtype=np.float64), made)


def _macs_terms(index: GroupIndex, node: Node, form: _FormOf) -> list[_Term]:
    graph = index.graph
    works = index.work.get(node.index)
    if works is None:
        macs = full_macs(graph, node)
        return [(macs / form.batch, [])] if macs else []
    return [_work_term(index, work, form) for work in works if work.tensor in graph.shapes]


def _work_term(index: GroupIndex, work: Work, form: _FormOf) -> _Term:
    scale, forms = form.term(1 / form.batch, index.graph.shapes[work.tensor], index.axes.get(work.tensor, {}))
    return scale * work.times / math.prod(map(len, work.inner)), [*forms, *map(form.form, work.inner)]


def _stored(graph: ModelGraph) -> dict[str, Operand]:
    """Returns the constants that lie in the file, each with the operand that says how it is cut."""
    names = {t.name for t in graph.proto.graph.initializer}
    names |= {n.outputs[0] for n in graph.nodes if n.op == "Constant"}
    return {name: _cut_at(graph, name) for name in graph.constants if name in names and name in graph.readers}


def _is_parameter(graph: ModelGraph, name: str) -> bool:
    """Returns whether a constant counts as parameters: floating-point ones, and quantized weights and biases."""
    return graph.constants[name].dtype.kind == "f" or any(
        (graph.nodes[i].op == "DequantizeLinear" and at == 0)
        or at in weight_positions(graph.nodes[i])
        or (graph.nodes[i].op in INTEGER and at in operand_positions(graph.nodes[i]))
        for i, at in graph.readers[name]
    )


def _read(graph: ModelGraph, at: Operand) -> str:
    return graph.nodes[at[0]].inputs[at[1]]


def _cut_at(graph: ModelGraph, name: str) -> Operand:
    """Returns where a constant is read in the end, after what only moves it (Identity, Transpose, Reshape)."""
    at = graph.readers[name][0]
    moved = graph.nodes[at[0]].outputs[0]
    while moved in graph.readers and moved in graph.constants:
        if graph.constants[moved].size != graph.constants[name].size:
            break
        at = graph.readers[moved][0]
        moved = graph.nodes[at[0]].outputs[0]
    return at
