"""The stages of a run: which images serve for what, and what one budget learns from another."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest

from bocr_onnx import prune
from bocr_onnx.api import prune_each
from bocr_onnx.data import open_data, split
from bocr_onnx.graph import Array, save
from bocr_onnx.options import PruneOptions
from bocr_onnx.pipeline import stages
from bocr_onnx.pipeline.measure import digest_of, load, measure
from bocr_onnx.pipeline.prepare import prepare
from bocr_onnx.pipeline.recover import unseen
from bocr_onnx.pipeline.run import Run
from bocr_onnx.recovery.calibration import N_SCAN
from bocr_onnx.runtime import predict
from bocr_onnx.slimming import cut
from bocr_onnx.tasks import distortion
from tests.oracle import proto, run

NET = """m (float[N, 1, 8, 8] x) => (float[N, 4] y) {
    a = Conv <pads = [1, 1, 1, 1]> (x, w0, b0) ar = Relu(a)
    b = Conv <pads = [1, 1, 1, 1]> (ar, w1, b1) br = Relu(b)
    f = Flatten(br) y = Gemm <transB = 1> (f, w2, b2)
}"""
N_IMAGES = 400


@pytest.fixture(scope="module")
def noisy(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A model, and images of which it gets about three in four right, so that parts differ in accuracy."""
    folder = tmp_path_factory.mktemp("noisy")
    net = proto(NET, w0=(16, 1, 3, 3), b0=(16,), w1=(16, 16, 3, 3), b1=(16,), w2=(4, 1024), b2=(4,))
    rng = np.random.default_rng(0)
    images = rng.standard_normal((N_IMAGES, 1, 8, 8)).astype(np.float32)
    labels = run(net, {"x": images})[0].argmax(axis=1)
    labels = np.where(rng.random(N_IMAGES) < 0.3, rng.integers(0, 4, N_IMAGES), labels)
    np.savez(folder / "images.npz", images=images, labels=labels)
    return str(save(net, folder / "net.onnx")), str(folder / "images.npz")


def asked(noisy: tuple[str, str], output: Path, **given: Any) -> PruneOptions:
    settings = {"flops": (0.5,), "preset": "raw", "round_to": 1, "history": "none", "search": "uniform"}
    return PruneOptions(noisy[0], data=noisy[1], output=output, **(settings | given))


def numbers(images: Array, all_images: Array) -> set[int]:
    """Returns which images of a file these are; no two are alike."""
    known = {image.tobytes(): i for i, image in enumerate(all_images)}
    found = [known[image.tobytes()] for image in images]
    assert len(known) == len(all_images)
    assert len(set(found)) == len(found)
    return set(found)


def test_search_recovery_and_report_share_no_image(noisy: tuple[str, str], tmp_path: Path) -> None:
    everything = np.load(noisy[1])["images"]
    (part,) = prepare(asked(noisy, tmp_path / "slim.onnx"))
    part = measure(load(part))
    assert part.scorer is not None
    assert part.calibration is not None
    assert part.images is not None
    assert part.calibration.images is not None
    score = numbers(part.scorer.images, everything)
    recovery = numbers(part.calibration.images, everything)
    final = numbers(part.images.final, everything)
    assert len(score) + len(recovery) + len(final) == len(score | recovery | final) == N_IMAGES
    assert min(len(score), len(recovery), len(final)) >= 100
    by_image = dict(zip((image.tobytes() for image in everything), np.load(noisy[1])["labels"], strict=True))
    for images, truth in (
        (part.scorer.images, part.scorer.truth),
        (part.images.final, part.images.final_truth),
    ):
        assert [by_image[image.tobytes()] for image in images] == truth[0].tolist()


def test_what_a_group_costs_is_measured_at_the_output(noisy: tuple[str, str], tmp_path: Path) -> None:
    (part,) = prepare(asked(noisy, tmp_path / "slim.onnx"))
    part = measure(load(part))
    assert part.scorer is not None
    assert part.calibration is not None
    assert part.images is not None
    found, seen = part.calibration, part.images.score[:N_SCAN]
    reference = predict(part.graph, part.graph.proto, seen)
    for number, curve in enumerate(found.sensitivity.curves):
        widths = np.array([g.n_channels for g in part.index.groups])
        widths[number] //= 2
        mask = found.mask(widths)
        slim = cut(part.index, mask, found.fit(mask))
        assert curve[widths[number]] == pytest.approx(distortion(predict(part.graph, slim, seen), reference), rel=1e-3)


def accuracy(model: str | onnx.ModelProto, images: Array, labels: npt.NDArray[np.int64]) -> float:
    return float(
        np.mean(run(onnx.load(model) if isinstance(model, str) else model, {"x": images})[0].argmax(axis=1) == labels)
    )


def test_the_reported_accuracies_are_those_of_unseen_images(noisy: tuple[str, str], tmp_path: Path) -> None:
    report = prune(
        noisy[0], flops=0.5, data=noisy[1], preset="raw", output=tmp_path / "slim.onnx", search="uniform",
        round_to=1, history="none", seed=3,
    )  # fmt: skip
    parts = split(open_data(noisy[1]), seed=3)
    own = {
        name: [accuracy(m, part.load(), part.labels) for m in (noisy[0], report.output) if part.labels is not None]
        for name, part in (("score", parts.score), ("recovery", parts.recovery), ("final", parts.final))
    }
    assert len({tuple(pair) for pair in own.values()}) == 3, "the parts must be told apart by what is right on them"
    assert [report.baseline.accuracy, report.result.accuracy] == pytest.approx(own["final"])
    assert report.accuracy_before_finetune == report.result.accuracy


def test_accuracy_is_reported_before_and_after_finetuning(
    noisy: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before: list[onnx.ModelProto] = []

    def spoiled(part: Run) -> Run:
        assert part.slim is not None
        before.append(part.slim.proto)
        trained = onnx.ModelProto()
        trained.CopyFrom(part.slim.proto)
        bias = next(t for t in trained.graph.initializer if t.name == "b2")
        bias.CopyFrom(onnx.numpy_helper.from_array(np.array([9, 0, 0, 0], np.float32), "b2"))
        score, _ = unseen(part, trained, "")
        return replace(part, slim=replace(part.slim, proto=trained, weights=None, after=score, finetune={"epochs": 1}))

    monkeypatch.setitem(stages.SHAPE, "finetune", spoiled)
    (report,) = prune_each.run(asked(noisy, tmp_path / "slim.onnx"))
    final = split(open_data(noisy[1]), seed=0).final
    assert final.labels is not None
    own = [accuracy(m, final.load(), final.labels) for m in (noisy[0], before[0], report.output)]
    assert len(set(own)) == 3
    found = [report.baseline.accuracy, report.accuracy_before_finetune, report.result.accuracy]
    assert found == pytest.approx(own)
    assert report.finetune == {"epochs": 1}
    assert list(report.seconds) == [
        "data",
        "calibration",
        "search",
        "recovery",
        "finetune",
        "proof",
        "write",
        "latency",
    ]


def test_a_search_is_another_where_an_image_that_decides_a_score_is(noisy: tuple[str, str], tmp_path: Path) -> None:
    """The unseen images decide none."""
    (part,) = prepare(asked(noisy, tmp_path / "slim.onnx"))
    images, again = load(part).images, load(part).images
    assert images is not None
    assert again is not None
    assert digest_of(images) == digest_of(again)
    assert digest_of(replace(images, final=images.final + 1)) == digest_of(images)
    for name in ("score", "recovery"):
        changed = getattr(images, name).copy()
        changed[-1, 0, -1, -1] += 1e-3
        assert digest_of(replace(images, **{name: changed})) != digest_of(images)


def test_later_budgets_know_earlier_evaluations_without_a_history(noisy: tuple[str, str], tmp_path: Path) -> None:
    shares = (0.7, 0.5, 0.3)
    given = {"search": "local", "trials": 6, "recover": "none", "race": False}
    prune_each.run(asked(noisy, tmp_path / "slim.onnx", flops=shares, **given))
    folders = [tmp_path / "slim.run" / f"flops{share}" for share in shares]
    journals = [[json.loads(line) for line in (f / "journal.jsonl").read_text().splitlines()[1:]] for f in folders]
    tried = [[trial["widths"] for trial in journal if trial["state"] == "complete"] for journal in journals]
    known = [[t["widths"] for t in json.loads((f / "past.json").read_text())["past"]["same"]] for f in folders]
    assert known == [[], tried[0], tried[0] + tried[1]]
    assert len(tried[0]) == len(tried[1]) == 2


def test_uniform_without_images_keeps_what_is_read_most(noisy: tuple[str, str], tmp_path: Path) -> None:
    """The filters that the readers weigh most stay, in their order, with the weights they had."""
    net = onnx.load(noisy[0])
    arrays = {t.name: onnx.numpy_helper.to_array(t) for t in net.graph.initializer}
    strong = np.array([1, 2, 5, 6, 11, 12, 13, 15])
    factor = np.where(np.isin(np.arange(16), strong), 3, 0.1).astype(np.float32)
    arrays["w1"] = arrays["w1"] * factor.reshape(1, -1, 1, 1)
    model = save(proto(NET, **arrays), tmp_path / "uneven.onnx")
    report = prune(
        model, flops=0.52, search="uniform", only=("Conv_0",), round_to=8, output=tmp_path / "slim.onnx",
        history="none",
    )  # fmt: skip
    slim = {t.name: onnx.numpy_helper.to_array(t) for t in onnx.load(report.output).graph.initializer}
    assert np.array_equal(slim["w0"], arrays["w0"][strong])
    assert np.array_equal(slim["w1"], arrays["w1"][:, strong])


def test_undecided_are_the_groups_that_were_cut_alone(tmp_path: Path) -> None:
    """Nothing tells the channels of either group apart, but one keeps all of its own."""
    text = """m (float[N, 1, 8, 8] x) => (float[N, 4, 8, 8] y) {
        a = Conv (x, w0, b0) ar = Relu(a) b = Conv (ar, w1, b1) br = Relu(b) y = Conv (br, w2, b2)
    }"""
    ones = {"w1": np.ones((16, 16, 1, 1), np.float32), "w2": np.ones((4, 16, 1, 1), np.float32)}
    model = save(proto(text, w0=(16, 1, 1, 1), b0=(16,), b1=(16,), b2=(4,), **ones), tmp_path / "alike.onnx")
    given: dict[str, Any] = {"search": "uniform", "round_to": 1, "history": "none"}
    both = prune(model, flops=0.6, output=tmp_path / "both.onnx", **given)
    one = prune(model, flops=0.6, output=tmp_path / "one.onnx", freeze=("Conv_0",), **given)
    assert [both.search["undecided"], one.search["undecided"]] == [["Conv_0", "Conv_2"], ["Conv_2"]]
