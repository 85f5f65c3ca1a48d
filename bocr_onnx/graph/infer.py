"""Shapes and constants: one walk in topological order, node by node.

Three kinds of knowledge about a tensor, from strong to weak:

- constant: its value depends on no input (initializers, Constant nodes, whatever follows from them);
- value: it follows from shapes alone (Shape -> Gather -> Concat chains), so it is known for the concrete shapes;
- type: element type and concrete shape, by ONNX's own inference.

One walk replaces onnx's whole-model inference because that one neither folds constants nor tells the first kind
from the second, and the cut must: a constant has to be rewritten, a value follows by itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, TypeProto, numpy_helper
from onnx.reference import ReferenceEvaluator

from bocr_onnx.graph.model import ROUNDING, Array, Node
from bocr_onnx.graph.nodes import branches_left, named
from bocr_onnx.graph.operators import full_name, operand_positions

MAX_FOLDED_ELEMENTS = 1 << 27
"""Larger constants are not computed: an untrusted file may ask for terabytes."""

FIRST_ROUNDING = 19
"""The reference implementation has no older QuantizeLinear, which meant the same."""

MAX_ALL_FOLDED = 1 << 27
"""Elements of all that is computed: a chain of large constants is left alone when this is spent."""

_OPAQUE = frozenset(
    {"RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Bernoulli", "Multinomial"}
)
_LIKE_INPUT = frozenset(
    {"GroupNormalization", "MeanVarianceNormalization"} | {"Affine", "ImageScaler", "ParametricSoftplus", "ScaledTanh"}
)
"""Operators without inference of their own, whose output is as large as their input; the last four were experiments
that ONNX gave up and ONNX Runtime still runs, as it runs Crop."""

_STANDARD = {
    "com.microsoft.BiasGelu": ("Add", 2),
    "com.microsoft.FastGelu": ("Identity", 1),
    "com.microsoft.FusedConv": ("Conv", 3),
    "com.microsoft.FusedGemm": ("Gemm", 3),
    "com.microsoft.FusedMatMul": ("MatMul", 2),
    "com.microsoft.Gelu": ("Identity", 1),
    "com.microsoft.QGemm": ("Gemm", 3),
    "com.microsoft.QLinearAdd": ("Add", 2),
    "com.microsoft.QLinearAveragePool": ("AveragePool", 1),
    "com.microsoft.QLinearConcat": ("Concat", 1 << 30),
    "com.microsoft.QLinearGlobalAveragePool": ("GlobalAveragePool", 1),
    "com.microsoft.QLinearLeakyRelu": ("LeakyRelu", 1),
    "com.microsoft.QLinearMul": ("Mul", 2),
    "com.microsoft.QLinearSigmoid": ("Sigmoid", 1),
    "com.microsoft.QuickGelu": ("Identity", 1),
    "com.microsoft.nchwc.AveragePool": ("AveragePool", 1),
    "com.microsoft.nchwc.Conv": ("Conv", 3),
    "com.microsoft.nchwc.GlobalAveragePool": ("GlobalAveragePool", 1),
    "com.microsoft.nchwc.GlobalMaxPool": ("GlobalMaxPool", 1),
    "com.microsoft.nchwc.MaxPool": ("MaxPool", 1),
    "com.microsoft.nchwc.ReorderInput": ("Identity", 1),
    "com.microsoft.nchwc.ReorderOutput": ("Identity", 1),
}
"""Operators of ONNX Runtime -> the standard one whose output is as large as theirs, and how many operands it takes."""

_OWN = frozenset(
    "channels_last channels activation activation_params activation_alpha activation_beta activation_gamma".split()
)
"""Attributes that change no shape, and that the standard operator may not have."""

_TURNS = ("transA", "transB")

_QGEMM_SCALE = 7
"""Without a scale of its output QGemm makes floating-point numbers."""
_WINDOWED = frozenset({"Conv", "ConvTranspose", "MaxPool", "AveragePool", "LpPool"})
"""Operators without an output where a window does not fit in."""

_GENERATORS = frozenset({"ConstantOfShape", "Expand", "Tile", "Range", "OneHot", "Pad", "Resize", "Upsample"})


@dataclass(slots=True)
class Knowledge:
    """What the walk has found so far, by tensor name; and what the file declares, for operators nobody knows."""

    types: dict[str, TypeProto] = field(default_factory=dict)
    constants: dict[str, Array] = field(default_factory=dict)
    values: dict[str, Array] = field(default_factory=dict)
    declared: dict[str, TypeProto] = field(default_factory=dict)
    n_folded: int = 0

    def shape(self, name: str) -> tuple[int, ...] | None:
        """Returns the concrete shape of a tensor, or None where it is unknown."""
        proto = self.types.get(name)
        if proto is None or not proto.tensor_type.HasField("shape"):
            return None
        dims = proto.tensor_type.shape.dim
        if any(not d.HasField("dim_value") for d in dims):
            return None
        return tuple(int(d.dim_value) for d in dims)

    def known(self, name: str) -> Array | None:
        """Returns the value of a tensor at the concrete shapes, or None."""
        found = self.constants.get(name)
        return self.values.get(name) if found is None else found

    def learn(self, name: str, array: Array, *, constant: bool) -> None:
        """Stores a value and the type that follows from it."""
        (self.constants if constant else self.values)[name] = array
        elem = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
        self.types[name] = onnx.helper.make_tensor_type_proto(elem, array.shape)


def walk(nodes: Iterable[tuple[Node, onnx.NodeProto]], opsets: dict[str, int], start: Knowledge) -> Knowledge:
    """Completes `start` (inputs and initializers) with what follows for every tensor.

    Args:
        nodes: In topological order, each with its proto.
        opsets: Version by domain.
        start: Types of the inputs and values of the initializers; changed in place and returned.
    """
    for node, proto in nodes:
        if not _fold(node, proto, opsets, start):
            _infer(node, proto, opsets, start)
        for name in node.outputs:
            if name in start.declared and start.shape(name) is None:
                start.types[name] = start.declared[name]
    return start


def _fold(node: Node, proto: onnx.NodeProto, opsets: dict[str, int], known: Knowledge) -> bool:
    if node.op in _OPAQUE or node.domain not in ("", "ai.onnx") or node.captures:
        return False
    if node.op == "Shape":
        return _fold_shape(node, known)
    if any(a.type == onnx.AttributeProto.GRAPH for a in proto.attribute):
        return False
    feeds = {name: known.known(name) for name in node.inputs if name}
    if any(v is None for v in feeds.values()) or not _is_small(node, feeds, known, proto, opsets):
        return False
    outputs = evaluate(proto, feeds, opsets) if known.n_folded <= MAX_ALL_FOLDED else None
    if outputs is None:
        return False
    known.n_folded += sum(np.asarray(array).size for array in outputs)
    constant = all(name in known.constants for name in feeds)
    for name, array in zip(node.outputs, outputs, strict=False):
        if name and isinstance(array, np.ndarray | np.generic):
            known.learn(name, np.asarray(array), constant=constant)
    return all(known.known(name) is not None for name in node.outputs if name)


def _fold_shape(node: Node, known: Knowledge) -> bool:
    shape = known.shape(node.inputs[0])
    if shape is None:
        return False
    begin = node.attributes.get("start", 0)
    end = node.attributes.get("end", len(shape))
    constant = node.inputs[0] in known.constants
    known.learn(node.outputs[0], np.array(shape[begin:end], dtype=np.int64), constant=constant)
    return True


def _is_small(
    node: Node, feeds: dict[str, Any], known: Knowledge, proto: onnx.NodeProto, opsets: dict[str, int]
) -> bool:
    types = _infer_types(node, proto, opsets, known)
    dims = [d for t in types.values() for d in t.tensor_type.shape.dim]
    if not types or any(not d.HasField("dim_value") for d in dims):
        if node.op not in _GENERATORS:
            return True
        return sum(np.asarray(v).size for v in feeds.values()) < 1 << 16 and node.op != "ConstantOfShape"
    return all(
        np.prod([float(d.dim_value) for d in t.tensor_type.shape.dim]) <= MAX_FOLDED_ELEMENTS for t in types.values()
    )


def evaluate(proto: onnx.NodeProto, feeds: dict[str, Any], opsets: dict[str, int]) -> list[Any] | None:
    """Returns the outputs of one node on given inputs, None where the reference implementation cannot tell."""
    graph = onnx.helper.make_graph(
        [proto],
        "fold",
        [onnx.helper.make_value_info(name, TypeProto()) for name in feeds],
        [onnx.helper.make_value_info(name, TypeProto()) for name in proto.output if name],
    )
    version = max(opsets[""], FIRST_ROUNDING) if proto.op_type in ROUNDING else opsets[""]
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", version)])
    try:
        with np.errstate(all="ignore"):
            return list(ReferenceEvaluator(model).run(None, feeds))
    except Exception:  # the reference implementation raises whatever numpy raises; unknown is a right answer
        return None


def _infer(node: Node, proto: onnx.NodeProto, opsets: dict[str, int], known: Knowledge) -> None:
    for name, found in _infer_types(node, proto, opsets, known).items():
        if name and found.WhichOneof("value") == "tensor_type":
            known.types[name] = _possible(found, node)
    if node.op == "MaxUnpool" and (size := known.known(node.input(2))) is not None and node.inputs[0] in known.types:
        elem = known.types[node.inputs[0]].tensor_type.elem_type
        known.types[node.outputs[0]] = onnx.helper.make_tensor_type_proto(elem, size.tolist())  # onnx leaves it open


def _possible(found: TypeProto, node: Node) -> TypeProto:
    """Returns the type without a shape where a size is negative: its input is too small for the operator's window."""
    least = 1 if node.op in _WINDOWED else 0
    if any(d.HasField("dim_value") and d.dim_value < least for d in found.tensor_type.shape.dim):
        return onnx.helper.make_tensor_type_proto(found.tensor_type.elem_type, None)
    return found


def _infer_if(node: Node, proto: onnx.NodeProto, opsets: dict[str, int], known: Knowledge) -> dict[str, TypeProto]:
    """Returns the output types on which the branches agree, of those that the condition leaves, where it is known."""
    found: list[list[TypeProto | None]] = []
    for body in branches_left(proto, known.known(node.inputs[0])):
        inner = replace(known, types=dict(known.types), constants=dict(known.constants), values=dict(known.values))
        for tensor in body.initializer:
            inner.learn(tensor.name, numpy_helper.to_array(tensor), constant=True)
        walk(zip(named(body.node), body.node, strict=True), opsets, inner)
        known.n_folded = inner.n_folded
        found.append([inner.types.get(o.name) for o in body.output])
    outputs = zip(node.outputs, *found, strict=True) if found else ()
    return {name: t for name, t, *others in outputs if t is not None and all(o == t for o in others)}


def _infer_types(node: Node, proto: onnx.NodeProto, opsets: dict[str, int], known: Knowledge) -> dict[str, TypeProto]:
    if node.op == "If" and not node.domain:
        return _infer_if(node, proto, opsets, known)
    if full_name(node) in _STANDARD and not node.attributes.get("channels_last", 0):
        return _infer_as_standard(node, proto, opsets, known)
    domain = "" if node.domain == "ai.onnx" else node.domain
    if domain not in opsets or any(a.type == onnx.AttributeProto.GRAPH for a in proto.attribute):
        return {}
    if any(name and name not in known.types for name in node.inputs):
        return {}
    data: dict[str, TensorProto] = {}
    for position, name in enumerate(node.inputs):
        value = known.known(name) if name else None
        if value is not None and (position > 0 or value.size <= 64) and value.size <= 1024:
            data[name] = numpy_helper.from_array(np.asarray(value), name)
    try:
        types = {name: known.types[name] for name in node.inputs if name}
        if not domain and node.op in _LIKE_INPUT:
            return {node.outputs[0]: types[node.inputs[0]]}
        if not domain and node.op == "Crop":
            return _infer_crop(node, types[node.inputs[0]])
        schema = onnx.defs.get_schema(node.op, opsets[domain], domain)
        imports = [onnx.helper.make_opsetid(domain, opsets[domain])]
        if schema.has_type_and_shape_inference_function:
            return dict(onnx.shape_inference.infer_node_outputs(schema, proto, types, data, opset_imports=imports))
        return _infer_body(proto, types, data, imports)
    except Exception:  # onnx raises C++ errors of several kinds; an unknown shape freezes what depends on it
        return {}


def _infer_crop(node: Node, image: TypeProto) -> dict[str, TypeProto]:
    """Returns the type of what is left of height and width, the last two axes; nothing where no pixel is left."""
    dims = [d.dim_value for d in image.tensor_type.shape.dim]
    left, top, right, bottom = node.attributes.get("border", (0, 0, 0, 0))
    size = node.attributes.get("scale") or [
        n - cut for n, cut in zip(dims[2:], (top + bottom, left + right), strict=False)
    ]
    if len(dims) != 4 or len(size) != 2 or min(size) < 1:
        return {}
    return {node.outputs[0]: onnx.helper.make_tensor_type_proto(image.tensor_type.elem_type, [*dims[:2], *size])}


def _infer_as_standard(
    node: Node, proto: onnx.NodeProto, opsets: dict[str, int], known: Knowledge
) -> dict[str, TypeProto]:
    """Returns the output types of an operator that computes as a standard one does on some of its inputs."""
    op, n_operands = _STANDARD[full_name(node)]
    inputs = tuple(node.inputs[p] for p in operand_positions(node)[:n_operands])
    if not inputs or any(name not in known.types for name in inputs):
        return {}
    apart = tuple(f"{i}" for i in range(len(inputs)))  # a tensor may be both factors, each turned in its own way
    like = replace(node, op=op, domain="", inputs=apart)
    made = onnx.helper.make_node(op, apart, like.outputs)
    made.attribute.extend(a for a in proto.attribute if a.name not in _OWN and op not in ("MatMul", "Identity"))
    types = {own: _typed(known.types[name], TensorProto.FLOAT) for own, name in zip(apart, inputs, strict=True)}
    if op == "MatMul":
        types = {own: _turned(types[own], node.attributes.get(t, 0)) for own, t in zip(apart, _TURNS, strict=True)}
    scaled = node.op != "QGemm" or node.input(_QGEMM_SCALE)
    kind = known.types[inputs[0]].tensor_type.elem_type if scaled else TensorProto.FLOAT
    found = _infer_types(like, made, opsets, Knowledge(types))
    if node.op == "ReorderOutput":
        found = {name: _with_channels(inferred, node.attributes) for name, inferred in found.items()}
    return {name: _typed(inferred, kind) for name, inferred in found.items()}


def _turned(proto: TypeProto, turned: int) -> TypeProto:
    """Returns a type whose last two axes have changed places, where they do."""
    dims = [d.dim_value for d in proto.tensor_type.shape.dim]
    if turned and len(dims) > 1:
        dims[-2:] = dims[:-3:-1]
    return onnx.helper.make_tensor_type_proto(proto.tensor_type.elem_type, dims)


def _with_channels(proto: TypeProto, attributes: Mapping[str, Any]) -> TypeProto:
    """Returns a type with the number of channels that are left when a blocked layout is undone."""
    made = _typed(proto, proto.tensor_type.elem_type)
    made.tensor_type.shape.dim[1].dim_value = int(attributes.get("channels", 0))
    return made


def _typed(proto: TypeProto, kind: int) -> TypeProto:
    made = TypeProto()
    made.CopyFrom(proto)
    made.tensor_type.elem_type = kind
    return made


def _infer_body(
    proto: onnx.NodeProto,
    types: dict[str, TypeProto],
    data: dict[str, TensorProto],
    imports: list[onnx.OperatorSetIdProto],
) -> dict[str, TypeProto]:
    """Returns the output types of an operator that is defined by its body alone, such as GreaterOrEqual."""
    inputs = [onnx.helper.make_value_info(name, t) for name, t in types.items()]
    outputs = [onnx.ValueInfoProto(name=name) for name in proto.output if name]
    graph = onnx.helper.make_graph([proto], "node", inputs, outputs, list(data.values()))
    model = onnx.shape_inference.infer_shapes(onnx.helper.make_model(graph, opset_imports=imports), data_prop=True)
    return {info.name: info.type for info in model.graph.output}
