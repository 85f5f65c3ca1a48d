from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import ModelProto, numpy_helper

from bocr_onnx.errors import OutputError, PlanError
from bocr_onnx.graph import ModelGraph, from_proto, random_feeds
from bocr_onnx.groups import GroupIndex, build_index
from bocr_onnx.slimming import (
    Plan,
    compare,
    cut,
    kept_positions,
    masked_reads,
    plan_of_mask,
    read_plan,
    structure_digest,
    write_plan,
)
from tests.oracle import build, proto, random_mask, run

TEXT = """m (float[N, 3, 8, 8] x) => (float[N, 5] y) {
    c = Conv <pads = [1, 1, 1, 1]> (x, W, wb)
    r = Sigmoid(c)
    d = Conv <group = 8, pads = [1, 1, 1, 1]> (r, D)
    b = Conv <pads = [1, 1, 1, 1]> (d, U, ub)
    a = Add(b, r)
    p = AveragePool <kernel_shape = [4, 4], strides = [4, 4]> (a)
    f = Flatten(p)
    g = Gemm(f, G, gb)
    h = Sigmoid(g)
    y = MatMul(h, M)
}"""
CONSTANTS = {
    "W": (8, 3, 3, 3), "wb": (8,), "D": (8, 1, 3, 3), "U": (8, 8, 3, 3), "ub": (8,),
    "G": (32, 6), "gb": (6,), "M": (6, 5),
}  # fmt: skip


@pytest.fixture(scope="module")
def graph() -> ModelGraph:
    return build(TEXT, **CONSTANTS)


@pytest.fixture(scope="module")
def index(graph: ModelGraph) -> GroupIndex:
    found = build_index(graph)
    assert [g.n_channels for g in found.groups] == [8, 6]
    return found


@pytest.fixture
def path(tmp_path: Path, graph: ModelGraph, index: GroupIndex) -> Path:
    made = tmp_path / "plan.json"
    write_plan(made, index, Plan(((0, 3, 7), (1, 5))))
    return made


def test_a_plan_comes_back_from_disk(path: Path, graph: ModelGraph, index: GroupIndex) -> None:
    plan = read_plan(path, index)
    assert plan == Plan(((0, 3, 7), (1, 5)))
    assert plan.widths == (3, 2)
    assert np.flatnonzero(plan.mask(index)).tolist() == [0, 3, 7, 9, 13]


@given(st.lists(st.booleans(), min_size=14, max_size=14))
def test_a_mask_is_its_plan(index: GroupIndex, kept: list[bool]) -> None:
    mask = np.array(kept)
    assert np.array_equal(plan_of_mask(index, mask).mask(index), mask)


def test_the_file_names_model_groups_and_activations(path: Path, graph: ModelGraph, index: GroupIndex) -> None:
    record = json.loads(path.read_text())
    assert record["schema"] == 1
    assert record["model_sha256"] == graph.sha256
    assert record["structure"] == structure_digest(index)
    assert record["groups"] == [
        {"name": "Conv_0", "n_channels": 8, "kept": [0, 3, 7]},
        {"name": "Gemm_7", "n_channels": 6, "kept": [1, 5]},
    ]
    flat = [c * 4 + i for c in (0, 3, 7) for i in range(4)]
    assert record["activations"] == {
        "r": {"axis": 1, "n_channels": 8, "kept": [0, 3, 7]},
        "d": {"axis": 1, "n_channels": 8, "kept": [0, 3, 7]},
        "f": {"axis": 1, "n_channels": 32, "kept": flat},
        "h": {"axis": 1, "n_channels": 6, "kept": [1, 5]},
    }


def zeroed(model: ModelProto, activations: dict[str, Any]) -> ModelProto:
    """Returns the model with a Mul before every Conv, Gemm and MatMul that reads a listed activation."""
    made = ModelProto()
    made.CopyFrom(model)
    nodes = []
    for node in made.graph.node:
        entry = activations.get(node.input[0])
        if node.op_type in ("Conv", "Gemm", "MatMul") and entry is not None:
            shape = [1, 1, 1, 1] if node.op_type == "Conv" else [1, 1]
            shape[entry["axis"]] = entry["n_channels"]
            ones = np.zeros(entry["n_channels"], dtype=np.float32)
            ones[entry["kept"]] = 1
            name = f"zeroed_{node.output[0]}"
            made.graph.initializer.append(numpy_helper.from_array(ones.reshape(shape), f"{name}_mask"))
            nodes.append(onnx.helper.make_node("Mul", [node.input[0], f"{name}_mask"], [name]))
            node.input[0] = name
        nodes.append(node)
    copies = [onnx.NodeProto.FromString(n.SerializeToString()) for n in nodes]
    del made.graph.node[:]
    made.graph.node.extend(copies)
    onnx.checker.check_model(made)
    return made


def assert_activations_prove(graph: ModelGraph, path: Path, seed: int) -> None:
    index = build_index(graph)
    mask = random_mask(index, seed)
    write_plan(path, index, plan_of_mask(index, mask))
    activations = json.loads(path.read_text())["activations"]
    slim = cut(index, read_plan(path, index).mask(index))
    feeds = random_feeds(graph, batch=2, seed=seed)
    proof = compare(run(zeroed(graph.proto, activations), feeds), run(slim, feeds))
    assert proof.max_rel_diff < 1e-4
    assert compare(run(graph.proto, feeds), run(slim, feeds)).max_rel_diff > 1e-2
    for name, entry in activations.items():
        other = {**activations, name: {**entry, "kept": entry["kept"][1:]}}
        assert not compare(run(zeroed(graph.proto, other), feeds), run(slim, feeds)).passed


@pytest.mark.parametrize("seed", range(3))
def test_the_listed_activations_allow_an_independent_proof(graph: ModelGraph, tmp_path: Path, seed: int) -> None:
    assert_activations_prove(graph, tmp_path / "plan.json", seed)


@pytest.mark.shared
def test_the_listed_activations_of_resnet20_allow_an_independent_proof(shared: Path, tmp_path: Path) -> None:
    graph = from_proto(onnx.load(shared / "models" / "resnet20_dynamo.onnx"))
    index = build_index(graph)
    mask = random_mask(index, 0)
    write_plan(tmp_path / "plan.json", index, plan_of_mask(index, mask))
    activations = json.loads((tmp_path / "plan.json").read_text())["activations"]
    feeds = random_feeds(graph, batch=2)
    slim = run(cut(index, mask), feeds)
    assert compare(run(zeroed(graph.proto, activations), feeds), slim).max_rel_diff < 1e-4
    assert len(activations) > 15


def test_reads_that_lose_nothing_are_not_listed(index: GroupIndex) -> None:
    assert masked_reads(index, np.ones(14, dtype=bool)) == {}
    mask = np.ones(14, dtype=bool)
    mask[9] = False
    assert set(masked_reads(index, mask)) == {(9, 0)}


def test_kept_positions_are_the_fixed_ones_and_those_of_kept_channels() -> None:
    mask = np.array([True, False, True])
    assert kept_positions(np.array([-1, 0, 1, 1, 2, -1]), mask).tolist() == [0, 1, 4, 5]
    assert kept_positions(np.array([-1, -1]), np.zeros(0, dtype=bool)).tolist() == [0, 1]


Change = Callable[[dict[str, Any]], object]
MALFORMED: dict[str, tuple[Change, str]] = {
    "no schema": (lambda p: p.pop("schema"), "schema is wrong"),
    "newer schema": (lambda p: p.update(schema=2), "schema is wrong"),
    "schema as text": (lambda p: p.update(schema="1"), "schema is wrong"),
    "no sha": (lambda p: p.pop("model_sha256"), "model_sha256 is wrong"),
    "sha of another type": (lambda p: p.update(model_sha256=3), "model_sha256 is wrong"),
    "structure of another type": (lambda p: p.update(structure=3), "structure is wrong"),
    "structure as a list": (lambda p: p.update(structure=["a"]), "structure is wrong"),
    "another structure": (
        lambda p: p.update(structure="0" * 64, model_sha256="0" * 64),
        "equal groups and other operators or attributes",
    ),
    "no groups": (lambda p: p.pop("groups"), "groups is wrong"),
    "groups of another type": (lambda p: p.update(groups={}), "groups is wrong"),
    "no activations": (lambda p: p.pop("activations"), "activations is wrong"),
    "a group is missing": (lambda p: p["groups"].pop(), "groups must be those of the model"),
    "a group too many": (lambda p: p["groups"].append(p["groups"][0]), "groups must be those of the model"),
    "no group left": (lambda p: p.update(groups=[]), "groups must be those of the model"),
    "groups reordered": (lambda p: p["groups"].reverse(), "groups must be those of the model"),
    "another name": (lambda p: p["groups"][0].update(name="stem"), "groups must be those of the model"),
    "another width": (lambda p: p["groups"][0].update(n_channels=9), "groups must be those of the model"),
    "no kept": (lambda p: p["groups"][1].pop("kept"), "groups.1.kept is wrong"),
    "kept nothing": (lambda p: p["groups"][0].update(kept=[]), "kept of group 'Conv_0' must be ascending"),
    "kept twice": (lambda p: p["groups"][0].update(kept=[1, 1]), "kept of group 'Conv_0' must be ascending"),
    "kept in disorder": (lambda p: p["groups"][0].update(kept=[3, 1]), "kept of group 'Conv_0' must be ascending"),
    "kept too large": (lambda p: p["groups"][1].update(kept=[0, 6]), r"numbers in 0\.\.5"),
    "kept negative": (lambda p: p["groups"][1].update(kept=[-1, 2]), r"numbers in 0\.\.5"),
    "kept as text": (lambda p: p["groups"][0].update(kept=["1"]), r"groups\.0\.kept\.0 is wrong"),
    "kept as fractions": (lambda p: p["groups"][0].update(kept=[1.0]), r"groups\.0\.kept\.0 is wrong"),
    "kept as booleans": (lambda p: p["groups"][0].update(kept=[True]), r"groups\.0\.kept\.0 is wrong"),
    "kept is huge": (lambda p: p["groups"][0].update(kept=[1 << 80]), r"groups\.0\.kept\.0|ascending"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_a_malformed_plan_is_refused(case: str, path: Path, graph: ModelGraph, index: GroupIndex) -> None:
    change, message = MALFORMED[case]
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))
    with pytest.raises(PlanError, match=message) as caught:
        read_plan(path, index)
    assert caught.value.message.startswith(f"plan {path}")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "must be JSON"),
        (b"{", "must be JSON"),
        (b"\xff\xfe", "must be a readable file"),
        (b"[]", "is wrong"),
        (b"null", "is wrong"),
        (b'"plan"', "is wrong"),
        (b"[" * 100_000, "must be JSON"),
        (b'{"schema": ' + b"1" * 5000 + b"}", "must be JSON"),
    ],
    ids=["empty", "cut short", "not text", "a list", "null", "text", "nested", "a huge number"],
)
def test_what_is_no_plan_is_refused(
    data: bytes, message: str, path: Path, graph: ModelGraph, index: GroupIndex
) -> None:
    path.write_bytes(data)
    with pytest.raises(PlanError, match=message):
        read_plan(path, index)


def test_a_missing_plan(tmp_path: Path, graph: ModelGraph, index: GroupIndex) -> None:
    for path in (tmp_path, tmp_path / "none.json"):
        with pytest.raises(PlanError, match="must be a readable file"):
            read_plan(path, index)


def test_a_plan_of_another_model_says_what_to_do(path: Path) -> None:
    other = build(TEXT, seed=1, **CONSTANTS)
    with pytest.raises(PlanError, match="must belong to") as caught:
        read_plan(path, build_index(other), strict=True)
    assert other.sha256[:12] in caught.value.message
    assert "bocr-onnx prune" in caught.value.hint


def test_a_strict_plan_is_read_for_its_own_file(path: Path, graph: ModelGraph, index: GroupIndex) -> None:
    assert read_plan(path, index, strict=True).widths == (3, 2)


def test_a_plan_is_read_for_other_weights_and_tells(path: Path, graph: ModelGraph, index: GroupIndex) -> None:
    other = build(TEXT, seed=1, **CONSTANTS)
    plan = read_plan(path, build_index(other))
    assert plan == read_plan(path, index) == Plan(((0, 3, 7), (1, 5)))
    assert plan.model_sha256 == graph.sha256 != other.sha256


@pytest.fixture
def renamed() -> ModelGraph:
    """Returns the model as another export: its nodes have other names."""
    made = proto(TEXT, **CONSTANTS)
    for number, node in enumerate(made.graph.node):
        node.name = f"node_{number + 40}"
    return from_proto(made)


def test_a_plan_is_read_where_nodes_have_other_names(path: Path, renamed: ModelGraph) -> None:
    index = build_index(renamed)
    assert [g.name for g in index.groups] == ["node_40", "node_47"]
    assert read_plan(path, index) == Plan(((0, 3, 7), (1, 5)))


RENAMED: dict[str, tuple[Change, str]] = {
    "without structure": (lambda p: p.pop("structure"), "where the model has 'node_40' of 8 channels"),
    "another width": (lambda p: p["groups"][0].update(n_channels=9), "got 'Conv_0' of 9 channels where"),
    "a group too few": (lambda p: p["groups"].pop(), "got none where the model has 'node_47' of 6 channels"),
    "a group too many": (
        lambda p: p["groups"].append(p["groups"][1]),
        "'Gemm_7' of 6 channels where the model has none",
    ),
    "kept too large": (lambda p: p["groups"][1].update(kept=[0, 6]), r"numbers in 0\.\.5"),
}


@pytest.mark.parametrize("case", RENAMED)
def test_where_nodes_have_other_names_the_rest_must_fit(case: str, path: Path, renamed: ModelGraph) -> None:
    change, message = RENAMED[case]
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))
    with pytest.raises(PlanError, match=message):
        read_plan(path, build_index(renamed))


WIDER = {"W": (9, 3, 3, 3), "wb": (9,), "D": (9, 1, 3, 3), "U": (9, 9, 3, 3), "ub": (9,), "G": (36, 6)}
OTHERS: dict[str, tuple[str, dict[str, tuple[int, ...]], str]] = {
    "width": (
        TEXT.replace("group = 8", "group = 9"),
        CONSTANTS | WIDER,
        "got 'Conv_0' of 8 channels where the model has 'Conv_0' of 9 channels",
    ),
    "name": (
        TEXT.replace("c = Conv", "z = Neg(x) c = Conv").replace("(x, W", "(z, W"),
        CONSTANTS,
        "got 'Conv_0' of 8 channels where the model has 'Conv_1' of 8 channels",
    ),
    "attribute": (TEXT.replace("AveragePool <", "AveragePool <ceil_mode = 1, "), CONSTANTS, "other operators or attr"),
    "operator": (TEXT.replace("AveragePool", "MaxPool"), CONSTANTS, "other operators or attributes"),
}


@pytest.mark.parametrize("case", OTHERS)
def test_a_plan_of_another_structure_says_what_differs(case: str, path: Path) -> None:
    text, constants, message = OTHERS[case]
    other = build(text, **constants)
    with pytest.raises(PlanError, match=message) as caught:
        read_plan(path, build_index(other))
    assert "bocr-onnx prune" in caught.value.hint


def test_a_plan_without_structure_is_read_by_its_groups(path: Path) -> None:
    record = json.loads(path.read_text())
    del record["structure"]
    path.write_text(json.dumps(record))
    other = build(TEXT, seed=1, **CONSTANTS)
    assert read_plan(path, build_index(other)).widths == (3, 2)
    text, constants, message = OTHERS["width"]
    wider = build(text, **constants)
    with pytest.raises(PlanError, match=message):
        read_plan(path, build_index(wider))


def test_the_digest_of_a_later_version_does_not_matter_to_the_same_file(
    path: Path, graph: ModelGraph, index: GroupIndex
) -> None:
    record = json.loads(path.read_text())
    path.write_text(json.dumps(record | {"structure": "0" * 64}))
    assert read_plan(path, index, strict=True).widths == (3, 2)


def test_unknown_entries_are_ignored(path: Path, graph: ModelGraph, index: GroupIndex) -> None:
    record = json.loads(path.read_text())
    record["comment"] = record["groups"][0]["comment"] = "by hand"
    path.write_text(json.dumps(record))
    assert read_plan(path, index).widths == (3, 2)


def test_a_plan_that_cannot_be_written(tmp_path: Path, graph: ModelGraph, index: GroupIndex) -> None:
    with pytest.raises(OutputError):
        write_plan(tmp_path / "none" / "plan.json", index, Plan(((0,), (0,))))
