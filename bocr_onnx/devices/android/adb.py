"""The Android Debug Bridge, as the command ``adb`` of this host; which phone, and what goes wrong."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass

from bocr_onnx.errors import DeviceError, UsageError

SERIAL = re.compile(r"[A-Za-z0-9_.][A-Za-z0-9_.:-]{0,63}")
TIMEOUT_S = 30.0
LOST = re.compile(
    r"device '.*' not found|device offline|no devices/emulators|device still (connecting|authorizing)|closed"
)


@dataclass(frozen=True, slots=True)
class Adb:
    """A phone that adb knows.

    Attributes:
        serial: Which one.
    """

    serial: str

    def command(self, *arguments: str) -> list[str]:
        """Returns a command line for this phone."""
        return ["adb", "-s", self.serial, *arguments]

    def run(self, *arguments: str, limit_s: float = TIMEOUT_S) -> str:
        """Returns what a command of adb prints.

        Raises:
            DeviceError: The phone is lost, or the command fails.
        """
        try:
            done = subprocess.run(
                self.command(*arguments), stdin=subprocess.DEVNULL, capture_output=True, timeout=limit_s, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise DeviceError(f"phone {self.serial} must answer within {limit_s:g} s, it did not") from error
        said = done.stderr.decode("utf-8", "replace").strip() or done.stdout.decode("utf-8", "replace").strip()
        if done.returncode:
            raise self.failure(said)
        return done.stdout.decode("utf-8", "replace").replace("\r\n", "\n")

    def shell(self, script: str) -> str:
        """Returns what a script prints there; its exit code is not looked at, since old versions lose it.

        Raises:
            DeviceError: The phone is lost.
        """
        return self.run("shell", f"{script}\necho RC:$?").rpartition("RC:")[0]

    def failure(self, said: str) -> DeviceError:
        """Returns what went wrong, in words."""
        last = said.splitlines()[-1][:300] if said else "nothing"
        if "unauthorized" in said:
            return DeviceError(
                f"phone {self.serial} must allow this host, got: {last}",
                hint="Unlock it and accept the key of this host; `adb devices` then says `device`.",
            )
        if LOST.search(said):
            return DeviceError(
                f"phone {self.serial} must be connected, got: {last}", hint="`adb devices` lists phones."
            )
        if "No space left" in said:
            return DeviceError(f"phone {self.serial} must have room for the models, got: {last}")
        return DeviceError(f"phone {self.serial}: adb failed, got: {last}")


def find_phone(serial: str = "") -> Adb:
    """Returns the phone of a serial number, or the only one that is connected.

    Raises:
        UsageError: The serial number has another form, or none is given and there are several phones.
        DeviceError: There is no adb, no such phone, or it does not let this host in.
    """
    if serial and not SERIAL.fullmatch(serial):
        raise UsageError(f"`device` must be android or android:SERIAL, got {f'android:{serial}'!r}")
    if shutil.which("adb") is None:
        raise DeviceError(
            "adb must be installed on this host to reach phones", hint="apt install adb, or platform-tools"
        )
    done = subprocess.run(["adb", "devices"], capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    rows = [line.split() for line in done.stdout.splitlines() if "\t" in line]
    states = {row[0]: row[1] for row in rows if len(row) >= 2}
    if not states or (serial and serial not in states):
        named = f"phone {serial}" if serial else "a phone"
        known = f"; adb knows {', '.join(states)}" if states else ""
        raise DeviceError(
            f"{named} must be connected, there is none{known}",
            hint="Connect it by cable, switch on USB debugging in its developer options, and look at `adb devices`.",
        )
    if not serial and len(states) > 1:
        raise UsageError(f"`device` must name one of {len(states)} phones: android:{', android:'.join(states)}")
    found = Adb(serial or next(iter(states)))
    if states[found.serial] != "device":
        raise found.failure(f"device {states[found.serial]}")
    return found
