"""An ONNX file becomes a `ModelGraph`: read, check, order, name, infer."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, numpy_helper
from onnx.inliner import inline_local_functions

from bocr_onnx.errors import ModelError
from bocr_onnx.graph.infer import Knowledge, walk
from bocr_onnx.graph.model import ModelGraph, Node, Operand
from bocr_onnx.graph.shuffle import gather_shuffles, has_shuffles
from bocr_onnx.graph.unshare import unshare_dequantized

MAX_INLINED_NODES = 200_000
MAX_ELEMENTS = 1 << 28
FIRST_OPSET = 7

STAND_INS = {2: 512, 3: 224, 4: 224, 5: 32}
"""By the rank of an input, what stands in for its open axes behind the channels: the samples of a signal, the sides of
an image or a volume. MACs need a size, and the kept share hardly depends on which. Other open axes count as 1."""

OTHER_SIZES = {1: 5, 512: 1024, 224: 160, 32: 48}
"""What open axes are fed with a second time, so that nothing holds only for the first size."""

ODD_SIZES, EVEN_SIZES = {1: 131, 512: 1021, 224: 509, 32: 61}, {1: 131, 512: 2048, 224: 544, 32: 96}
"""What open axes are analysed with again: sizes that no bound or divisor makes equal to the first, and sizes that fit
networks which need whole blocks of 32."""


def load(path: str | Path) -> ModelGraph:
    """Returns the graph of an ONNX file.

    Args:
        path: The .onnx file; external data is looked for in its folder only.

    Raises:
        ModelError: The file is missing, is not ONNX, is invalid, or its external data is missing or lies
            outside the file's folder.
    """
    path = Path(path)
    try:
        if path.is_dir():
            raise ModelError(f"{path} must be an ONNX file, got a folder")
        if path.exists() and not path.is_file():
            raise ModelError(f"{path} must be an ONNX file, got a device or a pipe")
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise ModelError(f"{path} must be an ONNX file, got no such file") from error
    except OSError as error:
        raise ModelError(f"{path} must be readable, got {error.strerror}") from error
    try:
        proto = onnx.load_model_from_string(data)
    except (DecodeError, ValueError) as error:
        raise ModelError(
            f"{path} must be an ONNX file, got bytes that do not parse", hint="Is the download complete?"
        ) from error
    external = _read_external(proto, path)
    return from_proto(proto, path=path, sha256=hashlib.sha256(data).hexdigest(), external=external)


def from_proto(
    proto: ModelProto, *, path: Path | None = None, sha256: str = "", external: tuple[Path, ...] = ()
) -> ModelGraph:
    """Returns the graph of a model that is already in memory, with its weights inside.

    Args:
        proto: The model; not changed, and must not be changed by the caller afterwards.
        path: Named in errors.
        sha256: Digest of the file; computed where it is empty.
        external: The files its weights came from, where they lay outside the model.

    Raises:
        ModelError: The model is invalid.

    Example:
        >>> proto = onnx.parser.parse_model('''
        ... <ir_version: 8, opset_import: ["" : 17]>
        ... tiny (float[N, 2, 4, 4] x) => (float[N, 2, 4, 4] y) { y = Relu(x) }''')
        >>> from_proto(proto).shapes["y"]
        (1, 2, 4, 4)
    """
    label = str(path) if path else "the model"
    if not proto.HasField("graph") or not proto.graph.node:
        raise ModelError(f"{label} must hold a graph with nodes, got none", hint="Is the file an ONNX model?")
    _check_inlining(proto, label)
    strict = _check(proto, label)
    if proto.functions:
        proto, strict = _inlined(proto, label)
    opsets = {("" if o.domain == "ai.onnx" else o.domain): o.version for o in proto.opset_import}
    opsets.setdefault("", FIRST_OPSET)
    if opsets[""] < FIRST_OPSET:
        raise ModelError(
            f"{label} must use operator set {FIRST_OPSET} or newer, got {opsets['']}",
            hint="Convert it: onnx.version_converter.convert_version(model, 13)",
        )
    sha256 = sha256 or hashlib.sha256(proto.SerializeToString(deterministic=True)).hexdigest()
    return _read(unshare_dequantized(proto), opsets, label, path, sha256, external, strict=strict)


def _read(
    proto: ModelProto,
    opsets: dict[str, int],
    label: str,
    path: Path | None,
    sha256: str,
    external: tuple[Path, ...],
    *,
    strict: bool,
    shuffled: bool = True,
) -> ModelGraph:
    """Returns the graph of a checked model; `shuffled` where channel shuffles may still be in it."""
    protos = _topological(proto.graph, label)
    for node in protos:
        _check_parts(node, label)
    nodes = tuple(_named(protos))
    initializers = {t.name for t in proto.graph.initializer} | {t.values.name for t in proto.graph.sparse_initializer}
    inputs = tuple(i.name for i in proto.graph.input if i.name not in initializers)
    known = _start(proto, inputs, label)
    walk(zip(nodes, protos, strict=True), opsets, known)
    symbolic = {i.name: axes for i in proto.graph.input if (axes := _open_axes(i))}
    readers = _readers(nodes)
    at_size = _Walker(proto, list(zip(nodes, protos, strict=True)), opsets, known, set(inputs))
    if shuffled and has_shuffles(nodes, readers):
        gathered = gather_shuffles(proto, nodes, readers, [known, *at_size.walk(OTHER_SIZES)], opsets)
        if gathered is not None:
            return _read(gathered, opsets, label, path, sha256, external, strict=strict, shuffled=False)
    sizes = [known, *at_size.walk(ODD_SIZES)]
    if any(name not in sizes[-1].values for name in known.values):
        sizes += at_size.walk(EVEN_SIZES)
    _keep_values(sizes)
    outputs = tuple(o.name for o in proto.graph.output)
    _check_sizes(known, label)
    shapes = {name: s for name in known.types if (s := known.shape(name)) is not None}
    return ModelGraph(
        proto=proto,
        path=path,
        sha256=sha256,
        opset=opsets[""],
        nodes=nodes,
        inputs=inputs,
        outputs=outputs,
        shapes=shapes,
        dtypes={name: t.tensor_type.elem_type for name, t in known.types.items()},
        constants=known.constants,
        values=known.values,
        readers=readers,
        producer={name: node.index for node in nodes for name in node.outputs if name},
        symbolic=symbolic,
        external=external,
        strict=strict,
        other_shapes={name: s for name in known.types if (s := sizes[-1].shape(name)) is not None},
    )


def _check(proto: ModelProto, label: str) -> bool:
    try:
        onnx.checker.check_model(proto, full_check=True)
        return True
    except Exception:  # onnx maps C++ errors to several classes; the second check decides
        pass
    try:
        onnx.checker.check_model(proto, full_check=False)
    except Exception as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(
            f"{label} must be a valid ONNX model, got: {first}",
            hint="Export it again, or look at it with: python -m onnx.checker",
        ) from error
    return False


def _check_inlining(proto: ModelProto, label: str) -> None:
    """Bounds the size a model has once its local functions are inlined: nesting doubles it at every level."""
    bodies = {(f.domain, f.name): f for f in proto.functions}
    sizes: dict[tuple[str, str], int] = {}

    def size(key: tuple[str, str], above: frozenset[tuple[str, str]]) -> int:
        if key in above:
            raise ModelError(f"{label}: local function {key[1]!r} must not call itself")
        if key not in sizes:
            inner = above | {key}
            calls = ((n.domain, n.op_type) for n in bodies[key].node)
            sizes[key] = sum(size(c, inner) if c in bodies else 1 for c in calls)
        return sizes[key]

    total = sum(size(k, frozenset()) for n in proto.graph.node if (k := (n.domain, n.op_type)) in bodies)
    if total > MAX_INLINED_NODES:
        raise ModelError(f"{label} must have at most {MAX_INLINED_NODES} nodes with its functions inlined, got {total}")


def _inlined(proto: ModelProto, label: str) -> tuple[ModelProto, bool]:
    """Returns the model without local functions, and whether it passes the full check."""
    try:
        made = inline_local_functions(proto)
    except Exception as error:  # the inliner raises C++ errors
        raise ModelError(f"{label} must call its local functions as they are declared, got: {error}") from error
    return made, _check(made, label)


def _check_parts(node: NodeProto, label: str) -> None:
    """Refuses a Split whose attribute contradicts its outputs, which ends the process in ONNX Runtime."""
    declared = next((a.i for a in node.attribute if a.name == "num_outputs"), len(node.output))
    if node.op_type == "Split" and declared != len(node.output):
        raise ModelError(f"{label}: Split {node.name!r} must have {declared} outputs, got {len(node.output)}")


def _check_sizes(known: Knowledge, label: str) -> None:
    for name in known.types:
        shape = known.shape(name)
        if shape is not None and math.prod(shape) > MAX_ELEMENTS:
            raise ModelError(f"{label}: tensor {name!r} must have at most {MAX_ELEMENTS} elements, got shape {shape}")


def _read_external(proto: ModelProto, path: Path) -> tuple[Path, ...]:
    folder = path.parent.resolve()
    found: dict[Path, None] = {}
    for tensor in _tensors(proto.graph):
        if tensor.data_location != TensorProto.EXTERNAL:
            continue
        location = next((e.value for e in tensor.external_data if e.key == "location"), "")
        target = (folder / location.replace("\0", "")).resolve()
        if not location or "\0" in location or Path(location).is_absolute() or not target.is_relative_to(folder):
            raise ModelError(
                f"{path}: external data of tensor {tensor.name!r} must lie in the model's folder, got {location!r}"
            )
        if not target.is_file():
            raise ModelError(
                f"{path}: external data of tensor {tensor.name!r} must exist, got no file {target}",
                hint=f"Put {location} beside {path.name}; exporters write the two together.",
            )
        try:
            onnx.external_data_helper.load_external_data_for_tensor(tensor, str(folder))
            numpy_helper.to_array(tensor)
        except Exception as error:
            raise ModelError(
                f"{path}: external data of tensor {tensor.name!r} must be readable from {target}, got: {error}",
                hint="Is the file complete? Export the model again.",
            ) from error
        found[target] = None
        tensor.data_location = TensorProto.DEFAULT
        del tensor.external_data[:]
    return tuple(found)


def _tensors(graph: GraphProto) -> Iterator[TensorProto]:
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == AttributeProto.TENSOR:
                yield attribute.t
            elif attribute.type == AttributeProto.TENSORS:
                yield from attribute.tensors
            for subgraph in _subgraphs(attribute):
                yield from _tensors(subgraph)


def _subgraphs(attribute: AttributeProto) -> list[GraphProto]:
    if attribute.type == AttributeProto.GRAPH:
        return [attribute.g]
    return list(attribute.graphs) if attribute.type == AttributeProto.GRAPHS else []


def _topological(graph: GraphProto, label: str) -> list[NodeProto]:
    made = {i.name for i in graph.input} | {t.name for t in graph.initializer} | {""}
    made |= {t.values.name for t in graph.sparse_initializer}
    ordered: list[NodeProto] = []
    waiting = list(graph.node)
    while waiting:
        rest = []
        for node in waiting:
            if all(name in made for name in (*node.input, *_captures(node))):
                ordered.append(node)
                made.update(node.output)
            else:
                rest.append(node)
        if len(rest) == len(waiting):
            missing = next(name for name in (*rest[0].input, *_captures(rest[0])) if name not in made)
            raise ModelError(
                f"{label}: node {rest[0].name or rest[0].op_type!r} must read tensors made before it, "
                f"got {missing!r}, which nothing makes or which depends on itself"
            )
        waiting = rest
    return ordered


def _captures(node: NodeProto) -> tuple[str, ...]:
    names: set[str] = set()
    for attribute in node.attribute:
        for graph in _subgraphs(attribute):
            own = {i.name for i in graph.input} | {t.name for t in graph.initializer}
            own |= {name for inner in graph.node for name in inner.output}
            for inner in graph.node:
                names |= {n for n in (*inner.input, *_captures(inner)) if n and n not in own}
            names |= {o.name for o in graph.output if o.name not in own}
    return tuple(sorted(names))


def _named(protos: list[NodeProto]) -> Iterator[Node]:
    count = Counter(p.name for p in protos)
    for index, proto in enumerate(protos):
        name = proto.name
        if not name or count[name] > 1:
            name = f"{proto.op_type}_{index}"
            while name in count:
                name += "_"
        yield Node(
            index=index,
            name=name,
            op=proto.op_type,
            domain="" if proto.domain == "ai.onnx" else proto.domain,
            inputs=tuple(proto.input),
            outputs=tuple(proto.output),
            attributes={a.name: _value(a) for a in proto.attribute if not _subgraphs(a)},
            captures=_captures(proto),
        )


def _value(attribute: AttributeProto) -> Any:
    value = onnx.helper.get_attribute_value(attribute)
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="replace")
    if isinstance(value, TensorProto):
        return numpy_helper.to_array(value)
    return list(value) if attribute.type == AttributeProto.INTS else value


def _start(proto: ModelProto, inputs: tuple[str, ...], label: str) -> Knowledge:
    known = Knowledge()
    for tensor in proto.graph.initializer:
        try:
            known.learn(tensor.name, numpy_helper.to_array(tensor), constant=True)
        except Exception as error:
            raise ModelError(
                f"{label}: initializer {tensor.name!r} must hold the data its shape asks for, got: {error}"
            ) from error
    for info in proto.graph.input:
        if info.name in inputs and info.type.WhichOneof("value") == "tensor_type":
            known.types[info.name] = _concrete(info)
    known.declared = _declared(proto, known)
    return known


def _declared(proto: ModelProto, known: Knowledge) -> dict[str, onnx.TypeProto]:
    """Returns the types that the file declares for inner tensors, where their open axes are those of an input."""
    sizes: dict[str, int] = {}
    for info in proto.graph.input:
        for dim, size in zip(info.type.tensor_type.shape.dim, known.shape(info.name) or (), strict=False):
            sizes[dim.dim_param] = size
    found = {}
    for info in proto.graph.value_info:
        made = onnx.TypeProto()
        made.CopyFrom(info.type)
        for dim in made.tensor_type.shape.dim:
            if not dim.HasField("dim_value") and dim.dim_param in sizes and dim.dim_param:
                dim.dim_value = sizes[dim.dim_param]
        if made.tensor_type.HasField("shape") and all(d.dim_value > 0 for d in made.tensor_type.shape.dim):
            found[info.name] = made
    return found


def _concrete(info: onnx.ValueInfoProto, others: Mapping[int, int] = MappingProxyType({})) -> onnx.TypeProto:
    made = onnx.TypeProto()
    made.CopyFrom(info.type)
    dims = made.tensor_type.shape.dim
    for axis in _open_axes(info):
        size = STAND_INS.get(len(dims), 1) if axis >= min(2, len(dims) - 1) else 1
        dims[axis].Clear()
        dims[axis].dim_value = others.get(size, size)
    return made


@dataclass(frozen=True, slots=True)
class _Walker:
    """A model whose inputs may have other sizes than those it was read with."""

    proto: ModelProto
    nodes: list[tuple[Node, NodeProto]]
    opsets: dict[str, int]
    known: Knowledge
    inputs: set[str]

    def walk(self, sizes: Mapping[int, int]) -> list[Knowledge]:
        """Returns what is known when open axes have other sizes; nothing where none is open."""
        known = self.known
        opened = [i for i in self.proto.graph.input if i.name in self.inputs and _open_axes(i)]
        if not opened:
            return []
        types = {name: known.types[name] for name in (*self.inputs, *known.constants) if name in known.types}
        types |= {info.name: _concrete(info, sizes) for info in opened}
        computed = [(n, p) for n, p in self.nodes if any(o not in known.constants for o in n.outputs if o)]
        again = Knowledge(types, dict(known.constants))
        again.declared = _declared(self.proto, again)
        return [walk(computed, self.opsets, again)]


def _keep_values(sizes: list[Knowledge]) -> None:
    """Makes constants of the values that are the same at every size of the inputs, as far as these are known."""
    known, *others = sizes
    for name, value in list(known.values.items()):
        found = [other.values[name] for other in others if name in other.values]
        if (found or not others) and all(np.array_equal(value, other) for other in found):
            known.constants[name] = known.values.pop(name)


def _open_axes(info: onnx.ValueInfoProto) -> tuple[int, ...]:
    dims = info.type.tensor_type.shape.dim
    return tuple(axis for axis, d in enumerate(dims) if not d.HasField("dim_value") or d.dim_value <= 0)


def _readers(nodes: tuple[Node, ...]) -> dict[str, tuple[Operand, ...]]:
    found: dict[str, list[Operand]] = {}
    for node in nodes:
        for position, name in enumerate(node.inputs):
            if name:
                found.setdefault(name, []).append((node.index, position))
    return {name: tuple(operands) for name, operands in found.items()}


MAX_FEED_ELEMENTS = 1 << 26


def random_feeds(
    graph: ModelGraph, *, batch: int = 1, seed: int = 0, other_sizes: bool = False
) -> dict[str, np.ndarray[Any, Any]]:
    """Returns seeded random inputs that fit the graph.

    Args:
        graph: The model.
        batch: Used for the first axis, where every input leaves it open.
        seed: Of the generator.
        other_sizes: Whether the other open axes get sizes that the graph was not analysed with.

    Returns:
        Standard normal arrays for floating inputs, zeros for the others, keyed by input name.

    Raises:
        ModelError: An input's shape is unknown, or it is larger than any image.
    """
    rng = np.random.default_rng(seed)
    feeds = {}
    for name in graph.inputs:
        if name not in graph.shapes:
            raise ModelError(f"{graph.label}: input {name!r} must be a tensor of known rank, got another type")
        shape = list(graph.shapes[name])
        for axis in graph.symbolic.get(name, ()):
            if axis == 0:
                shape[0] = batch if graph.batch_is_symbolic() else shape[0]
            elif other_sizes:
                shape[axis] = OTHER_SIZES.get(shape[axis], shape[axis])
        if math.prod(shape) > MAX_FEED_ELEMENTS:
            raise ModelError(f"{graph.label}: input {name!r} must be of a size that can be fed, got {tuple(shape)}")
        dtype = onnx.helper.tensor_dtype_to_np_dtype(graph.dtypes[name])
        floating = np.issubdtype(dtype, np.floating)
        feeds[name] = rng.standard_normal(shape).astype(dtype) if floating else np.zeros(shape, dtype=dtype)
    return feeds
