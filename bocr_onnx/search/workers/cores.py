"""How trials that run at once share the cores."""

from __future__ import annotations

import os
import sys


def threads_each(n_workers: int) -> int:
    """Returns how many threads each of the workers of this machine may use; at least one."""
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    return max(1, cores // n_workers)
