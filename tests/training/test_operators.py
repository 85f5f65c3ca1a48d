"""Every operator against onnxruntime, on graphs of one node."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from bocr_onnx.errors import TrainingError
from bocr_onnx.graph import from_proto
from bocr_onnx.training import OnnxModule, known_operators
from bocr_onnx.training.interpreter import compute
from bocr_onnx.training.operators import find_operator

TOLERANCE = 2e-5


@dataclass(frozen=True)
class Case:
    """One node: `shapes` of its computed inputs, then `constants`; None omits an optional input."""

    op: str
    shapes: tuple[tuple[int, ...], ...]
    constants: tuple[Any, ...] = ()
    attributes: dict[str, Any] = field(default_factory=dict)
    opset: int = 17
    dtype: Any = np.float32
    n_outputs: int = 1
    low: float = -3.0
    high: float = 3.0
    like_input: bool = False
    """Whether the outputs are declared with type and rank of the first input, where onnx infers nothing."""

    def __str__(self) -> str:
        parts = [f"{k}={v}" for k, v in self.attributes.items() if not isinstance(v, onnx.TensorProto)]
        constants = [np.asarray(c).tolist() if c is not None and np.size(c) < 9 else "w" for c in self.constants]
        return f"{self.op}-{self.opset}-{self.shapes}-{constants}-{','.join(parts)}".replace(" ", "")

    def _output(self, name: str) -> onnx.ValueInfoProto:
        if not self.like_input:
            return onnx.ValueInfoProto(name=name)
        element = helper.np_dtype_to_tensor_dtype(np.dtype(self.dtype))
        return helper.make_tensor_value_info(name, element, [None] * len(self.shapes[0]))

    def arrays(self) -> list[np.ndarray[Any, Any]]:
        rng = np.random.default_rng(0)
        return [rng.uniform(self.low, self.high, s).astype(self.dtype) for s in self.shapes]

    def model(self) -> onnx.ModelProto:
        element = helper.np_dtype_to_tensor_dtype(np.dtype(self.dtype))
        computed = [helper.make_tensor_value_info(f"x{i}", element, s) for i, s in enumerate(self.shapes)]
        named = {f"c{i}": np.asarray(c) for i, c in enumerate(self.constants) if c is not None}
        inputs = [i.name for i in computed] + ["" if c is None else f"c{i}" for i, c in enumerate(self.constants)]
        outputs = [f"y{i}" for i in range(self.n_outputs)]
        node = helper.make_node(self.op, inputs, outputs, name="it", **self.attributes)
        graph = helper.make_graph(
            [node],
            "one",
            computed,
            [self._output(o) for o in outputs],
            [numpy_helper.from_array(a, n) for n, a in named.items()],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=8)
        return onnx.shape_inference.infer_shapes(model)


def w(*shape: int, low: float = -1.0, high: float = 1.0) -> np.ndarray[Any, Any]:
    return np.random.default_rng(sum(shape)).uniform(low, high, shape).astype(np.float32)


def i64(*values: int) -> np.ndarray[Any, Any]:
    return np.array(values, dtype=np.int64)


def f32(*values: float) -> np.ndarray[Any, Any]:
    return np.array(values, dtype=np.float32)


X1, X2, X3 = (2, 4, 9), (2, 4, 7, 9), (2, 4, 5, 6, 7)
PADS = [0, 1, 2, 1]

CONV = [
    Case("Conv", (X1,), (w(6, 4, 3), w(6)), {"pads": [1, 1]}),
    Case("Conv", (X2,), (w(6, 4, 3, 3),), {"strides": [2, 1], "dilations": [1, 2]}),
    Case("Conv", (X2,), (w(6, 4, 3, 3), w(6)), {"pads": PADS}),
    Case("Conv", (X2,), (w(4, 1, 3, 3), w(4)), {"group": 4, "pads": [1, 1, 1, 1]}),
    Case("Conv", (X2,), (w(6, 2, 3, 3), w(6)), {"group": 2}),
    Case("Conv", (X3,), (w(6, 4, 3, 3, 3), w(6)), {"pads": [1] * 6, "strides": [2, 2, 2]}),
    *[
        Case("Conv", (X2,), (w(6, 4, k, k), w(6)), {"auto_pad": mode, "strides": [2, 2]})
        for mode in ("VALID", "SAME_UPPER", "SAME_LOWER")
        for k in (2, 3)
    ],
    Case("ConvTranspose", (X1,), (w(4, 3, 3), w(3)), {"strides": [2]}),
    Case("ConvTranspose", (X2,), (w(4, 3, 3, 3), w(3)), {"pads": PADS, "strides": [2, 2]}),
    Case("ConvTranspose", (X2,), (w(4, 2, 3, 3),), {"group": 2, "dilations": [2, 1]}),
    Case(
        "ConvTranspose",
        (X2,),
        (w(4, 3, 3, 3), w(3)),
        {"pads": [1, 1, 1, 1], "strides": [2, 2], "output_padding": [1, 1]},
    ),
    Case("ConvTranspose", (X2,), (w(4, 3, 3, 3),), {"strides": [2, 2], "output_shape": [14, 18]}),
    *[
        Case("ConvTranspose", (X2,), (w(4, 3, 3, 3), w(3)), {"auto_pad": mode, "strides": [2, 2]})
        for mode in ("VALID", "SAME_UPPER", "SAME_LOWER")
    ],
    Case("ConvTranspose", ((2, 4, 3, 4, 5),), (w(4, 3, 2, 2, 2), w(3)), {"strides": [2, 2, 2]}),
]

LINEAR = [
    Case("Gemm", ((3, 4),), (w(4, 5), w(5))),
    Case("Gemm", ((4, 3),), (w(5, 4), w(3, 1)), {"transA": 1, "transB": 1, "alpha": 0.5, "beta": 2.0}),
    Case("Gemm", ((3, 4),), (w(4, 5),), {"alpha": 2.0}, opset=11),
    Case("Gemm", ((3, 4), (4, 5)), ()),
    Case("MatMul", ((3, 4),), (w(4, 5),)),
    Case("MatMul", ((2, 3, 4), (2, 4, 5)), ()),
    Case("MatMul", ((2, 3, 4),), (w(4),)),
    Case("Einsum", ((2, 3, 4),), (w(5, 4),), {"equation": "bij,kj->bik"}),
    Case("Einsum", ((2, 3, 4), (2, 5, 4)), attributes={"equation": "... i d, ... j d -> ... i j"}),
    Case("Einsum", ((3, 4), (4, 5)), attributes={"equation": "ij,jk"}),
]

UNARY = ("Abs", "Ceil", "Erf", "Exp", "Floor", "HardSwish", "Neg", "Relu", "Sigmoid", "Softplus", "Softsign")
COMPARISONS = ("Greater", "GreaterOrEqual", "Less", "LessOrEqual")
UNARY += ("Tanh", "Identity", "Dropout", "Selu", "Elu")
ELEMENTWISE = [
    *[Case(op, (X2,)) for op in UNARY],
    *[Case(op, (X2,), low=0.1) for op in ("Log", "Sqrt", "Reciprocal")],
    *[Case(op, (X2, (4, 1, 9))) for op in ("Add", "Sub", "Mul", "Div", "Min", "Max", "Sum", "Mean")],
    *[Case(op, (X2,), (w(4, 1, 1, low=0.5),)) for op in ("Add", "Sub", "Mul", "Div")],
    *[Case(op, (X2, X2, (9,))) for op in ("Min", "Max", "Sum", "Mean")],
    *[Case(op, ((3, 4), (4,)), dtype=np.int64, low=1, high=99) for op in ("Add", "Mul", "Div", "Equal")],
    Case("Div", ((9,),), (i64(2),), dtype=np.int64, low=-9, high=9),
    Case("Pow", (X2,), (f32(2.0),)),
    Case("Pow", (X2,), (i64(3),)),
    Case("Pow", (X2, (9,)), low=0.5, high=2.0),
    Case("Equal", ((3, 4),), (np.zeros((4,), np.float32),)),
    *[Case(op, ((3, 4), (4,))) for op in COMPARISONS],
    *[Case(op, ((3, 4), (4,)), dtype=np.int64, low=0, high=3) for op in COMPARISONS],
    *[Case(op, ((3, 4), (4,)), dtype=np.bool_, low=0, high=1.5) for op in ("And", "Or")],
    Case("Not", ((3, 4),), dtype=np.bool_, low=0, high=1.5),
    Case("Where", ((3, 4),), ()),
    Case("PRelu", (X2,), (w(4, 1, 1),)),
    Case("PRelu", (X2,), (w(1),)),
    Case("LeakyRelu", (X2,)),
    Case("LeakyRelu", (X2,), attributes={"alpha": 0.3}),
    Case("HardSigmoid", (X2,)),
    Case("HardSigmoid", (X2,), attributes={"alpha": 1 / 6, "beta": 0.4}),
    Case("Clip", (X2,), attributes={"min": 0.0, "max": 1.5}, opset=9),
    Case("Clip", (X2,), attributes={"min": 0.0}, opset=7),
    Case("Clip", (X2,), (np.float32(0), np.float32(1.5))),
    Case("Clip", (X2,), (None, np.float32(1.5))),
    Case("Clip", (X2,)),
    Case("Elu", (X2,), attributes={"alpha": 0.5}),
    Case("Selu", (X2,), attributes={"alpha": 1.5, "gamma": 1.2}),
    Case("Gelu", (X2,), opset=20),
    Case("Gelu", (X2,), attributes={"approximate": "tanh"}, opset=20),
    Case("Dropout", (X2,), attributes={"ratio": 0.5}, opset=10),
    Case("CastLike", (X2,), (f32(0.0),)),
    Case("CastLike", ((3, 4),), (f32(0.0),), dtype=np.int64, low=-9, high=9),
    Case("Cast", (X2,), attributes={"to": TensorProto.INT64}),
    Case("Cast", (X2,), attributes={"to": TensorProto.DOUBLE}),
    Case("Cast", (X2,), attributes={"to": TensorProto.BOOL}),
]

NORMALIZATION = [
    *[
        Case("BatchNormalization", (x,), (w(4), w(4), w(4), w(4, low=0.5, high=2.0)), opset=opset)
        for x, opset in ((X1, 17), (X2, 17), (X2, 9), (X2, 7), (X3, 15), ((3, 4), 15))
    ],
    Case("BatchNormalization", (X2,), (w(4), w(4), w(4), w(4, low=0.0, high=0.1)), {"epsilon": 1e-2}, opset=14),
    Case("InstanceNormalization", (X2,), (w(4), w(4))),
    Case("InstanceNormalization", (X1,), (w(4), w(4)), {"epsilon": 1e-2}),
    *[
        Case("GroupNormalization", (x,), (w(4), w(4)), {"num_groups": 2}, opset=21, like_input=True)
        for x in (X1, X2, X3)
    ],
    Case("LayerNormalization", (X2,), (w(9), w(9))),
    Case("LayerNormalization", (X2,), (w(9),), {"epsilon": 1e-2}),
    Case("LayerNormalization", (X2,), (w(7, 9), w(7, 9)), {"axis": 2}),
    Case("LayerNormalization", (X2,), (w(4, 7, 9), w(4, 7, 9)), {"axis": -3}),
    Case("LayerNormalization", (X2,), (w(9), w(7, 9)), {"axis": 2}),
    *[Case("LRN", (X2,), attributes={"size": size}) for size in (1, 3, 5)],
    Case("LRN", (X2,), attributes={"size": 3, "alpha": 0.9, "beta": 0.5, "bias": 2.0}),
    *[
        Case(op, (X2,), attributes=attributes, opset=opset)
        for op in ("Softmax", "LogSoftmax")
        for opset in (11, 13)
        for attributes in ({}, {"axis": 1}, {"axis": 2}, {"axis": -1})
    ],
]

POOLING = [
    *[
        Case(op, (x,), attributes={"kernel_shape": [3] * (len(x) - 2), "strides": [2] * (len(x) - 2)})
        for op in ("MaxPool", "AveragePool")
        for x in (X1, X2, X3)
    ],
    *[
        Case(op, ((2, 4, 8, 10),), attributes={"kernel_shape": [3, 2], "strides": [3, 2], **extra}, opset=22)
        for op in ("MaxPool", "AveragePool")
        for extra in (
            {"pads": [1, 1, 1, 1]},
            {"pads": [1, 0, 2, 1]},
            {"ceil_mode": 1},
            {"ceil_mode": 1, "pads": [1, 1, 1, 1]},
            {"ceil_mode": 1, "pads": [0, 1, 1, 0]},
            {"auto_pad": "SAME_UPPER"},
            {"auto_pad": "SAME_LOWER"},
            {"auto_pad": "VALID"},
            {"dilations": [2, 2]},
        )
    ],
    *[
        Case(
            "AveragePool",
            ((2, 4, 8, 10),),
            attributes={"kernel_shape": [3, 3], "strides": [2, 2], "count_include_pad": 1, **extra},
            opset=22,
        )
        for extra in (
            {"pads": [1, 1, 1, 1]},
            {"pads": [0, 1, 2, 1]},
            {"pads": [1, 1, 1, 1], "ceil_mode": 1},
            {"auto_pad": "SAME_UPPER"},
        )
    ],
    *[Case(op, (x,)) for op in ("GlobalAveragePool", "GlobalMaxPool") for x in (X1, X2, X3)],
]

REDUCTION = [
    *[
        Case(op, (X2,), attributes=attributes, opset=11)
        for op in ("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceL1", "ReduceL2")
        for attributes in ({}, {"axes": [2, 3]}, {"axes": [-1], "keepdims": 0}, {"keepdims": 0})
    ],
    *[
        Case(op, (X2,), constants, attributes, opset=18)
        for op in ("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceL1", "ReduceL2")
        for constants, attributes in (
            ((i64(2, 3),), {}),
            ((i64(1),), {"keepdims": 0}),
            ((), {"noop_with_empty_axes": 1}),
        )
    ],
]

LAYOUT = [
    Case("Reshape", (X2,), (i64(0, -1, 9),)),
    Case("Reshape", (X2,), (i64(2, 252),), opset=7),
    Case("Reshape", ((1,),), (np.zeros(0, np.int64),)),
    *[Case("Flatten", (X2,), attributes={"axis": axis}) for axis in (0, 1, 2, -1, 4)],
    Case("Transpose", (X2,), attributes={"perm": [0, 2, 3, 1]}),
    Case("Transpose", (X2,)),
    Case("Squeeze", ((1, 3, 1, 4),), attributes={"axes": [0, -2]}, opset=11),
    Case("Squeeze", ((1, 3, 1, 4),), (i64(2),)),
    Case("Squeeze", ((1, 3, 1, 4),)),
    Case("Unsqueeze", ((3, 4),), attributes={"axes": [0, 3]}, opset=11),
    Case("Unsqueeze", ((3, 4),), (i64(-1, 1),)),
    Case("Concat", (X2, (2, 3, 7, 9)), (w(2, 1, 7, 9),), {"axis": 1}),
    Case("Concat", (X2, X2), attributes={"axis": -1}),
    Case("Split", (X2,), attributes={"axis": 1, "split": [1, 3]}, opset=11, n_outputs=2),
    Case("Split", (X2,), (i64(4, 5),), {"axis": -1}, n_outputs=2),
    Case("Split", (X2,), attributes={"axis": 1}, n_outputs=2),
    Case("Split", (X2,), attributes={"axis": 3, "num_outputs": 2}, opset=18, n_outputs=2),
    Case("Slice", (X2,), attributes={"starts": [1, -4], "ends": [3, 1000], "axes": [1, 3]}, opset=9),
    Case("Slice", (X2,), attributes={"starts": [0, 1], "ends": [2, 4]}, opset=7),
    Case("Slice", (X2,), (i64(0, 0), i64(7, 9), i64(2, 3), i64(2, 3))),
    Case("Slice", (X2,), (i64(-1), i64(-(2**62)), i64(-1), i64(-1))),
    Case("Slice", (X2,), (i64(6, 7), i64(1, -8), i64(2, 3), i64(-2, -3))),
    Case("Slice", (X2,), (i64(5), i64(2), i64(3)), opset=13),
    Case("Gather", (X2,), (i64(2, 0, -1),), {"axis": 1}),
    Case("Gather", (X2,), (np.int64(1),), {"axis": -1}),
    Case("Gather", (X2,), (np.array([[0, 1], [3, 2]]),), {"axis": 1}),
    Case("Gather", ((4,),), (np.int64(-1),)),
    Case("Pad", (X2,), attributes={"pads": [0, 1, 2, 0, 0, 1, 0, 3], "value": 1.5}, opset=10),
    Case("Pad", (X2,), (i64(0, 1, 2, 0, 0, 1, 0, 3), np.float32(-2))),
    Case("Pad", (X2,), (i64(0, 0, 2, 0, 0, 0, 0, 3),)),
    Case("Pad", (X2,), (i64(0, 0, -2, 1, 0, 0, 0, -3),)),
    Case("Pad", (X2,), (i64(1, 2), None, i64(2)), opset=18),
    Case("Pad", (X2,), (i64(0, 0, 2, 1, 0, 0, 0, 3),), {"mode": "reflect"}),
    Case("Pad", (X2,), (i64(0, 1, 2, 1, 0, 0, 0, 3),), {"mode": "edge"}),
    Case("Pad", (X2,), attributes={"pads": [0, 0, 2, 1, 0, 0, 0, 3], "mode": "reflect"}, opset=10),
    Case("Expand", ((3, 1),), (i64(2, 1, 6),)),
    Case("Expand", ((2, 3, 4),), (i64(3, 1),)),
    Case("Tile", ((2, 3),), (i64(2, 3),)),
    *[Case("Trilu", ((2, 4, 5),), constants) for constants in ((), (np.int64(1),), (np.int64(-2),))],
    Case("Trilu", ((2, 4, 5),), (np.int64(1),), {"upper": 0}),
    Case("DepthToSpace", ((2, 12, 3, 4),), attributes={"blocksize": 2}),
    Case("DepthToSpace", ((2, 12, 3, 4),), attributes={"blocksize": 2, "mode": "CRD"}),
    Case("SpaceToDepth", ((2, 3, 4, 6),), attributes={"blocksize": 2}),
]

SHAPE = [
    Case("Shape", (X2,)),
    Case("Shape", (X2,), attributes={"start": 1, "end": -1}),
    Case("ConstantOfShape", ((3,),), dtype=np.int64, low=1, high=4),
    Case(
        "ConstantOfShape",
        ((3,),),
        attributes={"value": numpy_helper.from_array(np.array([7]))},
        dtype=np.int64,
        low=1,
        high=4,
    ),
    Case("Range", ((),), (np.int64(9), np.int64(2)), dtype=np.int64, low=0, high=4),
    Case("Range", ((),), (np.int64(-9), np.int64(-2)), dtype=np.int64, low=0, high=4),
    Case("Range", ((),), (np.float32(2.5), np.float32(0.25))),
]

RESIZE = [
    *[Case("Upsample", (X2,), (f32(1, 1, 2, 3),), {"mode": mode}, opset=9) for mode in ("nearest", "linear")],
    Case("Upsample", (X2,), attributes={"scales": [1.0, 1.0, 2.0, 2.0]}, opset=7),
    *[
        Case("Resize", (X2,), (f32(1, 1, *scales),), {"mode": mode}, opset=10)
        for mode in ("nearest", "linear")
        for scales in ((2, 2), (0.5, 0.6))
    ],
    *[
        Case(
            "Resize",
            (X2,),
            (None, f32(1, 1, *scales)),
            {"mode": "nearest", "coordinate_transformation_mode": mode, "nearest_mode": rounding},
            opset=13,
        )
        for mode in ("half_pixel", "asymmetric", "align_corners")
        for rounding in ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
        for scales in ((2, 3), (0.6, 1.7))
    ],
    *[
        Case(
            "Resize",
            (X2,),
            (None, None, i64(2, 4, *sizes)),
            {"mode": "linear", "coordinate_transformation_mode": mode},
            opset=opset,
        )
        for mode, opset in (
            ("half_pixel", 13),
            ("pytorch_half_pixel", 13),
            ("asymmetric", 13),
            ("align_corners", 13),
            ("half_pixel_symmetric", 19),
        )
        for sizes in ((14, 18), (5, 13), (1, 4))
    ],
    Case("Resize", (X2,), (None, f32(2, 3)), {"axes": [2, 3]}, opset=18),
]

SLOPE = {"alpha": 1.5, "beta": 0.5}
RETIRED = [
    *[
        Case(op, (X2,), attributes=SLOPE, opset=8, like_input=True)
        for op in ("Affine", "ParametricSoftplus", "ScaledTanh")
    ],
    Case("Affine", (X2,), opset=8, like_input=True),
    Case("ImageScaler", ((2, 3, 4, 5),), attributes={"scale": 0.5, "bias": [0.1, -0.2, 0.3]}, opset=8, like_input=True),
    Case("Crop", (X2,), attributes={"border": [1, 2, 3, 0]}, opset=8, like_input=True),
    Case("Crop", (X2,), attributes={"border": [1, 2, 0, 0], "scale": [3, 4]}, opset=8, like_input=True),
]
CASES = [*CONV, *LINEAR, *ELEMENTWISE, *NORMALIZATION, *POOLING, *REDUCTION, *LAYOUT, *SHAPE, *RESIZE, *RETIRED]


def where_case() -> onnx.ModelProto:
    return onnx.parser.parse_model("""
        <ir_version: 8, opset_import: ["" : 17]>
        one (bool[3, 4] c, float[4] a, float[3, 1] b) => (float[3, 4] y) { y = Where(c, a, b) }""")


def run_reference(model: onnx.ModelProto, arrays: list[np.ndarray[Any, Any]]) -> list[np.ndarray[Any, Any]]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
    return session.run(None, {i.name: a for i, a in zip(model.graph.input, arrays, strict=True)})


def assert_agrees(model: onnx.ModelProto, arrays: list[np.ndarray[Any, Any]]) -> OnnxModule:
    module = OnnxModule(from_proto(model))
    expected = run_reference(model, arrays)
    for found, wanted in zip(compute(module, arrays), expected, strict=True):
        assert found.dtype == wanted.dtype
        np.testing.assert_allclose(found, wanted, rtol=TOLERANCE, atol=TOLERANCE)
    return module


@pytest.mark.parametrize("case", [c for c in CASES if c.op != "Where"], ids=str)
def test_agrees_with_onnxruntime(case: Case) -> None:
    assert_agrees(case.model(), case.arrays())


def test_where_agrees_with_onnxruntime() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 4)).astype(np.float32)
    assert_agrees(where_case(), [rng.random((3, 4)) < 0.5, a, b[:3, None]])


@pytest.mark.parametrize("case", [c for c in CASES if c.dtype is np.float32 and c.op != "Where"], ids=str)
def test_gradients_are_finite(case: Case) -> None:
    module = OnnxModule(from_proto(case.model()))
    inputs = [torch.from_numpy(a).requires_grad_() for a in case.arrays()]
    outputs = [y for y in module(*inputs) if y.is_floating_point() and y.requires_grad]
    if not outputs:
        assert case.op in ("Shape", "Equal", "Cast", "Range", *COMPARISONS)
        return
    sum(y.sum() for y in outputs).backward()
    trained = [*inputs, *module.parameters()]
    assert all(t.grad is not None and bool(torch.isfinite(t.grad).all()) for t in trained)


def test_every_operator_has_a_case() -> None:
    found = {find_operator("", case.op, case.opset) for case in CASES}
    assert {o.key for o in found if o} == known_operators()


def test_a_function_holds_until_the_next_registered_one() -> None:
    versions = [find_operator("", "Softmax", opset) for opset in (1, 12, 13, 21)]
    assert [v.key[2] for v in versions if v] == [1, 1, 13, 13]


def test_opsets_without_a_right_function_have_none() -> None:
    assert find_operator("", "Add", 6) is None
    assert find_operator("com.example", "Conv", 17) is None


@pytest.mark.parametrize(
    "case",
    [
        Case("Resize", (X2,), (None, f32(1, 1, 2, 2)), {"mode": "cubic"}, opset=13),
        Case(
            "Resize",
            (X2,),
            (f32(0, 0, 0, 0, 1, 1, 1, 1), f32(1, 1, 2, 2)),
            {"coordinate_transformation_mode": "tf_crop_and_resize"},
            opset=13,
        ),
        Case("Resize", (X2,), (None, f32(1, 1, 0.5, 0.5)), {"mode": "linear", "antialias": 1}, opset=18),
        Case("LRN", (X2,), attributes={"size": 2}),
    ],
    ids=str,
)
def test_what_is_not_computed_is_refused_by_name(case: Case) -> None:
    with pytest.raises(TrainingError, match=r"node 'it' \((Resize|LRN)\) must"):
        compute(OnnxModule(from_proto(case.model())), case.arrays())
