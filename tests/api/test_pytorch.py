"""To PyTorch and back: names of the file, a loop of the user's own, and the structure that a plan proves."""

from __future__ import annotations

import copy
from importlib.resources import files
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

import bocr_onnx
from bocr_onnx.errors import ModelError, TrainingError, UsageError
from bocr_onnx.runtime import run_once

DEMO = str(files("bocr_onnx.calibration") / "demo.onnx")
DIGITS = str(files("bocr_onnx.calibration") / "digits.npz")


def test_a_module_has_the_names_and_the_numbers_of_the_file() -> None:
    module = bocr_onnx.to_torch(DEMO)
    tensors = {t.name: onnx.numpy_helper.to_array(t) for t in onnx.load(DEMO).graph.initializer}
    state = module.state_dict()
    assert len(state) > 20
    assert set(state) <= set(tensors)
    for name, tensor in state.items():
        np.testing.assert_array_equal(tensor.numpy(), tensors[name])
    assert {n for n, _ in module.named_parameters()} >= {"features.0.0.weight", "classify.weight"}
    assert "features.0.1.running_mean" in dict(module.named_buffers())


def test_it_computes_what_the_file_does_and_comes_back_bit_for_bit(tmp_path: Path) -> None:
    x = np.random.default_rng(0).random((3, 1, 8, 8)).astype(np.float32)
    module = bocr_onnx.to_torch(DEMO).eval()
    with torch.no_grad():
        (found,) = module(torch.from_numpy(x))
    np.testing.assert_allclose(found.numpy(), run_once(onnx.load(DEMO), {"input": x})[0], atol=1e-4)
    again = bocr_onnx.to_onnx(module, tmp_path / "again.onnx")
    before, after = (run_once(m, {"input": x})[0] for m in (onnx.load(DEMO), onnx.load(tmp_path / "again.onnx")))
    np.testing.assert_array_equal(before, after)
    assert [n.op_type for n in again.graph.node] == [n.op_type for n in onnx.load(DEMO).graph.node]


def test_a_loop_of_ones_own_trains_a_pruned_model_that_a_plan_still_proves(tmp_path: Path) -> None:
    slim = tmp_path / "slim.onnx"
    bocr_onnx.prune(DEMO, flops=0.3, search="uniform", output=slim)
    digits = np.load(DIGITS)
    images, labels = torch.from_numpy(digits["images"][:, None] / 16).float(), torch.from_numpy(digits["labels"])
    module = bocr_onnx.to_torch(slim)
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(60):
        rows = torch.randint(len(images), (64,), generator=generator)
        (logits,) = module.train()(images[rows])
        loss = nn.functional.cross_entropy(logits, labels[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    bocr_onnx.to_onnx(module, tmp_path / "trained.onnx")
    before, after = (bocr_onnx.evaluate(path, data=DIGITS).score.value for path in (slim, tmp_path / "trained.onnx"))
    assert after > before + 0.1
    plan = tmp_path / "slim.run" / "plan.json"
    checked = bocr_onnx.check(str(tmp_path / "trained.onnx"), against=DEMO, plan=plan, max_flops=0.3)
    assert checked.verdict == "passed"


def test_names_that_no_module_can_have_become_others() -> None:
    names = {"block.weight": (4, 3, 1, 1), "block.weight.more": (4, 4, 1, 1), "training": (4, 4, 1, 1)}
    model = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["" : 17]>
        m (float[N, 3, 4, 4] x) => (float[N, 4, 4, 4] y) {
            a = Conv(x, w0) b = Conv(a, w1) c = Conv(b, w2) y = Conv(c, w3)
        }""")
    rng = np.random.default_rng(0)
    for node, (name, shape) in zip(model.graph.node, {**names, ".odd..name": (4, 4, 1, 1)}.items(), strict=True):
        node.input[1] = name
        array = rng.standard_normal(shape).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    module = bocr_onnx.to_torch(model)
    assert len(module.state_dict()) == 4
    assert "block.weight" in module.state_dict()
    assert [name for name, _ in module.named_initializers()] == [*names, ".odd..name"]
    x = rng.random((2, 3, 4, 4)).astype(np.float32)
    with torch.no_grad():
        for _, tensor in module.named_initializers():
            tensor.mul_(2)
        (found,) = module(torch.from_numpy(x))
    np.testing.assert_allclose(found.numpy(), run_once(bocr_onnx.to_onnx(module), {"x": x})[0], rtol=1e-4, atol=1e-5)


def test_a_copy_and_a_type_are_the_modules_own() -> None:
    module = bocr_onnx.to_torch(DEMO)
    other = copy.deepcopy(module)
    with torch.no_grad():
        other.classify.weight.zero_()
    assert module.classify.weight.abs().sum() > 0
    (found,) = other.eval()(torch.zeros(1, 1, 8, 8))
    assert found.std() < 1
    double = copy.deepcopy(module).double().eval()
    (precise,) = double(torch.zeros(1, 1, 8, 8, dtype=torch.float64))
    assert precise.dtype == torch.float64


def test_bad_modules_and_places(tmp_path: Path) -> None:
    module = bocr_onnx.to_torch(DEMO)
    with pytest.raises(UsageError, match="to_torch"):
        bocr_onnx.to_onnx(nn.Linear(2, 2))
    with pytest.raises(UsageError, match="must not be a file that is read"):
        bocr_onnx.to_onnx(module, DEMO)
    with torch.no_grad():
        module.classify.bias[0] = float("nan")
    with pytest.raises(TrainingError, match=r"classify\.bias"):
        bocr_onnx.to_onnx(module, tmp_path / "nan.onnx")
    assert not (tmp_path / "nan.onnx").exists()
    with pytest.raises(ModelError):
        bocr_onnx.to_torch(tmp_path / "missing.onnx")
