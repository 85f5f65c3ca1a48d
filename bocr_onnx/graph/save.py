"""A model is written whole or not at all."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import onnx
from onnx import ModelProto

from bocr_onnx.errors import OutputError

EXTERNAL_THRESHOLD_BYTES = 1024


def check_writable(path: str | Path) -> Path:
    """Returns the path, if a file can be written there.

    Raises:
        OutputError: It is a folder, its folder is missing, or may not be written.
    """
    path = Path(path)
    if path.is_dir():
        raise OutputError(f"output {path} must be a file, got a folder", hint=f"Try: -o {path / 'slim.onnx'}")
    if not path.parent.is_dir():
        raise OutputError(f"the folder of output {path} must exist", hint=f"Try: mkdir -p {path.parent}")
    if not os.access(path.parent, os.W_OK) or (path.exists() and not os.access(path, os.W_OK)):
        raise OutputError(f"output {path} must be writable, got no permission")
    return path


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a temporary path in the same folder that takes the place of `path` on success.

    Raises:
        OutputError: The operating system refuses (no permission, no space).
    """
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
        os.close(handle)
    except OSError as error:
        raise OutputError(f"{path} must be writable, got {error.strerror}") from error
    temporary = Path(name)
    try:
        yield temporary
        _release(temporary, path)
    except OSError as error:
        raise OutputError(f"{path} must be writable, got {error.strerror}") from error
    finally:
        temporary.unlink(missing_ok=True)


def _release(temporary: Path, path: Path) -> None:
    """Puts a finished temporary file in its place, readable as any new file of the user is."""
    umask = os.umask(0)
    os.umask(umask)
    temporary.chmod(0o666 & ~umask)
    temporary.replace(path)


def write_text(path: Path, text: str) -> None:
    """Writes a text file whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def save(proto: ModelProto, path: str | Path, *, external: bool = False) -> Path:
    """Writes a model, with external data where the original had it.

    Args:
        proto: The model; not changed.
        path: The .onnx file; external data goes to ``<name>.data`` beside it.
        external: Whether large tensors go to a file of their own.

    Raises:
        OutputError: The path cannot be written.
    """
    path = check_writable(path)
    if not external:
        with replacing(path) as temporary:
            temporary.write_bytes(proto.SerializeToString())
        return path
    copy = ModelProto()
    copy.CopyFrom(proto)
    location = f"{path.name}.data"
    try:
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
            made = Path(folder) / path.name
            onnx.save_model(
                copy,
                str(made),
                save_as_external_data=True,
                all_tensors_to_one_file=True,
                location=location,
                size_threshold=EXTERNAL_THRESHOLD_BYTES,
            )
            data = made.with_name(location)
            if data.exists():
                _release(data, path.with_name(location))
            _release(made, path)
    except OSError as error:
        raise OutputError(f"{path} must be writable, got {error.strerror}") from error
    return path


def serialized_size(proto: ModelProto) -> int:
    """Returns the size of the model as one file, in bytes."""
    return int(proto.ByteSize())
