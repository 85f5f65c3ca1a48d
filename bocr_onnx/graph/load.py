"""An ONNX file becomes a `ModelGraph`: read, check, order, name, infer."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from types import MappingProxyType

import onnx
from google.protobuf.message import DecodeError
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, numpy_helper
from onnx.inliner import inline_local_functions

from bocr_onnx.errors import ModelError
from bocr_onnx.graph.canonical import canonical
from bocr_onnx.graph.infer import Knowledge, walk
from bocr_onnx.graph.model import ModelGraph, Node, Operand
from bocr_onnx.graph.nodes import captures, named, subgraphs
from bocr_onnx.graph.shuffle import gather_shuffles, has_shuffles
from bocr_onnx.graph.sizes import (
    InputShapes,
    Resized,
    even_size,
    keep_values,
    odd_size,
    open_axes,
    other_size,
    start,
)

MAX_INLINED_NODES, MAX_NESTED = 200_000, 200
MAX_ELEMENTS = 1 << 28
FIRST_OPSET = 7


def load(source: str | Path | ModelProto, input_shapes: InputShapes = MappingProxyType({})) -> ModelGraph:
    """Returns the graph of an ONNX file, or of a model in memory with its weights inside.

    Args:
        source: The .onnx file, whose external data is looked for in its folder only; or the model, of which a copy is
            taken.
        input_shapes: Shapes of inputs, for the axes that the file leaves open; the file keeps them open.

    Raises:
        ModelError: The file is missing, is not ONNX, is invalid, or its external data is missing or lies
            outside the file's folder.
        UsageError: A shape is of no input, or does not fit it.
    """
    if isinstance(source, ModelProto):
        copy = ModelProto()
        copy.CopyFrom(source)
        return from_proto(copy, input_shapes=input_shapes)
    path = Path(source)
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
    return from_proto(proto, path=path, sha256=_digest(data, external), external=external, input_shapes=input_shapes)


def resized(graph: ModelGraph, input_shapes: InputShapes) -> ModelGraph:
    """Returns the graph of the same file, read with other sizes for the open axes of its inputs.

    Raises:
        ModelError: A tensor becomes too large.
        UsageError: A shape is of no input, or does not fit it.
    """
    proto = graph.proto if graph.written is None else graph.written
    return from_proto(proto, path=graph.path, sha256=graph.sha256, external=graph.external, input_shapes=input_shapes)


def _digest(data: bytes, external: tuple[Path, ...]) -> str:
    """Returns the sha256 of a file, and of its external data after it."""
    digest = hashlib.sha256(data)
    for path in external:
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()


def from_proto(
    proto: ModelProto,
    *,
    path: Path | None = None,
    sha256: str = "",
    external: tuple[Path, ...] = (),
    input_shapes: InputShapes = MappingProxyType({}),
) -> ModelGraph:
    """Returns the graph of a model that is already in memory, with its weights inside.

    Args:
        proto: The model; not changed, and must not be changed by the caller afterwards.
        path: Named in errors.
        sha256: Digest of the file; computed where it is empty.
        external: The files its weights came from, where they lay outside the model.
        input_shapes: Shapes of inputs, for the axes that the model leaves open.

    Raises:
        ModelError: The model is invalid.
        UsageError: A shape is of no input, or does not fit it.

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
    source = Source(label, opsets, strict, path, sha256, external)
    graph = read_checked(canonical(proto), source, input_shapes)
    return graph if graph.proto is proto else replace(graph, written=proto)


@dataclass(frozen=True, slots=True)
class Source:
    """Where a checked model comes from.

    Attributes:
        label: Name for messages.
        opsets: Versions of its operator sets, by domain.
        strict: Whether it passed the full check.
        path: Its file; None for a model in memory.
        sha256: Its digest.
        external: Files that its weights came from.
    """

    label: str
    opsets: dict[str, int]
    strict: bool
    path: Path | None = None
    sha256: str = ""
    external: tuple[Path, ...] = ()


def read_checked(proto: ModelProto, source: Source, input_shapes: InputShapes, *, shuffled: bool = True) -> ModelGraph:
    """Returns the graph of a checked model; `shuffled` where channel shuffles may still be in it."""
    label, opsets = source.label, source.opsets
    protos = _topological(proto.graph, label)
    for node in protos:
        _check_parts(node, label)
    nodes = tuple(named(protos))
    initializers = {t.name for t in proto.graph.initializer} | {t.values.name for t in proto.graph.sparse_initializer}
    inputs = tuple(i.name for i in proto.graph.input if i.name not in initializers)
    known = start(proto, inputs, label, input_shapes)
    walk(zip(nodes, protos, strict=True), opsets, known)
    symbolic = {i.name: axes for i in proto.graph.input if (axes := open_axes(i))}
    readers = _readers(nodes)
    at_size = Resized(proto, list(zip(nodes, protos, strict=True)), opsets, known, set(inputs))
    if shuffled and has_shuffles(nodes, readers):
        gathered = gather_shuffles(proto, nodes, readers, [known, *at_size.walk(other_size)], opsets)
        if gathered is not None:
            return read_checked(gathered, source, input_shapes, shuffled=False)
    sizes = [known, *at_size.walk(odd_size)]
    if any(name not in sizes[-1].values for name in known.values):
        sizes += at_size.walk(even_size)
    keep_values(sizes)
    outputs = tuple(o.name for o in proto.graph.output)
    _check_sizes(known, label)
    shapes = {name: s for name in known.types if (s := known.shape(name)) is not None}
    return ModelGraph(
        proto=proto,
        path=source.path,
        sha256=source.sha256,
        opset=opsets[""],
        nodes=nodes,
        inputs=inputs,
        outputs=outputs,
        shapes=shapes,
        dtypes={  # what outputs declare counts where inference ends at an operator without a schema
            name: type_.tensor_type.elem_type
            for name, type_ in [*((o.name, o.type) for o in proto.graph.output), *known.types.items()]
        },
        constants=known.constants,
        values=known.values,
        readers=readers,
        producer={name: node.index for node in nodes for name in node.outputs if name},
        symbolic=symbolic,
        external=source.external,
        strict=source.strict,
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
        if len(above) >= MAX_NESTED:
            raise ModelError(f"{label}: local functions must be nested at most {MAX_NESTED} deep")
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
    bodies = (_tensors_of(node) for function in proto.functions for node in function.node)
    for tensor in chain(_tensors(proto.graph), *bodies):
        if tensor.data_location != TensorProto.EXTERNAL:
            continue
        location = next((e.value for e in tensor.external_data if e.key == "location"), "")
        target = (folder / location.replace("\0", "")).resolve()
        if not location or "\0" in location or Path(location).is_absolute() or not target.is_relative_to(folder):
            raise ModelError(
                f"{path}: external data of tensor {tensor.name!r} must be in the model's folder, got {location!r}"
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
        yield from _tensors_of(node)


def _tensors_of(node: NodeProto) -> Iterator[TensorProto]:
    for attribute in node.attribute:
        if attribute.type == AttributeProto.TENSOR:
            yield attribute.t
        elif attribute.type == AttributeProto.TENSORS:
            yield from attribute.tensors
        for subgraph in subgraphs(attribute):
            yield from _tensors(subgraph)


def _topological(graph: GraphProto, label: str) -> list[NodeProto]:
    made = {i.name for i in graph.input} | {t.name for t in graph.initializer} | {""}
    made |= {t.values.name for t in graph.sparse_initializer}
    ordered: list[NodeProto] = []
    waiting = list(graph.node)
    while waiting:
        rest = []
        for node in waiting:
            if all(name in made for name in (*node.input, *captures(node))):
                ordered.append(node)
                made.update(node.output)
            else:
                rest.append(node)
        if len(rest) == len(waiting):
            missing = next(name for name in (*rest[0].input, *captures(rest[0])) if name not in made)
            raise ModelError(
                f"{label}: node {rest[0].name or rest[0].op_type!r} must read tensors made before it, "
                f"got {missing!r}, which nothing makes or which depends on itself"
            )
        waiting = rest
    return ordered


def _readers(nodes: tuple[Node, ...]) -> dict[str, tuple[Operand, ...]]:
    found: dict[str, list[Operand]] = {}
    for node in nodes:
        for position, name in enumerate(node.inputs):
            if name:
                found.setdefault(name, []).append((node.index, position))
    return {name: tuple(operands) for name, operands in found.items()}
