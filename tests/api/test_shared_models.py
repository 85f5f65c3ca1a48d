"""Real exports: torchscript folded, torchscript with normalization and shape arithmetic kept, dynamo."""

import time

import numpy as np
import onnx
import onnxruntime
import pytest

import bocr_onnx
from bocr_onnx.graph import load
from bocr_onnx.groups import build_index
from bocr_onnx.recovery import calibrate
from bocr_onnx.runtime import run_once
from bocr_onnx.slimming import cut, prove_structure

from .test_prune import independent_macs

pytestmark = [pytest.mark.slow, pytest.mark.shared]
MODELS = ["resnet20_bn", "resnet20_folded", "resnet20_dynamo", "resnet56_folded", "resnet56_dynamo"]


@pytest.mark.parametrize(("name", "grid"), [*((name, "auto") for name in MODELS), ("resnet56_folded", 1)])
def test_half_the_macs_with_the_same_interface(shared, tmp_path, name, grid):
    model = shared / "models" / f"{name}.onnx"
    slim = tmp_path / "slim.onnx"
    report = bocr_onnx.prune(model, flops=0.5, strategy="uniform", output=slim, round_to=grid)
    assert 0.49 <= report.result.macs / report.baseline.macs <= 0.5
    assert report.proof["max_rel_diff"] < 1e-4
    before, after = onnx.load(model, load_external_data=False), onnx.load(slim, load_external_data=False)
    assert before.graph.input == after.graph.input
    assert before.graph.output == after.graph.output
    assert before.opset_import == after.opset_import
    session = onnxruntime.InferenceSession(str(slim))
    for batch in (1, 32):
        assert session.run(None, {"input": np.zeros((batch, 3, 32, 32), np.float32)})[0].shape == (batch, 10)


def test_the_count_of_macs_is_the_independent_one(shared, tmp_path):
    model = shared / "models" / "resnet56_dynamo.onnx"
    report = bocr_onnx.prune(model, flops=0.5, strategy="uniform", output=tmp_path / "slim.onnx")
    assert report.baseline.macs == independent_macs(model)
    assert report.result.macs == independent_macs(tmp_path / "slim.onnx")


def test_external_data_stays_external(shared, tmp_path):
    bocr_onnx.prune(
        shared / "models" / "resnet56_dynamo.onnx", flops=0.5, strategy="uniform", output=tmp_path / "slim.onnx"
    )
    assert (tmp_path / "slim.onnx.data").stat().st_size > (tmp_path / "slim.onnx").stat().st_size


def test_all_exports_give_the_same_groups(shared):
    widths = [
        sorted(g.n_channels for g in bocr_onnx.inspect(shared / "models" / f"{name}.onnx").groups)
        for name in ("resnet20_bn", "resnet20_folded", "resnet20_dynamo")
    ]
    assert widths[0] == widths[1] == widths[2]


def test_inspect_cut_and_proof_of_resnet56_take_less_than_three_seconds(shared):
    start = time.perf_counter()
    graph = load(shared / "models" / "resnet56_folded.onnx")
    index = build_index(graph)
    mask = calibrate(index, None).mask(np.array([max(1, g.n_channels // 2) for g in index.groups]))
    assert prove_structure(index, mask, cut(index, mask), run_once).passed
    assert time.perf_counter() - start < 3
