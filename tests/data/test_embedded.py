"""The files of calibration/ as an installed package sees them."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from bocr_onnx.data import Samples, load_preprocessing, open_data

N_VAL_HITS = 596
FILES = resources.files("bocr_onnx.calibration")


@pytest.fixture(scope="module")
def held_out() -> Samples:
    with resources.as_file(FILES / "digits.npz") as path:
        pools = open_data(path)
    assert pools.train is not None
    assert pools.held_out is not None
    assert (len(pools.train), len(pools.held_out), len(pools.train.classes)) == (1200, 597, 10)
    return pools.held_out


@pytest.mark.parametrize("batch", [1, 32, 597])
def test_the_demo_scores_what_the_readme_says(held_out: Samples, batch: int) -> None:
    session = onnxruntime.InferenceSession((FILES / "demo.onnx").read_bytes(), providers=["CPUExecutionProvider"])
    preset = load_preprocessing("digits")
    answers = [session.run(["logits"], {"input": x})[0].argmax(1) for x in held_out.batches(preset, batch)]
    assert abs(int((np.concatenate(answers) == held_out.labels).sum()) - N_VAL_HITS) <= 1
    assert f"{N_VAL_HITS} of 597" in (FILES / "README.md").read_text(encoding="utf-8")


def test_no_digit_is_in_both_parts() -> None:
    with resources.as_file(FILES / "digits.npz") as path:
        pools = open_data(path)
    assert pools.train is not None
    assert pools.held_out is not None
    parts = [{row.tobytes() for row in np.asarray(pool.images)} for pool in (pools.train, pools.held_out)]
    assert not parts[0] & parts[1]


def test_the_demo_is_one_small_clean_file() -> None:
    content = (FILES / "demo.onnx").read_bytes()
    assert len(content) < 1_000_000
    proto = onnx.load_from_string(content)
    onnx.checker.check_model(proto, full_check=True)
    assert not any(onnx.external_data_helper.uses_external_data(t) for t in proto.graph.initializer)
    assert not proto.metadata_props
    assert not any(node.metadata_props or node.doc_string for node in proto.graph.node)
    assert {"BatchNormalization", "Conv", "Sigmoid", "Gemm"} <= {node.op_type for node in proto.graph.node}


def test_the_readme_shows_a_valid_preprocessing(tmp_path: Path) -> None:
    text = (FILES / "README.md").read_text(encoding="utf-8")
    file = tmp_path / "imagenet.toml"
    file.write_text(text.split("```toml\n")[1].split("```")[0])
    file.write_text(file.read_text(encoding="utf-8") + "\n[augment]\nflip = true\n", encoding="utf-8")
    assert load_preprocessing(file) == load_preprocessing("imagenet")
