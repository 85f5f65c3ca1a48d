"""What an If may do, as graphs of their own: to count what they cost, not to cut them."""

from __future__ import annotations

from onnx import GraphProto, ModelProto, helper, numpy_helper

from bocr_onnx.graph.load import Source, read_checked
from bocr_onnx.graph.model import ModelGraph, Node
from bocr_onnx.graph.nodes import branches_left, outer_reads


def branches(graph: ModelGraph, node: Node) -> tuple[ModelGraph, ...]:
    """Returns the branches of an If that its condition leaves, as far as their outer tensors have known shapes.

    Args:
        graph: The model.
        node: An If of it.
    """
    source = next(n for n in graph.proto.graph.node if set(n.output) & set(node.outputs) - {""})
    condition = graph.constants.get(node.inputs[0], graph.values.get(node.inputs[0]))
    bodies = branches_left(source, condition)
    return tuple(found for body in bodies if (found := _as_graph(graph, body)) is not None)


def _as_graph(graph: ModelGraph, body: GraphProto) -> ModelGraph | None:
    made = ModelProto(ir_version=max(graph.proto.ir_version, 4), opset_import=graph.proto.opset_import)
    made.graph.CopyFrom(body)
    made.graph.name = body.name or "branch"
    for name in outer_reads(body):
        value = graph.constant(name)
        if value is not None:
            made.graph.initializer.append(numpy_helper.from_array(value, name))
        elif name in graph.shapes:
            made.graph.input.append(helper.make_tensor_value_info(name, graph.dtypes[name], graph.shapes[name]))
        else:
            return None
    del made.graph.value_info[:]
    opsets = {("" if o.domain == "ai.onnx" else o.domain): o.version for o in made.opset_import}
    return read_checked(made, Source(f"a branch of {graph.label}", opsets, strict=False), {})
