"""Builds the runner of phones for 64-bit Arm and runs it under emulation: outputs must be those of this host.

Usage:
    python tools/arm_runner.py FILE.onnx ... --wheel onnxruntime-...aarch64.whl --headers DIR --root DIR
        [--qemu qemu-aarch64] [--compiler aarch64-linux-gnu-gcc]

By hand, not in CI. The wheel has the library (`pip download --no-deps --platform manylinux_2_28_aarch64 ...`),
`--headers` is a folder with onnxruntime_c_api.h, `--root` holds libc6, libstdc++6 and libgcc-s1 of arm64, unpacked (its
`lib` leads to `usr/lib`), and qemu must be 10 or later. Emulated times mean nothing, so none is printed.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import tempfile
import zipfile
from pathlib import Path

import numpy as np

from bocr_onnx.devices import Host, Request
from bocr_onnx.devices.android import device, native
from bocr_onnx.devices.answer import read_answer
from bocr_onnx.devices.result import read_outputs
from bocr_onnx.graph import load, random_feeds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, nargs="+")
    for name in ("wheel", "headers", "root"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--qemu", default="qemu-aarch64")
    parser.add_argument("--compiler", default="aarch64-linux-gnu-gcc")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        os.environ[native.VARIABLE] = str(folder / "android")
        with zipfile.ZipFile(args.wheel) as wheel, zipfile.ZipFile(folder / "made.aar", "w") as aar:
            library = next(name for name in wheel.namelist() if "/libonnxruntime.so" in name)
            aar.writestr(f"jni/{native.ABI}/{native.LIBRARY}", wheel.read(library))
            for header in args.headers.glob("onnxruntime*.h"):
                aar.write(header, f"headers/{header.name}")
        native.build(folder / "made.aar", args.compiler, folder / "android")
        for file in args.files:
            print(f"{file.stem}: largest difference of an output {compare(file, args.qemu, args.root):.1e}", flush=True)


def compare(file: Path, qemu: str, root: Path) -> float:
    """Returns the largest difference between emulated outputs and this host's, on a random input."""
    graph = load(file)
    batches = {name: array[None] for name, array in random_feeds(graph).items()}
    model, names = graph.proto.SerializeToString(), list(graph.outputs)
    with tempfile.TemporaryDirectory() as there:
        device._write(Path(there), device._asked(Request()) | {"name": names}, [model], batches)
        (Path(there) / native.RUNNER).chmod(0o755)
        command = [qemu, "-L", str(root), f"{there}/{native.RUNNER}", there]
        with Path("/dev/zero").open("rb") as waiting:  # the runner ends where its input does
            done = subprocess.run(command, stdin=waiting, capture_output=True, text=True, check=False)
    found = read_answer(qemu, done.stdout)
    if "error" in found:
        raise SystemExit(f"{file.stem}: {found['error']}")
    ((there_outputs,),) = read_outputs(qemu, found, (1, 1, len(names)))
    ((here,),) = Host().outputs([model], batches, names, Request())
    return max(float(np.abs(a.astype(float) - b.astype(float)).max()) for a, b in zip(there_outputs, here, strict=True))


if __name__ == "__main__":
    main()
