from __future__ import annotations

import subprocess
import sys

import pytest

import bocr_onnx

HEAVY = ("torch", "torchvision", "botorch", "gpytorch", "onnxruntime")


def test_the_surface_is_curated() -> None:
    public = [
        "BocrError",
        "apply",
        "bench",
        "check",
        "evaluate",
        "finetune",
        "inspect",
        "mobile",
        "prune",
        "prune_each",
        "quantize",
        "to_onnx",
        "to_torch",
        "write_report",
    ]
    assert bocr_onnx.__all__ == public
    assert set(public) <= set(dir(bocr_onnx))
    assert sorted(bocr_onnx.__all__) == bocr_onnx.__all__


def test_every_name_of_the_surface_is_there() -> None:
    from bocr_onnx import api, errors

    assert bocr_onnx.BocrError is errors.BocrError
    for name in bocr_onnx.__all__[1:]:
        assert getattr(bocr_onnx, name) is getattr(api, name)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'bocr_onnx' has no attribute 'prun'"):
        _ = bocr_onnx.prun


@pytest.mark.parametrize("module", ["bocr_onnx", "bocr_onnx.cli.main", "bocr_onnx.slimming", "bocr_onnx.cost"])
def test_an_import_is_light(module: str) -> None:
    code = f"import sys, {module}; print(*[m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == ""


def test_help_is_light() -> None:
    code = (
        "import sys\n"
        "from bocr_onnx.cli.main import run\n"
        "sys.argv = ['bocr-onnx', '--help']\n"
        "try:\n    run()\n"
        "except SystemExit as done:\n    assert not done.code, done.code\n"
        f"print('LOADED', *[m for m in {HEAVY} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip().endswith("LOADED")
    assert "prune" in done.stdout
