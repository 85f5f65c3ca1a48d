"""A phone made of a real adb daemon in a network namespace of its own; only what Android has beside it is a stand-in.

The daemon asks nobody for a password, so nothing but this host reaches it. `.ci/adbd` gets it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

NAMESPACE = f"bocr{os.getpid() % 100000}"
LINK, FAR = f"bc{os.getpid() % 100000}a", f"bc{os.getpid() % 100000}b"
NETWORK = f"10.{200 + os.getpid() // 256 % 50}.{os.getpid() % 256}"
HERE, THERE, ALSO_THERE = f"{NETWORK}.1", f"{NETWORK}.2", f"{NETWORK}.3"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "bocr-onnx" / "adbd"
HEADERS = CACHE / "usr/include/onnxruntime"

PROPERTIES = """[ro.build.version.release]: [15]
[ro.product.cpu.abi]: [x86_64]
[ro.product.model]: [Stand-in]
[ro.soc.model]: [None]
"""
BATTERY = "Current Battery Service state:\\n  AC powered: false\\n  status: 3\\n  level: 81\\n"


def missing() -> str:
    """Returns what is missing to make one; empty where nothing is."""
    if not (CACHE / "done").exists():
        return "no adb daemon here: .ci/adbd gets it"
    if shutil.which("adb") is None:
        return "no adb here: apt-get install adb"
    if os.geteuid() != 0 or shutil.which("ip") is None:
        return "a network namespace needs root and ip"
    return ""


@dataclass
class Phone:
    """A daemon that runs, and adb that knows it.

    Attributes:
        folder: For stand-ins (``bin``), pushed files (``tmp``) and what is said.
        serial: Its serial number.
        daemon: The process.
    """

    folder: Path
    serial: str = f"{THERE}:5555"
    daemon: subprocess.Popen[bytes] | None = None

    def stand_in(self, name: str, text: str) -> None:
        """Writes a program that Android has and this host has not."""
        (self.folder / "bin").mkdir(exist_ok=True)
        (self.folder / "bin" / name).write_text(f"#!/bin/sh\n{text}\n")
        (self.folder / "bin" / name).chmod(0o755)

    def start(self) -> None:
        """Starts the daemon and connects adb to it."""
        (self.folder / "tmp").mkdir(exist_ok=True)
        self.stand_in("getprop", f"printf '{PROPERTIES}'")
        self.stand_in("dumpsys", f"printf '{BATTERY}'")
        for command in (
            f"netns add {NAMESPACE}",
            f"link add {LINK} type veth peer name {FAR}",
            f"link set {FAR} netns {NAMESPACE}",
            f"addr add {HERE}/29 dev {LINK}",
            f"link set {LINK} up",
            f"-n {NAMESPACE} addr add {THERE}/29 dev {FAR}",
            f"-n {NAMESPACE} link set {FAR} up",
            f"-n {NAMESPACE} link set lo up",
        ):
            subprocess.run(["ip", *command.split()], check=True, capture_output=True)
        self.boot()

    def boot(self) -> None:
        """Starts the daemon."""
        libraries = CACHE / "usr/lib/x86_64-linux-gnu"
        command = ["ip", "netns", "exec", NAMESPACE, str(libraries / "ld-linux-x86-64.so.2"), "--library-path"]
        command += [f"{libraries}:{libraries / 'android'}", str(CACHE / "usr/lib/android-sdk/platform-tools/adbd")]
        path = f"{self.folder / 'bin'}:/usr/sbin:/usr/bin:/sbin:/bin"
        with (self.folder / "said").open("ab") as said:
            self.daemon = subprocess.Popen(
                command, stdout=said, stderr=said, env={"PATH": path, "HOME": str(self.folder)}, start_new_session=True
            )
        for _ in range(100):
            subprocess.run(["adb", "connect", self.serial], capture_output=True, check=False)
            listed = subprocess.run(["adb", "devices"], capture_output=True, text=True, check=False).stdout
            if f"{self.serial}\tdevice" in listed:
                return
            time.sleep(0.1)
        raise RuntimeError(listed)

    def unplug(self) -> None:
        """Kills the daemon and all that it runs."""
        if self.daemon is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.daemon.pid, signal.SIGKILL)
            self.daemon.wait()
        subprocess.run(["adb", "disconnect", self.serial], capture_output=True, check=False)

    def stop(self) -> None:
        """Ends it all."""
        self.unplug()
        subprocess.run(["adb", "kill-server"], capture_output=True, check=False)
        subprocess.run(["ip", "link", "del", LINK], capture_output=True, check=False)
        subprocess.run(["ip", "netns", "del", NAMESPACE], capture_output=True, check=False)

    def left(self) -> list[str]:
        """Returns what lies in its temporary folder, after some time to clean up."""
        for _ in range(50):
            if not (found := sorted(path.name for path in (self.folder / "tmp").iterdir())):
                return []
            time.sleep(0.1)
        return found
