"""The memory of a run is bounded by its budget, not by the number of its images."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
from PIL import Image

from bocr_onnx.pipeline.loaded import IMAGES_SHARE
from bocr_onnx.pipeline.measure import RECOVERY_SHARE
from tests.oracle import proto
from tests.served import served

N, N_KINDS, SIDE = 2300, 10, 224
BUDGET = 1 << 28
PROCESS = 1000 << 20
"""What the libraries, half of it torch, and a run over few images take."""


def test_the_shares_of_the_budget_make_no_more_than_the_budget() -> None:
    """Three parts of the images, and copies of two where the last fit takes both."""
    assert RECOVERY_SHARE + 5 * IMAGES_SHARE <= 1


def test_memory_is_bounded_by_the_budget(tmp_path: Path) -> None:
    assert 4 * N * 3 * SIDE * SIDE > BUDGET + PROCESS
    folder = tmp_path / "images"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for kind in range(N_KINDS):
        Image.fromarray(rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)).save(folder / f"{kind}.jpg")
    for i in range(N_KINDS, N):
        shutil.copy(folder / f"{i % N_KINDS}.jpg", folder / f"{i}.jpg")
    text = "m (float[N,3,224,224] x) => (float[N,10] y) { c = Conv<strides=[8,8]>(x, w) r = Relu(c) "
    text += "p = GlobalAveragePool(r) f = Flatten(p) y = Gemm(f, v) }"
    onnx.save(proto(text, w=(16, 3, 8, 8), v=(16, 10)), tmp_path / "m.onnx")
    given = ["prune", str(tmp_path / "m.onnx"), "--flops", "0.6", "--search", "sensitivity", "--round-to", "1"]
    given += ["--data", str(folder), "--preset", "imagenet", "--history", "none"]
    with served() as ask:
        found = ask(*given, "--memory", str(BUDGET / (1 << 30)), "-o", str(tmp_path / "slim.onnx"))
    assert found.code == 0, found.text
    assert found.memory < BUDGET + PROCESS
