"""What a phone says of itself: properties, processor, clock, temperature and battery, where they can be read."""

from __future__ import annotations

import re
from collections import Counter

from bocr_onnx.devices.android.adb import Adb
from bocr_onnx.devices.device import Machine
from bocr_onnx.devices.runner import FLAGS

MARK = "=== bocr-onnx"
PARTS = {
    "properties": "getprop",
    "battery": "dumpsys battery",
    "cpuinfo": "cat /proc/cpuinfo",
    "memory": "cat /proc/meminfo",
    "kernel": "uname -mr",
    "clock": "cat /sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_cur_freq",
    "limits": "cat /sys/devices/system/cpu/cpu[0-9]*/cpufreq/cpuinfo_max_freq",
    "thermal": "cat /sys/class/thermal/thermal_zone*/temp",
    "cores": "nproc",
}
EMULATORS = {"goldfish", "ranchu", "cutf_cvm"}
CHARGING, FULL = "2", "5"


def ask_phone(phone: Adb) -> dict[str, str]:
    """Returns what a phone prints for each part; empty where it does not say."""
    script = "\n".join(f"echo '{MARK} {name}'; {command} 2>/dev/null" for name, command in PARTS.items())
    found = dict.fromkeys(PARTS, "")
    for part in phone.shell(script).split(MARK)[1:]:
        name, _, text = part.partition("\n")
        if name.strip() in found:
            found[name.strip()] = text
    return found


def read_phone(said: dict[str, str], onnxruntime: str, build: str) -> Machine:
    """Returns the record of a phone.

    Args:
        said: What it printed.
        onnxruntime: Version of the runtime that runs there.
        build: What that runtime is.
    """
    properties = dict(re.findall(r"^\[([^\]]+)\]: \[([^\]]*)\]", said["properties"], re.MULTILINE))
    kernel = (said["kernel"].split() or [""])[0]
    architecture = (said["kernel"].split() or [""])[-1]
    flags = set(re.findall(r"^(?:Features|flags)\s*:\s*(.*)$", said["cpuinfo"], re.MULTILINE)[:1])
    known = set(" ".join(flags).split())
    version = properties.get("ro.build.version.release", "")
    memory = re.search(r"MemTotal:\s*(\d+)", said["memory"])
    clocks, temperatures = _numbers(said["clock"]), _numbers(said["thermal"])
    return Machine(
        system=f"Android {version}" if version else f"Linux {kernel}",
        architecture=properties.get("ro.product.cpu.abi", architecture),
        cpu=_processor(properties, said),
        flags=tuple(flag for flag in FLAGS if flag in known),
        cores=max(1, int((_numbers(said["cores"]) or [1])[0])),
        memory_bytes=int(memory[1]) * 1024 if memory else None,
        python="",
        numpy="",
        onnxruntime=onnxruntime,
        build=build,
        emulated=properties.get("ro.kernel.qemu") == "1" or properties.get("ro.hardware") in EMULATORS,
        clock_mhz=round(max(clocks) / 1e3, 1) if clocks else None,
        temperature_c=round(max(temperatures) / 1e3, 1) if temperatures else None,
        battery=_battery(said["battery"]),
    )


def _processor(properties: dict[str, str], said: dict[str, str]) -> str:
    """Returns model, processor, and how many cores are how fast: where big ones can be told from small ones."""
    named = [properties.get("ro.product.model", ""), properties.get("ro.soc.model", "")]
    cores = sorted(Counter(_numbers(said["limits"])).items())
    named.append(", ".join(f"{n} cores of {khz / 1e6:.2f} GHz" for khz, n in cores))
    if not any(named):
        named = re.findall(r"^model name\s*:\s*(.*)$", said["cpuinfo"], re.MULTILINE)[:1]
    return ", ".join(filter(None, named))


def _numbers(text: str) -> list[float]:
    return [float(line) for line in text.split() if re.fullmatch(r"-?[0-9]{1,12}", line)]


def _battery(text: str) -> str:
    level, status = (re.search(rf"^\s*{name}: (\d+)", text, re.MULTILINE) for name in ("level", "status"))
    if level is None:
        return ""
    state = {CHARGING: "Charging", FULL: "Full"}.get(status[1] if status else "", "Discharging")
    return f"{state} {level[1]} %"
