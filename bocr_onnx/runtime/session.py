"""The one seam to ONNX Runtime: sessions, runs, errors mapped."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from threading import Timer
from typing import Any

import numpy as np
import onnxruntime as ort
from onnx import ModelProto

from bocr_onnx.errors import ModelError
from bocr_onnx.graph import Array

ort.set_default_logger_severity(4)  # its errors are raised as well

RUN_LIMIT_S = 120
"""A single run that takes longer is ended: a file may hold an endless loop."""


_threads: ContextVar[int] = ContextVar("threads", default=0)


@contextmanager
def session_threads(threads: int) -> Iterator[None]:
    """Gives sessions that are opened inside this many intra-op threads; 0 is one per core."""
    token = _threads.set(threads)
    try:
        yield
    finally:
        _threads.reset(token)


def open_session(
    model: ModelProto | bytes | str, *, threads: int | None = None, optimized: Path | None = None, basic: bool = False
) -> ort.InferenceSession:
    """Returns an inference session on the CPU, with denormals flushed to zero.

    Args:
        model: A model in memory, its bytes, or a path.
        threads: Intra-op threads; 0 is one per core, None what `session_threads` says.
        optimized: Where the graph is written that runs after all optimizations.
        basic: Whether only those are made that leave operators of ONNX: constants and norms are folded.

    Raises:
        ModelError: ONNX Runtime rejects the model.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = _threads.get() if threads is None else threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    options.add_session_config_entry("session.set_denormal_as_zero", "1")
    if optimized is not None:
        options.optimized_model_filepath = str(optimized)
    if basic:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    source = model.SerializeToString() if isinstance(model, ModelProto) else model
    try:
        return ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises its own C++ exception classes
        first = str(error).strip().splitlines()[0]
        raise ModelError(f"ONNX Runtime must accept the model, got: {first}") from error


def run_once(model: ModelProto, feeds: Mapping[str, Array]) -> list[Array]:
    """Returns the outputs of a model on inputs by name.

    Raises:
        ModelError: ONNX Runtime rejects the model, fails to run it, or takes longer than `RUN_LIMIT_S`.
    """
    return _run_limited(open_session(model), feeds)


def first_that_runs(model: ModelProto, feeds: Iterable[Mapping[str, Array]]) -> int | None:
    """Returns the number of the first inputs that a model runs on, None where it runs on none within `RUN_LIMIT_S`.

    Args:
        model: The model.
        feeds: Inputs by name; they are asked for one after the other.
    """
    try:
        session = open_session(model)
    except ModelError:
        return None
    end = time.monotonic() + RUN_LIMIT_S
    for number, inputs in enumerate(feeds):
        if time.monotonic() > end:
            return None
        try:
            _run_limited(session, inputs)
        except ModelError:
            continue
        return number
    return None


def _run_limited(session: ort.InferenceSession, feeds: Mapping[str, Array]) -> list[Array]:
    limits = ort.RunOptions()
    timer = Timer(RUN_LIMIT_S, setattr, (limits, "terminate", True))
    timer.daemon = True
    timer.start()
    try:
        return run_session(session, feeds, limits=limits)
    finally:
        timer.cancel()


def run_session(
    session: ort.InferenceSession,
    feeds: Mapping[str, Array],
    names: list[str] | None = None,
    *,
    limits: ort.RunOptions | None = None,
) -> list[Any]:
    """Returns outputs of a session.

    Args:
        session: From `open_session`.
        feeds: Inputs by name.
        names: Outputs to compute; all where None.
        limits: By which another thread may end the run.

    Raises:
        ModelError: The run fails.
    """
    if names == []:
        return []  # which ONNX Runtime takes for all
    try:
        return [np.asarray(o) if not isinstance(o, list) else o for o in session.run(names, dict(feeds), limits)]
    except Exception as error:
        first = str(error).strip().splitlines()[0]
        raise ModelError(f"ONNX Runtime must run the model, got: {first}") from error
