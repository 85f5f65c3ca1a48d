"""Element-wise operators keep every channel where it is and join the labels that meet.

y[c] = f(a[c], b[c])    a and b computed: channel c of both is one channel
y[c] = f(a[c], k[c])    k constant: k is cut with a
y[c] = f(a[c], b[0])    b has one entry along the axis: it broadcasts, nothing is joined
"""

from __future__ import annotations

from bocr_onnx.graph import Node, operand_positions
from bocr_onnx.groups.labels import Labeller
from bocr_onnx.groups.rules.meeting import Term, broadcast_letters, meet
from bocr_onnx.groups.rules.registry import rule

UNARY = (
    "Affine Abs Acos Acosh Asin Asinh Atan Atanh BitCast BitwiseNot Cast Ceil Celu Cos Cosh Elu Erf Exp Floor Gelu "
    "HardSigmoid HardSwish Identity IsInf IsNaN LeakyRelu Log Mish Neg Not ParametricSoftplus Reciprocal Relu Round "
    "ScaledTanh Selu Shrink Sigmoid Sign Sin Sinh Softplus Softsign Sqrt Swish Tan Tanh ThresholdedRelu Clip Dropout"
).split()

BROADCAST = (
    "Add Sub Mul Div Pow Mod Min Max Sum Mean Where PRelu And Or Xor Equal Greater GreaterOrEqual Less "
    "LessOrEqual BitShift BitwiseAnd BitwiseOr BitwiseXor"
).split()


@rule("QLinearLeakyRelu", "QLinearSigmoid", "Gelu", "QuickGelu", domain="com.microsoft")
@rule(*UNARY)
def unary(node: Node, at: Labeller) -> None:
    """Carries labels through operators of one tensor (further inputs are scalars)."""
    for name in node.outputs:
        at.emit(name, at.read(node.inputs[0]))


@rule("CastLike")
def cast_like(node: Node, at: Labeller) -> None:
    """As a unary operator; of the second tensor only the type is read."""
    at.emit(node.outputs[0], at.read(node.inputs[0]))


@rule("QLinearAdd", "QLinearMul", "BiasGelu", "FastGelu", domain="com.microsoft")
@rule(*BROADCAST, opset=(7, 1_000))
def broadcast(node: Node, at: Labeller) -> None:
    """Carries labels through operators of several tensors under numpy's broadcasting."""
    out = at.shape(node.outputs[0])
    terms = [Term(i, broadcast_letters(at.shape(node.inputs[i]), out)) for i in operand_positions(node)]
    at.emit(node.outputs[0], meet(node, at, terms))
