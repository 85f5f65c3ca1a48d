"""Trials on a Ray cluster.

bocr-onnx must be installed on every node, in the same version, on the same versions of Python and Ray. A node that
is lost takes its trials along; each is run once more, elsewhere.
"""

from __future__ import annotations

import importlib.util
import logging
import socket
import subprocess
import sys
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

from bocr_onnx.errors import UsageError
from bocr_onnx.search.trial import Scorer
from bocr_onnx.search.workers.records import LOST_TWICE, Job, Outcome, run_job

CLIENT_PORT = 10_001
KNOCK_S, PROBE_S = 5, 30
"""An address is given up after so long: its port, and a Ray cluster at it. `ray.init` alone takes minutes."""

MAX_AUTO = 8
"""More trials at once are not run unless asked for: each is one that the next proposals know nothing of."""

QUIET: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}

PROBE = """
import sys, ray
try:
    ray.init(address=sys.argv[1], log_to_driver=False, logging_level="CRITICAL")
except Exception as error:
    print(error)
    sys.exit(1)
ray.shutdown()
"""


class RayWorkers:
    """Runs jobs as Ray tasks of one CPU each, spread over the nodes; a job whose worker was lost is run once more.

    A connection that the program has already is used, and left open.

    Args:
        scorer: Scores policies; pickled. Its arrays are read-only there, and shared by the workers of a node.
        n_workers: Number of jobs at once; 1 is one for each CPU of the cluster, up to `MAX_AUTO`.
        address: ``auto``, ``HOST:PORT`` or ``ray://HOST:PORT``.

    Raises:
        UsageError: Ray is not installed, or nothing answers at the address.
    """

    def __init__(self, scorer: Scorer, n_workers: int, address: str) -> None:
        self._own = _connect(address)
        import ray

        cpus = int(ray.cluster_resources().get("CPU", 1))
        self.n_workers = n_workers if n_workers > 1 else max(1, min(cpus, MAX_AUTO))
        self._scorer = ray.put(scorer)
        self._task = ray.remote(num_cpus=1, max_retries=0, scheduling_strategy="SPREAD")(_run)
        self._running: dict[Any, Job] = {}
        self._lost: set[int] = set()

    def submit(self, job: Job) -> None:
        """Takes a job; it starts where a CPU is free."""
        self._running[self._task.remote([self._scorer], job)] = job

    def collect(self) -> Outcome:
        """Returns the next outcome; an error that is a bug is raised."""
        import ray

        outcome = None
        while outcome is None:
            ended, _ = ray.wait(list(self._running))
            outcome = self._take(ended[0])
        return outcome

    def close(self) -> None:
        """Ends what still runs and leaves the cluster."""
        import ray

        for task in self._running:
            ray.cancel(task, force=True)
        self._running.clear()
        if self._own:
            ray.shutdown()
            _show_messages(True)

    def _take(self, task: Any) -> Outcome | None:
        """Returns the outcome of a job, or None where it is run again."""
        import ray

        job = self._running.pop(task)
        try:
            outcome: Outcome = ray.get(task)
        except ray.exceptions.RayError as error:
            cause = getattr(error, "cause", None)
            if isinstance(error, ray.exceptions.RayTaskError) and not isinstance(cause, ray.exceptions.RayError):
                raise (cause or error) from error
            if job.number in self._lost:
                return Outcome(job.number, None, f"{LOST_TWICE}: {_first_line(error)}")
            self._lost.add(job.number)
            self.submit(job)
            return None
        return outcome


def check_ray(address: str) -> None:
    """Checks that a Ray cluster answers, in another process and within a limit.

    Args:
        address: ``auto``, ``HOST:PORT`` or ``ray://HOST:PORT``.

    Raises:
        UsageError: Ray is not installed, nothing answers at the address, or what does is not a Ray cluster of the
            same version. A connection that the program has already is good for any.
    """
    _place(address)
    if _connected():
        return
    _knock(address)
    command = [sys.executable, "-c", PROBE, address]
    try:
        probe = subprocess.run(command, capture_output=True, text=True, timeout=PROBE_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise _unreachable(address, f"no answer within {PROBE_S} s") from error
    if probe.returncode:
        raise _unreachable(address, _first_line(probe.stdout) or f"exit code {probe.returncode}")


def _connect(address: str) -> bool:
    """Returns whether a connection was made; False where the program had one."""
    if _connected():
        return False
    _knock(address)
    import ray

    _show_messages(False)
    try:
        ray.init(address=address, **QUIET)
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        _show_messages(True)
        raise _unreachable(address, _first_line(error)) from error
    return True


def _connected() -> bool:
    if importlib.util.find_spec("ray") is None:
        raise UsageError("`ray` must have Ray to run on, got no such package", hint="pip install 'bocr-onnx[ray]'")
    import ray

    return bool(ray.is_initialized())


def _show_messages(shown: bool) -> None:
    """Lets Ray print messages of the nodes or not: on stdout, and `log_to_driver` does not stop those on lost nodes."""
    import ray._private.worker

    ray._private.worker._worker_logs_enabled = shown


def _knock(address: str) -> None:
    """Checks that the port of an address is open."""
    place = _place(address)
    if place is None:
        return
    try:
        socket.create_connection(place, timeout=KNOCK_S).close()
    except (OSError, UnicodeError) as error:
        raise _unreachable(address, getattr(error, "strerror", None) or str(error)) from error


def _place(address: str) -> tuple[str, int] | None:
    """Returns host and port of an address, None for ``auto``."""
    if address == "auto":
        return None
    try:
        parts = urlsplit(address if "://" in address else f"//{address}")
        port = parts.port or (CLIENT_PORT if parts.scheme == "ray" else None)
        if parts.hostname and port and parts.scheme in ("", "ray"):
            return parts.hostname, port
    except ValueError:
        pass
    raise UsageError(f"`ray=ADDRESS` must be auto, HOST:PORT or ray://HOST:PORT, got {address!r}")


def _unreachable(address: str, reason: str) -> UsageError:
    return UsageError(
        f"`ray=ADDRESS` must be a reachable Ray cluster, got {address}: {reason}",
        hint="Start one with: ray start --head --port 6379",
    )


def _first_line(text: object) -> str:
    return next(iter(str(text).strip().splitlines()), "")


def _run(scorer: list[Any], job: Job) -> Outcome:
    """Returns the outcome of a job; the scorer comes in a list, so that Ray does not unpack it for every one."""
    return run_job(_get(scorer[0]), job)


@lru_cache(maxsize=1)
def _get(scorer: Any) -> Scorer:
    import ray

    found: Scorer = ray.get(scorer)
    return found
