"""GroupNormalization as exporters write it: Reshape, InstanceNormalization over whole blocks, Reshape back."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest

from bocr_onnx.graph import ModelGraph
from bocr_onnx.groups import GroupIndex, build_index, carry
from tests.oracle import build, check, reasons, widths

N_CHANNELS, N_BLOCKS = 12, 3
NORMALIZED = "n = InstanceNormalization(a, s, b)"
COMPUTED = "f = Shape(c) e = Gather <axis = 0> (f, k0) "
BACK = "f2 = Shape(c) r = Reshape(n, f2)"


def written(
    size: str,
    *,
    opset: int = 17,
    batch: str = "N",
    there: str = "a = Reshape(c, t)",
    norm: str = NORMALIZED,
    back: str = BACK,
    **constants: Any,
) -> ModelGraph:
    """Conv (12 channels) -> blocks -> normalized -> back -> scale and bias of each channel -> Conv."""
    ones = [1] * (size.count(",") + 1)
    made = {
        "W": (N_CHANNELS, 3, *ones), "V": (2, N_CHANNELS, *ones), "g": (N_CHANNELS, *ones), "h": (N_CHANNELS, *ones),
        "s": (N_BLOCKS,), "b": (N_BLOCKS,), "t": [0, N_BLOCKS, -1], "k0": [0], "k3": [N_BLOCKS], "inf": [-1],
        "eps": np.full(1, 1e-5, np.float32),
    }  # fmt: skip
    text = f"""m (float[{batch}, 3, {size}] x) => (float[{batch}, 2, {", ".join("ABC"[: len(ones)])}] y) {{
        c = Conv(x, W)
        {there}
        {norm}
        {back}
        q = Mul(r, g)
        p = Add(q, h)
        y = Conv(p, V)
    }}"""
    names = set(text.replace("(", " ").replace(")", " ").replace(",", " ").split())
    return build(text, opset=opset, **{name: v for name, v in {**made, **constants}.items() if name in names})


def blocks_go_whole(index: GroupIndex) -> bool:
    return widths(index) == {"Conv_0": N_BLOCKS} and len(reasons(index)) == 1


@pytest.mark.parametrize("size", ["4, 4", "H, W", "6, 7, 8", "D, H, W"])
@pytest.mark.parametrize("opset", [11, 13, 18, 21])
def test_blocks_live_or_die_as_one(size: str, opset: int) -> None:
    index = check(written(size, opset=opset))
    assert blocks_go_whole(index)
    members = {(m.tensor, m.axis, m.width) for m in index.groups[0].members}
    assert {("s", 0, N_BLOCKS), ("b", 0, N_BLOCKS), ("g", 0, N_CHANNELS), ("h", 0, N_CHANNELS)} <= members


FORMS: dict[str, dict[str, Any]] = {
    "a batch of one": {"batch": "1", "t": [1, 3, -1]},
    "the batch inferred": {"t": [-1, 3, 64]},
    "batch and blocks on one axis": {"batch": "2", "t": [1, 6, -1], "s": (6,), "b": (6,)},
    "five axes": {"t": [0, 3, 4, 4, 4]},
    "computed": {"there": COMPUTED + "t2 = Concat <axis = 0> (e, k3, inf) a = Reshape(c, t2)"},
    "back to constant sizes": {"back": "r = Reshape(n, u)", "u": [0, 12, 4, 4]},
    "back to a computed batch": {
        "back": COMPUTED + "t3 = Concat <axis = 0> (e, u) r = Reshape(n, t3)",
        "u": [12, 4, 4],
    },
    "means of batch times blocks": {
        "there": COMPUTED + "z = Mul(e, k3) t2 = Concat <axis = 0> (z, inf) a = Reshape(c, t2)",
        "norm": """
            m = ReduceMean <axes = [1]> (a) d = Sub(a, m) w = Mul(d, d)
            v = ReduceMean <axes = [1]> (w) o = Add(v, eps) i = Sqrt(o) n = Div(d, i)
        """,
    },
    "the blocks inferred": {
        "t": [-1, 64],
        "norm": "n = MeanVarianceNormalization <axes = [1]> (a)",
    },
}


@pytest.mark.parametrize("form", FORMS)
def test_forms_of_the_target_shape(form: str) -> None:
    assert blocks_go_whole(check(written("4, 4", **FORMS[form])))


@pytest.mark.parametrize("size", ["512, 512", "592, 592", "1024, 1024", "2048, 2048", "128, 128, 128"])
@pytest.mark.parametrize("form", ["", "computed", "a batch of one", "batch and blocks on one axis"])
def test_large_maps_are_cut_as_small_ones(size: str, form: str) -> None:
    begun = time.process_time()
    assert blocks_go_whole(build_index(written(size, **FORMS.get(form, {}))))
    assert time.process_time() - begun < 10


@pytest.mark.parametrize(("most", "n"), [(1 << 22, 4), (100, 3)])
def test_what_is_tied_for_its_size_is_cut_exactly(most: int, n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where nothing mixes the channels, which could go one of each block, or whole blocks."""
    monkeypatch.setattr(carry, "MAX_REPEATED", most)
    assert widths(check(written("4, 4", norm="n = Relu(a)"))) == {"Conv_0": n}


def test_what_would_be_tied_to_nothing_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(carry, "MAX_REPEATED", 2)
    index = build_index(written("4, 4"))
    assert index.groups == ()
    assert reasons(index)["Reshape_1"] == "the channels are merged with too large an axis"
