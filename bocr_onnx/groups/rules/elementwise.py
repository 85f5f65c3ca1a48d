"""Element-wise operators keep every channel where it is and join the labels that meet.

y[c] = f(a[c], b[c])    a and b computed: channel c of both is one channel
y[c] = f(a[c], k[c])    k constant: k is cut with a
y[c] = f(a[c], b[0])    b has one entry along the axis: it broadcasts, nothing is joined
"""

from __future__ import annotations

from collections.abc import Mapping

from bocr_onnx.graph import Node
from bocr_onnx.groups.labels import Axes, Labeller, Labels
from bocr_onnx.groups.rules.registry import rule

UNARY = (
    "Abs Acos Acosh Asin Asinh Atan Atanh BitwiseNot Cast Ceil Celu Cos Cosh Elu Erf Exp Floor Gelu "
    "HardSigmoid HardSwish Identity IsInf IsNaN LeakyRelu Log Mish Neg Not Reciprocal Relu Round Selu "
    "Shrink Sigmoid Sign Sin Sinh Softplus Softsign Sqrt Swish Tan Tanh ThresholdedRelu Clip Dropout"
).split()

BROADCAST = (
    "Add Sub Mul Div Pow Mod Min Max Sum Mean Where PRelu And Or Xor Equal Greater GreaterOrEqual Less "
    "LessOrEqual BitShift BitwiseAnd BitwiseOr BitwiseXor"
).split()


@rule(*UNARY)
def unary(node: Node, at: Labeller) -> None:
    """Carries labels through operators of one tensor (further inputs are scalars)."""
    axes = at.read(node.inputs[0])
    for name in node.outputs:
        at.emit(name, axes)


@rule(*BROADCAST, opset=(7, 1_000))
def broadcast(node: Node, at: Labeller) -> None:
    """Carries labels through operators of several tensors under numpy's broadcasting."""
    shapes = [at.shape(name) for name in node.inputs]
    shape = at.shape(node.outputs[0])
    if shape is None or any(s is None for s in shapes):
        at.freeze_inputs(node, "a shape is unknown")
        return
    out: Axes = {}
    for name, own in zip(node.inputs, shapes, strict=True):
        shift = len(shape) - len(own or ())
        for axis, labels in at.read(name).items():
            if own is not None and own[axis] == shape[axis + shift]:
                known = out.setdefault(axis + shift, labels)
                if known is not labels:
                    at.join(known, labels)
    for position in range(len(node.inputs)):
        follow_broadcast(node, at, position, out, len(shape))
    at.emit(node.outputs[0], out)


def follow_broadcast(node: Node, at: Labeller, position: int, out: Mapping[int, Labels], rank: int) -> None:
    """Cuts a constant operand with the axes it meets; freezes them where a computed one is unlabelled."""
    name = node.inputs[position]
    shape = at.shape(name) or ()
    own = at.read(name)
    for axis, labels in out.items():
        local = axis - (rank - len(shape))
        if local < 0 or shape[local] != len(labels) or len(labels) == 1:
            continue
        if at.constant(name) is not None:
            at.cut((node.index, position), local, labels)
        elif local not in own:
            at.freeze(node, labels, f"it meets {name!r}, whose channels cannot be cut")
