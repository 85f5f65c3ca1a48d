"""A model is written whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import glob
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from onnx import ModelProto
from onnx.external_data_helper import set_external_data

from bocr_onnx.errors import OutputError

PART = ".part"
"""How the names of files end that are being written."""

MAX_NAME_BYTES = 200
"""Most file systems take 255; what is written on the way has a longer name."""

EXTERNAL_THRESHOLD_BYTES = 1024
EXTERNAL_ALIGNMENT_BYTES = 4096


def check_writable(path: str | Path) -> Path:
    """Returns the path, if a file can be written there.

    Raises:
        OutputError: It is a folder, its folder is missing, or may not be written.
    """
    path = Path(path)
    if len(os.fsencode(path.name)) > MAX_NAME_BYTES:
        raise OutputError(f"the name of output {path} must be at most {MAX_NAME_BYTES} bytes long")
    if path.is_dir():
        raise OutputError(f"output {path} must be a file, got a folder", hint=f"Try: -o {path / 'slim.onnx'}")
    if path.exists() and not path.is_file():
        raise OutputError(f"output {path} must be a regular file, got a device or a pipe")
    if not path.parent.is_dir():
        raise OutputError(f"the folder of output {path} must exist", hint=f"Try: mkdir -p {path.parent}")
    if not os.access(path.parent, os.W_OK) or (path.exists() and not os.access(path, os.W_OK)):
        raise OutputError(f"output {path} must be writable, got no permission")
    return path


def sweep_leftovers(path: Path) -> None:
    """Removes what a process that was killed has left of writing a file; for who alone may write it."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.*"):
        if left.suffix != PART:
            continue
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a temporary path in the same folder that takes the place of `path` on success.

    Raises:
        OutputError: The operating system refuses (no permission, no space).
    """
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=PART)
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
        temporary.write_text(text, encoding="utf-8", errors="surrogateescape")


def read_text(path: str | Path, most_bytes: int) -> str:
    """Returns the text of a regular file of bounded size.

    Args:
        path: The file.
        most_bytes: What it may hold.

    Raises:
        OSError: It is missing, unreadable, a device or a pipe, or larger.
        UnicodeDecodeError: It is not UTF-8 text.
    """
    path = Path(path)
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "it is not a regular file", str(path))
    if status.st_size > most_bytes:
        raise OSError(errno.EFBIG, f"it is larger than {most_bytes >> 20} MiB", str(path))
    return path.read_text(encoding="utf-8")


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
    location = f"{path.name}.data"
    try:
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.", suffix=PART) as folder:
            data = Path(folder) / location
            made = Path(folder) / path.name
            made.write_bytes(_move_data_out(proto, data).SerializeToString())
            _release(data, path.with_name(location))
            _release(made, path)
    except OSError as error:
        raise OutputError(f"{path} must be writable, got {error.strerror or error}") from error
    return path


def _move_data_out(proto: ModelProto, file: Path) -> ModelProto:
    """Writes large initializers to a file and returns a copy of the model that refers to it by name.

    onnx's own writer refuses where a file of that name lies in the working directory, whatever the target folder.
    """
    copy = ModelProto()
    copy.CopyFrom(proto)
    with file.open("wb") as out:
        for tensor in copy.graph.initializer:
            if len(tensor.raw_data) < EXTERNAL_THRESHOLD_BYTES:
                continue
            out.write(b"\0" * (-out.tell() % EXTERNAL_ALIGNMENT_BYTES))
            set_external_data(tensor, file.name, offset=out.tell(), length=len(tensor.raw_data))
            out.write(tensor.raw_data)
            tensor.ClearField("raw_data")
    return copy


def serialized_size(proto: ModelProto) -> int:
    """Returns the size of the model as one file, in bytes."""
    return int(proto.ByteSize())
