from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

pytest.register_assert_rewrite("tests.oracle")

if "PYTEST_XDIST_WORKER" in os.environ:  # two workers with two threads each on two cores wait for each other
    os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session", autouse=True)
def histories(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder of histories, in place of the user's own, for fixtures that live longer than a test too."""
    folder = tmp_path_factory.mktemp("histories")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BOCR_ONNX_HISTORY", str(folder / "shared.sqlite"))
        patch.setenv("BOCR_ONNX_DEVICES", str(folder / "none" / "devices.json"))
        yield folder


@pytest.fixture(scope="session", autouse=True)
def quick() -> Iterator[None]:
    """Blocks train on few images for a few steps, on one thread beside other tests; tests/training has the rest."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bocr_onnx.pipeline.rebuild.N_STEPS", 15)
        patch.setattr("bocr_onnx.pipeline.rebuild.LEAST_TAUGHT", 64)
        patch.setenv("OMP_NUM_THREADS", "1")
        yield


@pytest.fixture(autouse=True)
def history_path(histories: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The history of one test and of the processes it starts."""
    path = histories / f"{uuid4().hex}.sqlite"
    monkeypatch.setenv("BOCR_ONNX_HISTORY", str(path))
    return path


@pytest.fixture(scope="session")
def shared() -> Path:
    """The maintainers' development data, beside the repository; mark the test with `pytest.mark.shared`."""
    folder = Path(__file__).resolve().parents[1].parent / "shared"
    if not folder.is_dir():
        pytest.skip("the maintainers' development data is absent")
    return folder
