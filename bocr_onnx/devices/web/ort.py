"""ONNX Runtime Web: six files of one release, fetched once and known by their hash, or from where the user has them.

They are not part of this package: 55 MB for every user, of whom few measure in a browser.
"""

from __future__ import annotations

import hashlib
import io
import tarfile
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Mapping
from pathlib import Path

from bocr_onnx.devices.place import kept_at
from bocr_onnx.errors import DeviceError

VERSION = "1.30.0"
URL = f"https://registry.npmjs.org/onnxruntime-web/-/onnxruntime-web-{VERSION}.tgz"
SIZE_MB = 33
INTEGRITY = "sha512-q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
"""The hash of the release, as the registry publishes it."""

FILES = (
    "ort.wasm.min.mjs",
    "ort-wasm-simd-threaded.mjs",
    "ort-wasm-simd-threaded.wasm",
    "ort.webgpu.min.mjs",
    "ort-wasm-simd-threaded.asyncify.mjs",
    "ort-wasm-simd-threaded.asyncify.wasm",
)
VARIABLE = "BOCR_ONNX_ORT_WEB"
"""Environment variable that names another folder for the files."""

MAX_BYTES = 1 << 28
TIMEOUT_S = 60


def default_folder() -> Path:
    """Returns the folder that `BOCR_ONNX_ORT_WEB` names, else the one in the user's cache folder."""
    return kept_at(VARIABLE, f"onnxruntime-web-{VERSION}")


def read_files(folder: Path) -> dict[str, bytes]:
    """Returns the files by name.

    Raises:
        DeviceError: One is not there.
    """
    try:
        return {name: (folder / name).read_bytes() for name in FILES}
    except OSError as error:
        raise DeviceError(
            f"ONNX Runtime Web must be in {folder}, got: {error.strerror} ({Path(str(error.filename)).name})",
            hint="`bocr-onnx device add web` fetches it, once",
        ) from error


def fetch(url: str = URL, integrity: str = INTEGRITY) -> bytes:
    """Returns the release from the registry.

    Raises:
        DeviceError: It cannot be reached, or gives another file.
    """
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer:
            content: bytes = answer.read(MAX_BYTES)
    except (urllib.error.URLError, OSError, ValueError) as error:
        raise DeviceError(
            f"{url} must be reachable, got: {error}",
            hint=f"Without a network: bocr-onnx device add web --ort-web FILE, where FILE is {Path(url).name}",
        ) from error
    check(content, integrity, url)
    return content


def check(content: bytes, integrity: str, source: str) -> None:
    """Compares a release with its published hash.

    Raises:
        DeviceError: It is another file.
    """
    found = f"sha512-{b64encode(hashlib.sha512(content).digest()).decode()}"
    if found != integrity:
        raise DeviceError(f"{source} must be the release {VERSION} of onnxruntime-web, {integrity}, got {found}")


def unpack(content: bytes, folder: Path) -> None:
    """Writes the files of a release into a folder; nothing else of it is read.

    Raises:
        DeviceError: It lacks one, or the folder cannot be written.
    """
    try:
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as archive:
            members = {name: archive.extractfile(f"package/dist/{name}") for name in FILES}
            found = {name: member.read() for name, member in members.items() if member is not None}
    except (tarfile.TarError, KeyError, EOFError, OSError) as error:
        raise DeviceError(f"the release of onnxruntime-web must hold {', '.join(FILES)}, got: {error}") from error
    write_files(found, folder)


def write_files(found: Mapping[str, bytes], folder: Path) -> None:
    """Writes the files into a folder.

    Raises:
        DeviceError: It cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in found.items():
            (folder / name).write_bytes(data)
    except OSError as error:
        raise DeviceError(f"ONNX Runtime Web must be kept in {folder}, got: {error.strerror}") from error
