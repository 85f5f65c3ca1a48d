"""How torch runs inside a search."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def one_torch_thread() -> Iterator[None]:
    """Runs torch on one thread, its random state restored afterwards: the matrices are tiny, waiting costs more."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
            warnings.simplefilter("ignore")  # numerical advice to developers; nothing a user could act on
            yield
    finally:
        torch.set_num_threads(before)
