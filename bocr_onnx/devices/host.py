"""Latency on this host."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict

from pydantic import TypeAdapter

from bocr_onnx.devices import runner
from bocr_onnx.devices.device import Machine, Measured, Request, Rounds, Tensors
from bocr_onnx.devices.result import read_result
from bocr_onnx.errors import DeviceError, ModelError, UsageError
from bocr_onnx.graph import Array
from bocr_onnx.runtime import open_session, run_session


class Host:
    """This machine.

    Args:
        place: Must be empty: there is one host.

    Raises:
        UsageError: It is not.
    """

    name = "host"

    def __init__(self, place: str = "") -> None:
        if place:
            raise UsageError(f"`device` must be host, got 'host://{place}'")

    def check(self) -> Machine:
        """Returns what machine it is."""
        return TypeAdapter(Machine).validate_python(runner.machine())

    def close(self) -> None:
        """Does nothing: nothing is held open."""

    def measure(
        self, models: Sequence[bytes], feeds: Mapping[str, Array], request: Request, progress: Rounds | None = None
    ) -> Measured:
        """Returns the latency of every model on the same inputs; see `Device`."""
        for model in models:  # errors of models in the words of this package
            run_session(open_session(model, threads=request.threads), dict(feeds))
        with _in_words():
            found = runner.measure(list(models), dict(feeds), asdict(request), progress)
        return read_result(self.name, found, request, len(models))

    def outputs(
        self,
        models: Sequence[bytes],
        batches: Mapping[str, Array],
        names: Sequence[str],
        request: Request,
        progress: Rounds | None = None,
    ) -> tuple[Tensors, ...]:
        """Returns tensors of every model for every batch; see `Device`."""
        asked = asdict(request) | {"names": list(names)}
        with _in_words():
            found = runner.outputs(list(models), dict(batches), asked, progress)
        return tuple(tuple(map(tuple, rows)) for rows in found)


@contextmanager
def _in_words() -> Iterator[None]:
    """Raises what goes wrong while models run in the words of this package."""
    try:
        yield
    except (RuntimeError, OSError) as error:
        raise DeviceError(f"device host must run the models, got: {error}") from error
    except Exception as error:  # onnxruntime raises its own C++ exception classes
        raise ModelError(f"ONNX Runtime must run the model, got: {str(error).splitlines()[0]}") from error
