"""Trials in processes of this machine.

Every process is a pool of its own, so when one is lost it is known which trial it was running, and no other trial
is lost with it.
"""

from __future__ import annotations

from collections import deque
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from threadpoolctl import threadpool_limits

from bocr_onnx.search.trial import Scorer
from bocr_onnx.search.workers.cores import threads_each
from bocr_onnx.search.workers.parcel import Parcel, pack
from bocr_onnx.search.workers.records import LOST_TWICE, Job, Outcome, run_job
from bocr_onnx.search.workers.spawn import Context, settle


class Processes:
    """Runs jobs in processes that start with the first ones; a job whose process was lost is run once more.

    Linear algebra gets a fair share of the cores in each.

    Args:
        scorer: Scores policies; pickled. Its arrays are read-only there, and shared.
        n_workers: Number of processes.

    Raises:
        OutputError: The temporary folder has no room for the scorer.
    """

    def __init__(self, scorer: Scorer, n_workers: int) -> None:
        self.n_workers = n_workers
        self._folder = TemporaryDirectory(prefix="bocr-onnx-", ignore_cleanup_errors=True)
        self._parcel = pack(scorer, Path(self._folder.name) / "scorer")
        self._context = Context()
        self._threads = threads_each(n_workers)
        self._idle = [self._new_pool() for _ in range(n_workers)]
        self._running: dict[Future[Outcome], tuple[ProcessPoolExecutor, Job]] = {}
        self._waiting: deque[Job] = deque()
        self._lost: set[int] = set()

    def submit(self, job: Job) -> None:
        """Takes a job; it starts where a process is idle."""
        self._waiting.append(job)
        self._start()

    def collect(self) -> Outcome:
        """Returns the next outcome; an error that is a bug is raised."""
        outcome = None
        while outcome is None:
            ended, _ = wait(self._running, return_when=FIRST_COMPLETED)
            outcome = self._take(next(iter(ended)))
            self._start()
        return outcome

    def close(self) -> None:
        """Kills all processes."""
        self._context.kill()
        for pool in (*self._idle, *(pool for pool, _ in self._running.values())):
            pool.shutdown(cancel_futures=True)
        self._idle.clear()
        self._running.clear()
        self._waiting.clear()
        self._folder.cleanup()

    def _new_pool(self) -> ProcessPoolExecutor:
        """Returns a pool of one process."""
        return ProcessPoolExecutor(1, self._context, settle, (self._parcel.path.parent,))

    def _start(self) -> None:
        while self._idle and self._waiting:
            pool, job = self._idle.pop(), self._waiting.popleft()
            try:
                future = pool.submit(_run, self._parcel, self._threads, job)
            except BrokenProcessPool:  # it was lost while it was idle
                pool = self._new_pool()
                future = pool.submit(_run, self._parcel, self._threads, job)
            self._running[future] = pool, job

    def _take(self, future: Future[Outcome]) -> Outcome | None:
        """Returns the outcome of a job, or None where it is run again."""
        pool, job = self._running.pop(future)
        try:
            return future.result()
        except BrokenProcessPool as error:
            pool = self._new_pool()
            if error.__cause__ is not None:  # what came back could not be read
                raise
        finally:
            self._idle.append(pool)
        if job.number in self._lost:
            return Outcome(job.number, None, LOST_TWICE)
        self._lost.add(job.number)
        self._waiting.appendleft(job)
        return None


def _run(parcel: Parcel, threads: int, job: Job) -> Outcome:
    return run_job(_unpack(parcel, threads), job)


@cache
def _unpack(parcel: Parcel, threads: int) -> Scorer:
    """Returns the scorer, unpacked once in every process; the limit comes after the libraries it brings along."""
    scorer: Scorer = parcel.unpack()
    threadpool_limits(threads, user_api="blas")
    return scorer
