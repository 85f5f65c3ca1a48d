"""Networks as people export them: cut at random, proved, and as slim as the mathematics allows."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bocr_onnx.cost import build_cost_model
from bocr_onnx.graph import ModelGraph, from_proto, load
from bocr_onnx.groups import build_index
from bocr_onnx.slimming import cut, prove_cut
from tests.oracle import random_mask, run

pytestmark = pytest.mark.slow

SIDE = 64
EXPORTS = ("torchscript13", "torchscript17", "dynamo", "open batch")
KEPT_AT_HALF = {
    "resnet18": 0.28,
    "squeezenet1_1": 0.35,
    "shufflenet_v2_x0_5": 0.36,
    "mobilenet_v3_small": 0.33,
    "vit": 0.79,
    "swin": 0.62,
}
"""Share of all multiply-accumulates when every group keeps half; inputs and outputs of the small ones weigh more."""

EXPORTED = [(n, k) for n in KEPT_AT_HALF for k in EXPORTS if (n, k) != ("vit", "torchscript13")]
"""Torchscript has no attention below operator set 14."""


def network(name: str) -> torch.nn.Module:
    from torchvision.models import get_model
    from torchvision.models.swin_transformer import SwinTransformer
    from torchvision.models.vision_transformer import VisionTransformer

    torch.manual_seed(0)
    if name == "vit":
        model: torch.nn.Module = VisionTransformer(SIDE, 16, 2, 4, 32, 64, num_classes=10)
        torch.nn.init.normal_(model.get_parameter("heads.head.weight"))
    elif name == "swin":
        model = SwinTransformer([4, 4], 24, [2, 2], [3, 6], [4, 4], num_classes=10)
    else:
        model = get_model(name, weights=None)
    return model.eval()


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], ModelGraph]:
    folder = tmp_path_factory.mktemp("zoo")
    made = {}
    for name in KEPT_AT_HALF:
        model = network(name)
        made |= {(own, kind): export(model, kind, folder / f"{name}.onnx") for own, kind in EXPORTED if own == name}
    return made


def export(model: torch.nn.Module, kind: str, path: Path) -> ModelGraph:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        options: dict[str, Any] = {"dynamo": False, "opset_version": 17, "input_names": ["x"]}
        if kind == "dynamo":
            options = {"dynamo": True, "external_data": False, "verbose": False}
        elif kind == "open batch":
            options["dynamic_axes"] = {"x": {0: "n"}}
        else:
            options["opset_version"] = int(kind.removeprefix("torchscript"))
        torch.onnx.export(model, (torch.randn(1, 3, SIDE, SIDE),), str(path), **options)
    return load(path)


@pytest.mark.parametrize(("name", "kind"), EXPORTED)
def test_every_export_is_cut_and_proved(name: str, kind: str, exported: dict[tuple[str, str], ModelGraph]) -> None:
    graph = exported[(name, kind)]
    index = build_index(graph)
    mask = random_mask(index, 3)
    slim = cut(index, mask)
    assert prove_cut(index, mask, slim, run).passed
    cost = build_cost_model(index)
    widths = np.array([mask[g.span].sum() for g in index.groups])
    read = from_proto(slim)
    counted = build_cost_model(build_index(read))
    assert counted.macs(counted.full)[0] == pytest.approx(cost.macs(widths)[0])
    assert cost.macs(np.maximum(1, cost.full // 2))[0] / cost.macs(cost.full)[0] <= KEPT_AT_HALF[name]


@pytest.mark.parametrize("name", KEPT_AT_HALF)
def test_all_exporters_give_the_same_groups(name: str, exported: dict[tuple[str, str], ModelGraph]) -> None:
    graphs = [graph for (own, _), graph in exported.items() if own == name]
    groups = [sorted(g.n_channels for g in build_index(graph).groups) for graph in graphs]
    assert all(found == groups[0] for found in groups)


REFUSED = {"mnist_quantized_cONNXr"}
"""Integer operators throughout."""


@pytest.mark.shared
def test_files_found_in_the_wild(shared: Path) -> None:
    for path in sorted((shared / "wild").glob("*.onnx")):
        graph = load(path)
        index = build_index(graph)
        if path.stem in REFUSED:
            continue
        assert index.groups, path.stem
        mask = random_mask(index, 1)
        proof = prove_cut(index, mask, cut(index, mask), run)
        assert proof.max_rel_diff < 1e-4, path.stem
        assert all(refusal.reason for refusal in index.refusals)
