"""Which channels stay: the ones whose readers draw most from them, whatever operator reads and however it is stored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from bocr_onnx import prune
from bocr_onnx.graph import Array, ModelGraph, random_feeds, save
from bocr_onnx.groups import ChannelGroup, GroupIndex, build_index
from bocr_onnx.recovery import calibrate, weigh_curves
from bocr_onnx.recovery.patches import is_refitted
from bocr_onnx.runtime import predict, run_once
from bocr_onnx.slimming import cut, masked_original
from bocr_onnx.tasks import distortion
from tests.oracle import build, drawn

LIVE = np.arange(1, 16, 2)
"""The channels that the readers below draw from, of 16."""

STEM = "m ({x}) => ({y}) {{ a = Conv <pads = [1, 1, 1, 1]> (x, w, b)\n r = Relu(a)\n {tail} }}"


def dead(*shape: int, axis: int) -> Array:
    """Returns a weight that draws from `LIVE` alone along an axis, by more the higher the channel."""
    weight = drawn(shape, 3)
    factor = np.where(np.isin(np.arange(16), LIVE), 1 + np.arange(16) / 8, 0).astype(np.float32)
    return weight * factor[: shape[axis]].reshape(-1, *[1] * (len(shape) - 1 - axis))


def quantized(weight: Array) -> dict[str, Any]:
    scale = np.float32(np.abs(weight).max() / 127)
    return {"q": np.round(weight / scale).astype(np.int8), "s": scale, "z": np.int8(0)}


def quantized_apart(weight: Array) -> dict[str, Any]:
    """Returns a uint8 weight around 128, so that what is dead is large as an integer, and scales for activations."""
    scale = np.float32(np.abs(weight).max() / 127)
    stored = {"q": (np.round(weight / scale) + 128).astype(np.uint8), "qs": scale, "qz": np.uint8(128)}
    return {**stored, "s": np.float32(0.05), "z": np.uint8(100)}


IMAGE, FLAT = "float[N, 4, 8, 8] y", "float[N, A, B] y"
READERS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "Conv": ("y = Conv(r, v)", IMAGE, {"v": dead(4, 16, 1, 1, axis=1)}),
    "ConvTranspose": ("y = ConvTranspose(r, v)", IMAGE, {"v": dead(16, 4, 1, 1, axis=0)}),
    "Conv, quantized weight": (
        "d = DequantizeLinear(q, s, z) y = Conv(r, d)",
        IMAGE,
        quantized(dead(4, 16, 1, 1, axis=1)),
    ),
    "ConvTranspose, quantized weight": (
        "d = DequantizeLinear(q, s, z) y = ConvTranspose(r, d)",
        IMAGE,
        quantized(dead(16, 4, 1, 1, axis=0)),
    ),
    "Conv, shared weight": (
        "p = Conv(r, v) n = Neg(r) q = Conv(n, v) y = Max(p, q)",
        IMAGE,
        {"v": dead(4, 16, 1, 1, axis=1)},
    ),
    "Conv, weight handed on": (
        "i = Identity(v) p = Conv(r, v) n = Neg(r) q = Conv(n, i) y = Max(p, q)",
        IMAGE,
        {"v": dead(4, 16, 1, 1, axis=1)},
    ),
    "MatMul from the right": (
        "f = Reshape(r, flat) t = Transpose <perm = [0, 2, 1]> (f) y = MatMul(t, v)",
        FLAT,
        {"v": dead(16, 5, axis=0), "flat": [0, 16, 64]},
    ),
    "MatMul from the left": (
        "f = Reshape(r, flat) y = MatMul(v, f)",
        FLAT,
        {"v": dead(5, 16, axis=1), "flat": [0, 16, 64]},
    ),
    "Gemm": (
        "f = GlobalAveragePool(r) g = Flatten(f) y = Gemm <transB = 1, alpha = 0.5> (g, v)",
        "float[N, 5] y",
        {"v": dead(5, 16, axis=1)},
    ),
    "QLinearConv": (
        "i = QuantizeLinear(r, s, z) o = QLinearConv(i, s, z, q, qs, qz, s, z) y = DequantizeLinear(o, s, z)",
        IMAGE,
        quantized_apart(dead(4, 16, 1, 1, axis=1)),
    ),
    "ConvInteger": (
        "i = QuantizeLinear(r, s, z) o = ConvInteger(i, q, z, qz) y = Cast <to = 1> (o)",
        IMAGE,
        quantized_apart(dead(4, 16, 1, 1, axis=1)),
    ),
    "MatMulInteger": (
        "f = Reshape(r, flat) t = Transpose <perm = [0, 2, 1]> (f) i = QuantizeLinear(t, s, z) "
        "o = MatMulInteger(i, q, z, qz) y = Cast <to = 1> (o)",
        FLAT,
        {**quantized_apart(dead(16, 5, axis=0)), "flat": [0, 16, 64]},
    ),
    "Einsum": (
        'f = Reshape(r, flat) y = Einsum <equation = "ncp,dc->npd"> (f, v)',
        FLAT,
        {"v": dead(5, 16, axis=1), "flat": [0, 16, 64]},
    ),
}  # fmt: skip


def model(name: str) -> ModelGraph:
    tail, output, constants = READERS[name]
    text = STEM.format(x="float[N, 3, 8, 8] x", y=output, tail=tail)
    return build(text, w=(16, 3, 3, 3), b=(16,), **constants)


def images(*shape: int) -> Array:
    return np.random.default_rng(5).standard_normal(shape).astype(np.float32)


def kept(graph: ModelGraph, seen: Array | None, width: int) -> list[int]:
    index = build_index(graph)
    (group,) = index.groups
    assert group.n_channels == 16
    mask = calibrate(index, seen).mask(np.array([width]))
    return np.flatnonzero(mask).tolist()


@pytest.mark.parametrize("name", READERS)
def test_without_images_the_weights_decide(name: str) -> None:
    assert kept(model(name), None, 8) == LIVE.tolist()


@pytest.mark.parametrize("name", READERS)
def test_with_images_the_same_channels_stay(name: str) -> None:
    assert kept(model(name), images(40, 3, 8, 8), 8) == LIVE.tolist()


def test_a_grouped_convolution_draws_from_the_same_place_of_every_block() -> None:
    weight = drawn((8, 4, 1, 1), 3)
    weight[:, [0, 1]] = 0
    graph = build(
        STEM.format(x="float[N, 3, 8, 8] x", y="float[N, 8, 8, 8] y", tail="y = Conv <group = 4> (r, v)"),
        w=(16, 3, 3, 3), b=(16,), v=weight,
    )  # fmt: skip
    index = build_index(graph)
    (group,) = index.groups
    for seen in (None, images(40, 3, 8, 8)):
        mask = calibrate(index, seen).mask(np.array([group.n_channels // 2]))
        assert set(index.slices[(2, 1)][1][mask[index.slices[(2, 1)][1]]]) == set(index.slices[(2, 1)][1][[2, 3]])


def test_energy_of_what_is_read_counts_with_images() -> None:
    """All taps of the transposed convolution are alike; half of what it reads never fires."""
    graph = build(
        STEM.format(x="float[N, 3, 8, 8] x", y=IMAGE, tail="y = ConvTranspose(r, v)"),
        w=drawn((16, 3, 3, 3), 0),
        b=np.where(np.isin(np.arange(16), LIVE), 0, -100).astype(np.float32),
        v=np.ones((16, 4, 1, 1), np.float32),
    )
    assert kept(graph, images(40, 3, 8, 8), 8) == LIVE.tolist()
    assert kept(graph, None, 8) == list(range(8))


def test_the_energy_of_integers_is_taken_from_their_zero_point() -> None:
    """What fires lies below the zero point, nearer to the integer 0 than what does not."""
    tail = "n = Neg(r) i = QuantizeLinear(n, s, z) o = QLinearConv(i, s, z, q, qs, qz, s, z)"
    graph = build(
        STEM.format(x="float[N, 3, 8, 8] x", y=IMAGE, tail=f"{tail} y = DequantizeLinear(o, s, z)"),
        w=drawn((16, 3, 3, 3), 0),
        b=np.where(np.isin(np.arange(16), LIVE), 1, -100).astype(np.float32),
        **quantized_apart(np.ones((4, 16, 1, 1), np.float32)),
    )
    assert kept(graph, images(40, 3, 8, 8), 8) == LIVE.tolist()


ATTENTION = """m (float[N, 6, 10] x) => (float[N, 6, 6] y) {
    q = MatMul(x, wq)
    k = MatMul(x, wk)
    t = Transpose <perm = [0, 2, 1]> (k)
    y = MatMul(q, t)
}"""


def test_queries_and_keys_count_by_the_weights_that_make_both() -> None:
    """A channel whose query is strong and whose key is dead does nothing: nor does the reverse."""
    wq, wk = dead(10, 16, axis=1) + 0.5, dead(10, 16, axis=1)
    graph = build(ATTENTION, wq=wq, wk=wk)
    assert kept(graph, None, 8) == LIVE.tolist()
    assert kept(graph, images(40, 6, 10), 8) == LIVE.tolist()
    graph = build(ATTENTION, wq=wk, wk=wq)
    assert kept(graph, None, 8) == LIVE.tolist()


@pytest.mark.parametrize("with_images", [False, True])
def test_queries_and_keys_of_one_weight_and_their_gains_count_as_apart(with_images: bool) -> None:
    """The weight makes both; of the gains after it those of the queries are weak where the keys' are strong."""
    gain = np.where(np.isin(np.arange(16), LIVE), 1, 0.05).astype(np.float32)
    graph = build(
        """m (float[N, 6, 10] x) => (float[N, 6, 6] y) {
            f = MatMul(x, w) q, k = Split <axis = 2> (f, halves)
            g = Mul(q, gain) t = Transpose <perm = [0, 2, 1]> (k) y = MatMul(g, t)
        }""",
        w=np.concatenate([drawn((10, 16), 1), drawn((10, 16), 2)], axis=1), gain=gain, halves=[16, 16],
    )  # fmt: skip
    assert kept(graph, images(40, 6, 10) if with_images else None, 8) == LIVE.tolist()


def test_scales_of_a_product_on_integers_lie_along_its_outputs() -> None:
    weight = dead(16, 16, axis=1)
    weight[:8] *= 50
    scales = np.abs(weight).max(axis=1) / 127
    stored = np.round(weight / scales[:, None]).astype(np.int8)
    graph = build(
        """<ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1]> m (float[N, 5] x) => (float[N, 16] y) {
            h = MatMul(x, w) q = QuantizeLinear(h, s, z)
            y = com.microsoft.QGemm <transB = 1> (q, s, z, v, vs, vz)
        }""",
        w=(5, 16), s=np.float32(0.05), z=np.int8(0), v=stored, vs=scales.astype(np.float32), vz=np.zeros(16, np.int8),
    )  # fmt: skip
    index = build_index(graph)
    group = next(g for g in index.groups if g.n_channels == 16)
    found = calibrate(index, None).sensitivity.ranked[index.groups.index(group)]
    assert sorted(found[:8].tolist()) == LIVE.tolist()


RECURRENT = """m (float[7, N, 5] x) => (float[7, N, 3] y) {{
    a = MatMul(x, w)
    h{more} = {op} <hidden_size = 8> (a, W, R)
    q = Squeeze(h, one)
    y = MatMul(q, v)
}}"""


@pytest.mark.parametrize(("op", "gates", "more"), [("LSTM", 4, ", s, c"), ("GRU", 3, ", s"), ("RNN", 1, ", s")])
def test_recurrent_weights_tell_their_inputs_and_hidden_units_apart(op: str, gates: int, more: str) -> None:
    """Live hidden units are read by the state itself or by the product after it."""
    units = np.arange(8)
    by_state, by_reader = np.isin(units, [1, 6]), np.isin(units, [2, 4])
    read = drawn((1, gates * 8, 8), 4) * by_state
    graph = build(
        RECURRENT.format(op=op, more=more),
        w=(5, 16), W=dead(1, gates * 8, 16, axis=2), R=read.astype(np.float32),
        v=(drawn((8, 3), 5) * by_reader[:, None]).astype(np.float32), one=[1],
    )  # fmt: skip
    index = build_index(graph)
    sensitivity = calibrate(index, None).sensitivity
    inputs, hidden = (sensitivity.ranked[[g.n_channels for g in index.groups].index(n)] for n in (16, 8))
    assert sorted(inputs[:8]) == LIVE.tolist()
    assert sorted(hidden[:4]) == [1, 2, 4, 6]


def test_a_group_that_is_not_refitted_has_a_curve_from_measured_cuts() -> None:
    graph = model("ConvTranspose")
    index = build_index(graph)
    seen = images(40, 3, 8, 8)
    weighed = weigh_curves(calibrate(index, seen), seen)
    (curve,) = weighed.sensitivity.curves
    reference = predict(graph, graph.proto, seen)
    for width in (8, 12):
        slim = cut(index, weighed.mask(np.array([width])))
        measured = distortion(predict(graph, slim, seen), reference)
        assert curve[width] == pytest.approx(measured, rel=1e-3, abs=1e-8)
    assert curve[4] > 10 * curve[8]


def test_a_group_whose_channels_nothing_tells_apart_still_has_a_curve() -> None:
    graph = build(
        STEM.format(x="float[N, 3, 8, 8] x", y=IMAGE, tail="y = ConvTranspose(r, v)"),
        w=(16, 3, 3, 3), b=(16,), v=np.zeros((16, 4, 1, 1), np.float32),
    )  # fmt: skip
    found = calibrate(build_index(graph), None).sensitivity
    assert found.blind == (0,)
    assert found.ranked[0].tolist() == list(range(16))
    assert np.all(np.diff(found.curves[0][1:]) < 0)


def test_channels_that_nothing_tells_apart_are_named(tmp_path: Path) -> None:
    alike = build(
        STEM.format(x="float[N, 3, 8, 8] x", y=IMAGE, tail="y = ConvTranspose(r, v)"),
        w=(16, 3, 3, 3), b=(16,), v=np.ones((16, 4, 1, 1), np.float32),
    )  # fmt: skip
    assert calibrate(build_index(alike), None).sensitivity.blind == (0,)
    for graph, undecided in ((alike, ["Conv_0"]), (model("Conv"), [])):
        path = save(graph.proto, tmp_path / "m.onnx")
        report = prune(path, flops=0.6, strategy="uniform", round_to=1, history="none")
        assert report.search["undecided"] == undecided


# What is kept, against the best choice of as many channels, by cutting every channel alone.

AUTOENCODER = """m (float[N, 3, 16, 16] x) => (float[N, 3, 16, 16] y) {
    a = Conv <strides = [2, 2], pads = [1, 1, 1, 1]> (x, w1, b1)
    ar = Relu(a)
    c = Conv <strides = [2, 2], pads = [1, 1, 1, 1]> (ar, w2, b2)
    cr = Relu(c)
    d = ConvTranspose <kernel_shape = [2, 2], strides = [2, 2]> (cr, v2)
    dr = Relu(d)
    y = ConvTranspose <kernel_shape = [2, 2], strides = [2, 2]> (dr, v1)
}"""
CLASSIFIER = """m (float[N, 3, 16, 16] x) => (float[N, 10] y) {
    xq = QuantizeLinear(x, s, z) xd = DequantizeLinear(xq, s, z)
    wd = DequantizeLinear(w, ws, wz)
    a = Conv <pads = [1, 1, 1, 1]> (xd, wd)
    r = Relu(a)
    rq = QuantizeLinear(r, s, z) rd = DequantizeLinear(rq, s, z)
    vd = DequantizeLinear(v, vs, wz)
    b = Conv <pads = [1, 1, 1, 1], strides = [2, 2]> (rd, vd)
    p = GlobalAveragePool(b)
    f = Flatten(p)
    fq = QuantizeLinear(f, s, z) fd = DequantizeLinear(fq, s, z)
    gd = DequantizeLinear(g, gs, wz)
    y = Gemm <transB = 1> (fd, gd)
}"""
DETECTOR = """m (float[N, 3, 16, 16] x) => (float[N, 4, 16, 16] y1, float[N, 4, 8, 8] y2) {
    a = Conv <pads = [1, 1, 1, 1]> (x, w1, b1)
    ar = Relu(a)
    c = Conv <strides = [2, 2], pads = [1, 1, 1, 1]> (ar, w2, b2)
    cr = Relu(c)
    h1 = Conv <pads = [1, 1, 1, 1]> (ar, h, hb) h1r = Relu(h1)
    h2 = Conv <pads = [1, 1, 1, 1]> (cr, h, hb) h2r = Relu(h2)
    y1 = Conv(h1r, o)
    y2 = Conv(h2r, o)
}"""


def uneven(*shape: int, axis: int, seed: int) -> Array:
    """Returns a weight whose strength differs by orders of magnitude along an axis, in random order."""
    rng = np.random.default_rng([seed, *shape])
    strength = np.exp(rng.normal(0, 1.5, shape[axis])).astype(np.float32)
    return drawn(shape, seed) * strength.reshape(-1, *[1] * (len(shape) - 1 - axis))


def int8(prefix: str, weight: Array) -> dict[str, Any]:
    scale = np.float32(np.abs(weight).max() / 127)
    return {prefix: np.round(weight / scale).astype(np.int8), f"{prefix}s": scale}


NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "autoencoder": (AUTOENCODER, {
        "w1": (16, 3, 3, 3), "b1": (16,), "w2": (24, 16, 3, 3), "b2": (24,),
        "v2": uneven(24, 16, 2, 2, axis=0, seed=1), "v1": uneven(16, 3, 2, 2, axis=0, seed=2),
    }),
    "quantized classifier": (CLASSIFIER, {
        **int8("w", drawn((16, 3, 3, 3), 0)), **int8("v", uneven(24, 16, 3, 3, axis=1, seed=1)),
        **int8("g", uneven(10, 24, axis=1, seed=2)), "s": np.float32(0.05), "z": np.int8(0), "wz": np.int8(0),
    }),
    "detector with shared heads": (DETECTOR, {
        "w1": (16, 3, 3, 3), "b1": (16,), "w2": (16, 16, 3, 3), "b2": (16,),
        "h": uneven(16, 16, 3, 3, axis=1, seed=1), "hb": (16,), "o": uneven(4, 16, 1, 1, axis=1, seed=2),
    }),
}  # fmt: skip


def energies(graph: ModelGraph, index: GroupIndex, group: ChannelGroup, feeds: dict[str, Array]) -> npt.NDArray[Any]:
    """Returns by how much the outputs change when each channel of a group is cut alone."""
    original = run_once(graph.proto, feeds)
    found = []
    for channel in range(group.n_channels):
        mask = np.ones(index.n_channels, dtype=bool)
        mask[group.start + channel] = False
        outputs = run_once(masked_original(index, mask, {}), feeds)
        found.append(sum(float(np.mean((a - b) ** 2) / np.var(b)) for a, b in zip(outputs, original, strict=True)))
    return np.array(found)


@pytest.mark.parametrize("with_images", [False, True])
@pytest.mark.parametrize("name", NETWORKS)
def test_strong_channels_stay(name: str, with_images: bool) -> None:
    text, constants = NETWORKS[name]
    graph = build(text, **constants)
    index = build_index(graph)
    feeds = random_feeds(graph, batch=20, seed=9)
    seen = next(iter(random_feeds(graph, batch=60, seed=3).values())) if with_images else None
    halves = np.array([g.n_channels // 2 for g in index.groups])
    calibration = calibrate(index, seen)
    mask = calibration.mask(halves)
    refitted = {a.node.name for a in calibration.affines if is_refitted(a)} if with_images else set()
    checked = [g for g in index.groups if not refitted & {m.node for m in g.members if m.axis == 1}]
    assert checked
    for group in checked:  # what is refitted is chosen by what is lost after that
        energy = energies(graph, index, group, feeds)
        best = np.sort(energy)[-(group.n_channels // 2) :].sum()
        assert energy[mask[group.span]].sum() >= 0.95 * best, group.name
    assert cut(index, mask).ByteSize() < graph.proto.ByteSize()
