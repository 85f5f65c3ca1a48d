"""One thread for small dense solves.

A solve of a few hundred unknowns takes a millisecond on one core; with a thread per core, BLAS threads that wait for
each other on a busy machine made it up to 500 times slower.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import cache
from typing import Any

from threadpoolctl import ThreadpoolController


@cache
def _controller() -> Any:
    return ThreadpoolController()


def one_thread() -> AbstractContextManager[Any]:
    """Returns a context in which linear algebra runs on one thread."""
    limited: AbstractContextManager[Any] = _controller().limit(limits=1, user_api="blas")
    return limited
