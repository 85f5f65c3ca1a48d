"""Searches and trials for tests of the history, and a process that writes to one."""

import subprocess
import sys
from dataclasses import replace

from bocr_onnx.search import Trial, TrialState
from bocr_onnx.search.history import SearchRecord, StoredTrial, search_key

FULL = (16, 32)
QUANTITIES = {"macs": 1_000_000, "params": 5_000, "size_bytes": 20_000}


def stored(trial):
    return StoredTrial(trial, 0.98, QUANTITIES)


def search(number=0, **changes):
    """A search; one with another number is another search of the same function, begun a second later."""
    record = SearchRecord(
        key=search_key({"number": number}),
        model_sha256="aa" * 32,
        model="net.onnx",
        data_digest="dd",
        recover="sequential",
        strategy="bocr",
        seed=number,
        grid=8,
        budget={"flops": 0.5},
        group_names=("stem", "head/0"),
        full=FULL,
        features=((0.25,) * 12, (1.5,) * 12),
        published=((0.5,) * 7, (1.0,) * 7),
        allocation=(0.5, 0.75),
        version="0.1.0",
        created=f"2026-01-01T00:00:{number:02d}+00:00",
    )
    return replace(record, **changes)


def trial(number=0, widths=None, state=TrialState.COMPLETE, objective=None):
    complete = state is TrialState.COMPLETE
    value = (0.1 * number if objective is None else objective) if complete else None
    return Trial(number, widths or (number % 16 + 1, 32), state, 0.5, value, 1.25, first=0.25)


WRITER = """
import sys, itertools
from bocr_onnx.search.history import History
from tests.search.histories import search, stored, trial
store, number, n = History(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
record = search(number)
store.begin(record)
print("begun", flush=True)
sys.stdin.readline()
for i in range(n) if n else itertools.count():
    store.add(record.key, stored(trial(i)))
    print(i, flush=True)
"""


def writer(path, number, n):
    """Starts a process that begins a search, waits for a line, and adds `n` trials, or trials without end for 0."""
    command = [sys.executable, "-c", WRITER, str(path), str(number), str(n)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
