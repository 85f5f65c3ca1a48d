from __future__ import annotations

from pathlib import Path

import pytest

pytest.register_assert_rewrite("tests.oracle")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The maintainers' development data, beside the repository; mark the test with `pytest.mark.shared`."""
    folder = Path(__file__).resolve().parents[1].parent / "shared"
    if not folder.is_dir():
        pytest.skip("the maintainers' development data is absent")
    return folder
