from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, numpy_helper

from bocr_onnx.cost import build_cost_model
from bocr_onnx.errors import ModelError
from bocr_onnx.graph import ModelGraph, from_proto, load, random_feeds, save
from bocr_onnx.groups import build_index
from tests.oracle import build, drawn, proto

TEXT = "m (float[N, 3, 4, 4] x) => (float[N, 2, 4, 4] y) { c = Conv(x, W) r = Relu(c) y = Conv(r, V) }"
CONSTANTS = {"W": (96, 3, 1, 1), "V": (2, 96, 1, 1)}
N_BYTES = {"W": 96 * 3 * 4, "V": 96 * 2 * 4}


@pytest.fixture
def model() -> ModelProto:
    return proto(TEXT, **CONSTANTS)


@pytest.fixture
def path(tmp_path: Path, model: ModelProto) -> Path:
    made = tmp_path / "model.onnx"
    made.write_bytes(model.SerializeToString())
    return made


@pytest.fixture
def external(tmp_path: Path, model: ModelProto) -> Path:
    """A model whose W lies in weights.bin beside it."""
    made = tmp_path / "external.onnx"
    tensor = next(t for t in model.graph.initializer if t.name == "W")
    (tmp_path / "weights.bin").write_bytes(tensor.raw_data)
    point(tensor, "weights.bin")
    made.write_bytes(model.SerializeToString())
    return made


def point(tensor: onnx.TensorProto, location: str) -> None:
    tensor.ClearField("raw_data")
    del tensor.external_data[:]
    onnx.external_data_helper.set_external_data(_with_raw(tensor), location, length=N_BYTES["W"])
    tensor.ClearField("raw_data")


def _with_raw(tensor: onnx.TensorProto) -> onnx.TensorProto:
    tensor.raw_data = b"\0"  # set_external_data asks for data to be there
    return tensor


def repoint(path: Path, location: str) -> None:
    model = onnx.load_model_from_string(path.read_bytes())
    point(next(t for t in model.graph.initializer if t.name == "W"), location)
    path.write_bytes(model.SerializeToString())


def refused(path: Path | ModelProto) -> str:
    with pytest.raises(ModelError) as caught:
        from_proto(path) if isinstance(path, ModelProto) else load(path)
    if isinstance(path, Path):
        assert str(path) in caught.value.message
    return caught.value.message


def test_a_model_is_read(path: Path) -> None:
    graph = load(path)
    assert graph.path == path
    assert graph.label == str(path)
    assert graph.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (graph.opset, graph.external, graph.strict) == (17, (), True)
    assert [(n.index, n.name, n.op) for n in graph.nodes] == [
        (0, "Conv_0", "Conv"),
        (1, "Relu_1", "Relu"),
        (2, "Conv_2", "Conv"),
    ]
    assert (graph.inputs, graph.outputs) == (("x",), ("y",))
    assert graph.shapes["r"] == (1, 96, 4, 4)
    assert graph.readers["c"] == ((1, 0),)
    assert graph.producer == {"c": 0, "r": 1, "y": 2}
    assert set(graph.constants) == {"W", "V"}
    assert graph.operand((0, 1)) is graph.constants["W"]
    assert graph.operand((0, 2)) is None
    assert graph.nodes[0].input(2) == ""


def test_a_missing_file(tmp_path: Path) -> None:
    assert "no such file" in refused(tmp_path / "none.onnx")


def test_a_folder(tmp_path: Path) -> None:
    assert "must be an ONNX file, got a folder" in refused(tmp_path)


def test_a_path_through_a_file(path: Path) -> None:
    assert "must be readable" in refused(path / "model.onnx")


def test_an_empty_file(path: Path) -> None:
    path.write_bytes(b"")
    assert "must hold a graph with nodes" in refused(path)


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 0.9, 0.99])
def test_a_truncated_file(path: Path, share: float) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    refused(path)


@pytest.mark.parametrize("seed", range(20))
def test_random_bytes(path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    path.write_bytes(rng.bytes(int(rng.integers(1, 2000))))
    refused(path)


@pytest.mark.parametrize(
    "data", [b"not a model", b"\x89PNG\r\n\x1a\n", b"{}", b"<html></html>", b"version https://git-lfs"]
)
def test_other_files(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    refused(path)


def test_a_damaged_byte_never_escapes_as_another_error(path: Path) -> None:
    """Whatever a byte of the structure is turned into: a model, or a ModelError."""
    data = path.read_bytes()
    rng = np.random.default_rng(0)
    outcomes = set()
    for at in rng.integers(0, len(data), 60):
        path.write_bytes(data[:at] + bytes([int(rng.integers(256))]) + data[at + 1 :])
        try:
            outcomes.add(type(load(path)))
        except ModelError:
            outcomes.add(ModelError)
    assert outcomes == {ModelGraph, ModelError}


def test_external_data_is_read(external: Path, model: ModelProto) -> None:
    graph = load(external)
    assert graph.external
    assert graph.constants["W"].tobytes() == (external.parent / "weights.bin").read_bytes()
    assert graph.proto.graph.initializer[0].data_location == onnx.TensorProto.DEFAULT
    assert not graph.proto.graph.initializer[0].external_data
    onnx.checker.check_model(graph.proto)


def test_external_data_in_a_folder_below(external: Path) -> None:
    (external.parent / "below").mkdir()
    (external.parent / "weights.bin").rename(external.parent / "below" / "w.bin")
    repoint(external, "below/w.bin")
    assert load(external).shapes["W"] == (96, 3, 1, 1)


def test_missing_external_data(external: Path) -> None:
    (external.parent / "weights.bin").unlink()
    message = refused(external)
    assert "'W' must exist" in message
    assert str(external.parent / "weights.bin") in message


@pytest.mark.parametrize("kind", ["parent", "absolute", "hidden parent", "empty"])
def test_external_data_outside_the_folder(tmp_path: Path, external: Path, kind: str) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    moved = external.rename(inner / "external.onnx")
    (tmp_path / "inner" / "weights.bin").write_bytes((tmp_path / "weights.bin").read_bytes())
    location = {
        "parent": "../weights.bin",
        "absolute": str(tmp_path / "inner" / "weights.bin"),
        "hidden parent": "a/../../weights.bin",
        "empty": "",
    }[kind]
    repoint(moved, location)
    message = refused(moved)
    assert "must be in the model's folder" in message
    assert repr(location) in message


def test_external_data_through_a_link_out_of_the_folder(tmp_path: Path, external: Path) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    moved = external.rename(inner / "external.onnx")
    (inner / "weights.bin").symlink_to(tmp_path / "weights.bin")
    assert "must be in the model's folder" in refused(moved)


def test_truncated_external_data(external: Path) -> None:
    data = external.parent / "weights.bin"
    data.write_bytes(data.read_bytes()[:-4])
    assert "'W' must be readable" in refused(external)


def test_a_cycle(model: ModelProto) -> None:
    model.graph.node[0].input[0] = "r"
    assert "'r'" in refused(model)


def test_a_dangling_input(model: ModelProto) -> None:
    model.graph.node[1].input[0] = "nowhere"
    assert "'nowhere'" in refused(model)


def test_an_initializer_without_enough_bytes(model: ModelProto) -> None:
    model.graph.initializer[0].raw_data = model.graph.initializer[0].raw_data[:-4]
    assert "'W'" in refused(model) or "W" in refused(model)


def test_two_makers_of_one_tensor(model: ModelProto) -> None:
    model.graph.node[1].output[0] = "c"
    refused(model)


def test_a_graph_without_nodes() -> None:
    assert "must hold a graph with nodes" in refused(ModelProto())


def test_an_unknown_operator_of_the_standard_domain() -> None:
    assert "Frobnicate" in refused(proto("m (float[1] x) => (float[1] y) { y = Frobnicate(x) }"))


def test_names_are_made_unique() -> None:
    made = proto(
        """m (float[2] x) => (float[2] y) {
            [twice] a = Relu(x)
            [twice] b = Relu(a)
            c = Relu(b)
            [Relu_2] d = Relu(c)
            [own] y = Relu(d)
        }"""
    )
    names = [n.name for n in from_proto(made).nodes]
    assert names == ["Relu_0", "Relu_1", "Relu_2_", "Relu_2", "own"]


def test_open_axes_are_made_concrete() -> None:
    text = "m (float[N, 3, H, W] x, float[M, 7] z) => (float[N, 3, H, W] y, float[M, 7] w) { y = Relu(x) w = Relu(z) }"
    graph = build(text)
    assert graph.shapes["x"] == graph.shapes["y"] == (1, 3, 224, 224)
    assert graph.shapes["w"] == (1, 7)
    assert graph.symbolic == {"x": (0, 2, 3), "z": (0,)}
    assert graph.batch_is_symbolic()
    assert not build(text.replace("M", "2")).batch_is_symbolic()
    assert {k: v.shape for k, v in random_feeds(graph, batch=3).items()} == {"x": (3, 3, 224, 224), "z": (3, 7)}


def test_feeds_are_seeded_and_fit_the_types() -> None:
    graph = build(
        """m (float16[N, 3] x, int64[2] i, uint8[500] p, int8[500] q, bool[500] t) =>
            (float16[N, 3] y, float[2] g, float[500] f, float[500] h, float[500] u) {
            y = Relu(x) j = Unsqueeze(i, zero) k = Squeeze(j, zero) g = Gather(table, k)
            f = Cast <to = 1> (p) h = Cast <to = 1> (q) u = Cast <to = 1> (t)
        }""",
        table=(7,),
        zero=[0],
    )
    a, b, c = random_feeds(graph, batch=2), random_feeds(graph, batch=2), random_feeds(graph, batch=2, seed=1)
    assert a["x"].dtype == np.float16
    assert np.array_equal(a["x"], b["x"])
    assert not np.array_equal(a["x"], c["x"])
    assert a["i"].tolist() == [0, 0]
    assert a["i"].dtype == np.int64
    for name, least, most in (("p", 0, 255), ("q", 0, 127), ("t", 0, 1)):
        assert a[name].dtype == {"p": np.uint8, "q": np.int8, "t": np.bool_}[name]
        assert (a[name].min(), a[name].max()) == (least, pytest.approx(most, abs=3))


def test_initializers_that_old_files_repeat_among_the_inputs_are_no_inputs() -> None:
    made = proto(
        "m (float[N, 3, 4, 4] x, float[5, 3, 1, 1] W) => (float[N, 5, 4, 4] y) { y = Conv(x, W) }",
        ir=3,
        opset=8,
        W=(5, 3, 1, 1),
    )
    graph = from_proto(made)
    assert graph.inputs == ("x",)
    assert graph.constant("W") is not None


def test_a_local_function_is_inlined() -> None:
    made = proto(
        """<ir_version: 8, opset_import: ["" : 17, "own" : 1]>
        m (float[N, 3, 4, 4] x) => (float[N, 2, 4, 4] y) { y = own.block(x, W) }
        <domain: "own", opset_import: ["" : 17]>
        block (a, w) => (b) { c = Conv(a, w) b = Relu(c) }""",
        W=(2, 3, 1, 1),
    )
    graph = from_proto(made)
    assert [n.op for n in graph.nodes] == ["Conv", "Relu"]
    assert made.functions


def test_tensors_that_subgraphs_read_are_known() -> None:
    graph = build(
        """m (float[2] x, bool b) => (float[2] y) {
            r = Relu(x)
            y = If (b) <
                then_branch = t () => (float[2] a) { q = Neg(r) a = Add(q, k) },
                else_branch = e () => (float[2] a) { a = Relu(x) }
            >
        }""",
        k=(2,),
    )
    assert graph.nodes[1].captures == ("k", "r", "x")
    assert "then_branch" not in graph.nodes[1].attributes


def test_what_was_saved_is_read_back_the_same(tmp_path: Path, model: ModelProto) -> None:
    for external in (False, True):
        graph = load(save(model, tmp_path / f"{external}.onnx", external=external))
        assert graph.external == ((tmp_path / "True.onnx.data",) if external else ())
        assert {t.name: numpy_helper.to_array(t).tobytes() for t in graph.proto.graph.initializer} == {
            name: drawn(shape, 0, name).tobytes() for name, shape in CONSTANTS.items()
        }


@pytest.mark.shared
def test_the_external_data_of_a_real_export(shared: Path) -> None:
    graph = load(shared / "models" / "resnet56_dynamo.onnx")
    assert graph.external
    assert sum(a.size for a in graph.constants.values() if a.dtype.kind == "f") > 800_000


@pytest.mark.shared
@pytest.mark.parametrize("share", [0.001, 0.3, 0.999])
def test_a_truncated_real_model(shared: Path, tmp_path: Path, share: float) -> None:
    data = (shared / "models" / "resnet20_folded.onnx").read_bytes()
    cut = tmp_path / "cut.onnx"
    cut.write_bytes(data[: int(share * len(data))])
    refused(cut)


def test_an_old_operator_set_is_refused_with_the_way_out() -> None:
    text = '<ir_version: 3, opset_import: ["" : 6]> m (float[2] x) => (float[2] y) { y = Relu(x) }'
    with pytest.raises(ModelError, match="operator set 7 or newer, got 6") as caught:
        from_proto(onnx.parser.parse_model(text))
    assert "convert_version" in caught.value.hint


def test_functions_that_double_at_every_level_are_refused() -> None:
    """Each function calls the one before it twice: 2^40 nodes if they were all written out."""
    calls = ["Neg", *(f"d.f{i}" for i in range(39))]
    functions = [
        f'<domain: "d", opset_import: ["" : 17, "d" : 1]> f{i} (a) => (c) {{ b = {call}(a) c = {call}(b) }}'
        for i, call in enumerate(calls)
    ]
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17, "d" : 1]> m (float[2] x) => (float[2] y) { y = d.f39(x) }'
    )
    model.functions.extend(onnx.parser.parse_function(f) for f in functions)
    with pytest.raises(ModelError, match="with its functions inlined"):
        from_proto(model)


def test_a_device_is_no_model() -> None:
    with pytest.raises(ModelError, match="got a device or a pipe"):
        load("/dev/zero")


@pytest.mark.parametrize(
    ("dims", "shape"),
    [
        ("N, 3", (1, 3)),
        ("N, L", (1, 512)),
        ("N, 3, L", (1, 3, 224)),
        ("N, L, 3", (1, 1, 3)),
        ("N, 3, H, W", (1, 3, 224, 224)),
        ("N, 1, D, H, W", (1, 1, 32, 32, 32)),
        ("N", (1,)),
    ],
)
def test_what_stands_in_for_open_axes(dims: str, shape: tuple[int, ...]) -> None:
    assert build(f"m (float[{dims}] x) => (float[{dims}] y) {{ y = Relu(x) }}").shapes["y"] == shape


def test_a_batch_is_open_where_every_input_says_so() -> None:
    text = (
        "m (float[N, 3] x, float[{}, 3] h) => (float[N, 3] y) {{ s = ReduceSum <keepdims = 1> (h, k) y = Add(x, s) }}"
    )
    both, one = (build(text.format(dims), k=[0]) for dims in ("M", "2"))
    assert [x.shape for x in random_feeds(both, batch=4).values()] == [(4, 3), (4, 3)]
    assert [x.shape for x in random_feeds(one, batch=4).values()] == [(1, 3), (2, 3)]


def test_an_image_with_its_channels_last_has_its_open_sides_on_axes_1_and_2() -> None:
    text = "m (float[N, H, W, 3] x) => (float[N, 4, P, Q] y) { t = Transpose <perm = [0, 3, 1, 2]> (x) y = Conv(t, k) }"
    graph = build(text, k=(4, 3, 3, 3))
    assert graph.shapes["x"] == (1, 224, 224, 3)
    assert graph.shapes["y"] == (1, 4, 222, 222)
    assert random_feeds(graph)["x"].shape == (1, 224, 224, 3)
    assert build(text.replace("H", "9"), k=(4, 3, 3, 3)).shapes["x"] == (1, 9, 224, 3)
    features = build("m (float[N, A, B, 7] x) => (float[N, A, B, 7] y) { y = Relu(x) }")
    assert features.shapes["x"] == (1, 1, 224, 7)


@pytest.mark.parametrize("height", [1, 2], ids=["negative", "zero"])
def test_an_input_smaller_than_a_window_gives_no_shape(height: int) -> None:
    graph = build(
        f"m (float[N, 3, {height}, 5] x) => (float[N, 4, P, Q] y) {{ y = Conv <kernel_shape = [3, 3]> (x, k) }}",
        k=(4, 3, 3, 3),
    )
    assert "y" not in graph.shapes
    cost = build_cost_model(build_index(graph))
    assert cost.cost(cost.full).macs == 0


def test_outputs_have_the_type_that_they_declare_where_inference_ends() -> None:
    proto = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17, "own" : 1]> '
        "m (float[N, 4] x) => (float[N, 4] y, int64[N] z) { y = own.Warp(x) z = own.Pick(x) }"
    )
    graph = from_proto(proto)
    assert graph.dtypes["y"] == onnx.TensorProto.FLOAT
    assert graph.dtypes["z"] == onnx.TensorProto.INT64
