"""The native runner of phones: a C program of this package and an ONNX Runtime, kept in the user's cache folder."""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import tempfile
import zipfile
from importlib import resources
from pathlib import Path

from bocr_onnx.devices.place import kept_at
from bocr_onnx.errors import DeviceError

VARIABLE = "BOCR_ONNX_ANDROID"
"""Environment variable that names another folder for the runner."""

RUNNER, LIBRARY, HEADER = "runner", "libonnxruntime.so", "onnxruntime_c_api.h"
ABI = "arm64-v8a"
MAX_LIBRARY = 1 << 28
HEADERS = re.compile(r"(?:.*/)?(onnxruntime[A-Za-z0-9_]*\.h)")


def default_folder() -> Path:
    """Returns the folder that `BOCR_ONNX_ANDROID` names, else the one in the user's cache folder."""
    return kept_at(VARIABLE, "android")


def native_files(folder: Path) -> list[Path]:
    """Returns the runner and the libraries beside it; none where there is no runner."""
    return sorted(p for p in folder.iterdir() if p.is_file()) if (folder / RUNNER).is_file() else []


def keep(source: Path, folder: Path) -> None:
    """Copies a folder with a runner of the user's own.

    Raises:
        DeviceError: There is no runner in it, or it cannot be copied.
    """
    if not (source / RUNNER).is_file():
        raise DeviceError(f"`runner` must be a folder with a program named {RUNNER}, got {source}")
    _write({path.name: path.read_bytes() for path in source.iterdir() if path.is_file()}, folder)


def build(aar: Path, compiler: str, folder: Path, abi: str = ABI) -> None:
    """Builds the runner for an archive of ONNX Runtime, as Maven has it.

    Args:
        aar: The archive, a zip with ``jni/ABI/libonnxruntime.so`` and ``headers/``.
        compiler: A C compiler for the phone, such as ``aarch64-linux-android24-clang`` of the NDK.
        folder: Where runner and library are kept.
        abi: The phone's binary interface.

    Raises:
        DeviceError: The archive lacks something, or the compiler is not there or fails; the message has its first line.
    """
    library, headers = _read_archive(aar, abi)
    if shutil.which(compiler) is None:
        raise DeviceError(f"compiler {compiler} must be in PATH, it is not", hint="It is part of the Android NDK.")
    source = resources.files("bocr_onnx.devices.android").joinpath("runner.c").read_bytes()
    with tempfile.TemporaryDirectory() as place:
        made = Path(place) / RUNNER
        _write({"runner.c": source, **headers}, Path(place))
        command = [compiler, "-O2", "-I", place, str(Path(place) / "runner.c"), "-o", str(made), "-pthread", "-ldl"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            first = (done.stderr.strip().splitlines() or ["nothing"])[0][:300]
            raise DeviceError(f"{compiler} must build the runner, got: {first}")
        _write({RUNNER: made.read_bytes(), LIBRARY: library}, folder)


def _read_archive(aar: Path, abi: str) -> tuple[bytes, dict[str, bytes]]:
    try:
        with zipfile.ZipFile(io.BytesIO(aar.read_bytes())) as archive:
            sizes = {info.filename: info.file_size for info in archive.infolist()}
            wanted = f"jni/{abi}/{LIBRARY}"
            headers = {match[1]: name for name in sizes if (match := HEADERS.fullmatch(name))}
            if wanted not in sizes or HEADER not in headers:
                raise DeviceError(f"{aar} must hold {wanted} and {HEADER}, it does not")
            if max(sizes[name] for name in (wanted, *headers.values())) > MAX_LIBRARY:
                raise DeviceError(f"{aar} must hold a library below {MAX_LIBRARY >> 20} MiB, it does not")
            return archive.read(wanted), {name: archive.read(member) for name, member in headers.items()}
    except (OSError, zipfile.BadZipFile) as error:
        raise DeviceError(f"`aar` must be an archive of ONNX Runtime for Android, got {aar}: {error}") from error


def _write(files: dict[str, bytes], folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (folder / name).write_bytes(content)
            (folder / name).chmod(0o755)
    except OSError as error:
        raise DeviceError(f"the runner must be kept in {folder}, got: {error.strerror}") from error
