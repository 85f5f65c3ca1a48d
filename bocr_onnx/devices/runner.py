"""Times models with ONNX Runtime, in turn, and says what the machine is.

A file of its own: any machine with Python 3.9, numpy and onnxruntime runs it, also as ``python3 runner.py FOLDER``,
where FOLDER holds ``request.json``, ``feeds.npz`` and the models ``0.onnx``, ``1.onnx``, ... The result is printed as
JSON between two marks; what is on stderr is progress.
"""

from __future__ import annotations

import base64
import gc
import glob
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from threading import Thread
from typing import Any

BEGIN, END = "<<<bocr-onnx", "bocr-onnx>>>"

WARM_UP_RUNS = 3
MIN_ROUNDS, MAX_ROUNDS = 4, 12
"""Rounds, even: sessions are made anew in each, since where their memory lies changes how fast they are."""
MIN_RUNS, MAX_RUNS = 6, 40
"""Runs of each model in a round; even, so that every model is as often early as late."""
PROFILED_RUNS = 5

FLAGS = (
    "avx2",
    "avx512f",
    "avx512_vnni",
    "avx_vnni",
    "avx512_bf16",
    "amx_int8",
    "asimd",
    "asimddp",
    "i8mm",
    "sve",
    "bf16",
)

Report = Callable[[int, int], None]
"""Told after each round how many of how many are done."""


def main(folder: str) -> None:
    """Measures what a folder holds and prints the result; ends where its input does: then nobody waits any more."""
    Thread(target=_end_with_input, daemon=True).start()
    with open(os.path.join(folder, "request.json"), encoding="utf-8") as stream:
        request = json.load(stream)
    try:
        import numpy as np
        import onnxruntime  # noqa: F401
    except ImportError as error:
        _print({"missing": error.name or "onnxruntime", "python": sys.executable})
        return
    with np.load(os.path.join(folder, "feeds.npz"), allow_pickle=False) as held:
        feeds = {name: held[f"arr_{i}"] for i, name in enumerate(request["inputs"])}
    paths = [os.path.join(folder, f"{i}.onnx") for i in range(request["n_models"])]
    found: dict[str, Any]
    try:
        if request.get("names"):
            found = {"outputs": [[[encoded(a) for a in b] for b in m] for m in outputs(paths, feeds, request, _tell)]}
        else:
            found = measure(paths, feeds, request, _tell)
    except Exception as error:
        found = {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"}
    _print(found)


def _tell(number: int, n: int) -> None:
    print(f"round {number} {n}", file=sys.stderr, flush=True)


def _end_with_input() -> None:
    while os.read(0, 1 << 16):  # sys.stdin would be locked when the process ends
        pass
    os._exit(1)


def _print(found: dict[str, Any]) -> None:
    print(f"{BEGIN}\n{json.dumps(found)}\n{END}", flush=True)


def outputs(
    models: Sequence[Any], feeds: dict[str, Any], request: dict[str, Any], report: Report | None = None
) -> list[list[list[Any]]]:
    """Returns tensors of every model, for every batch.

    Args:
        models: Paths, or models in memory as bytes.
        feeds: Inputs by name, one more axis in front: the batches.
        request: ``names`` of the tensors, ``threads``, ``provider``.
        report: Told after each batch.
    """
    n = len(next(iter(feeds.values())))
    found: list[list[list[Any]]] = []
    for number, model in enumerate(models):
        session = open_session(model, request)
        found.append([])
        for i in range(n):
            found[-1].append(session.run(request["names"], {name: batches[i, ...] for name, batches in feeds.items()}))
            if report is not None:
                report(number * n + i + 1, len(models) * n)
    return found


def encoded(array: Any) -> dict[str, Any]:
    """Returns an array as JSON: type, shape, and base64 of its bytes in C order."""
    return {
        "dtype": array.dtype.str,
        "shape": list(array.shape),
        "data": base64.b64encode(array.tobytes()).decode("ascii"),
    }


def measure(
    models: Sequence[Any], feeds: dict[str, Any], request: dict[str, Any], report: Report | None = None
) -> dict[str, Any]:
    """Returns raw samples of every model, and the machine before and after.

    Args:
        models: Paths, or models in memory as bytes.
        feeds: Inputs by name.
        request: ``threads`` (0: one per core), ``budget_s``, ``runs`` (of each model in all; 0: as the budget allows),
            ``provider``, ``pin`` (cores, or none), ``details`` (peak memory and kernels, too).
        report: Told after each round.
    """
    before = machine()
    if not models:
        return {"machine": before}
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
    try:
        _pin(request.get("pin") or [])
        found = _rounds(models, feeds, request, report)
        after = machine()
        if request.get("details"):
            for model, timing in zip(models, found["timings"]):
                timing["kernels"] = kernels(model, feeds, request)
                timing["peak_bytes"] = _peak_bytes(model, feeds, request)
    finally:
        _pin(sorted(cores))
    return {"machine": before, "after": {k: after[k] for k in ("clock_mhz", "temperature_c")}, **found}


def _rounds(
    models: Sequence[Any], feeds: dict[str, Any], request: dict[str, Any], report: Report | None
) -> dict[str, Any]:
    timings: list[dict[str, Any]] = [{"init_ms": [], "first_ms": [], "wall_ms": [], "cpu_ms": []} for _ in models]
    start, per_round = time.perf_counter(), 0
    for number in range(1, MAX_ROUNDS + 1):
        order = list(range(len(models)))[:: 1 if number % 2 else -1]  # who is opened first is a little slower
        sessions = [_opened(models[i], request, timings[i], feeds) for i in order]
        per_round = per_round or _runs_per_round(timings, request)
        for i, one in zip(order, time_round(sessions, feeds, per_round)):
            timings[i]["wall_ms"].append(one[0])
            timings[i]["cpu_ms"].append(one[1])
        providers = [session.get_providers() for session in sessions]
        del sessions
        gc.collect()
        late = time.perf_counter() - start > request["budget_s"] and not request.get("runs")
        last = number == MAX_ROUNDS or (late and number >= MIN_ROUNDS and number % 2 == 0)
        if report is not None:
            report(number, number if last else MAX_ROUNDS)
        if last:
            break
    return {"providers": providers, "timings": timings}


def open_session(model: Any, request: dict[str, Any], profile: str = "") -> Any:
    """Returns a session, denormals flushed to zero; a provider that is not there is an error, never a fall-back."""
    import onnxruntime as ort

    ort.set_default_logger_severity(4)
    provider = request.get("provider") or "CPUExecutionProvider"
    if provider not in ort.get_available_providers():
        known = ", ".join(ort.get_available_providers())
        raise RuntimeError(f"provider {provider} must be available, got {known}")
    options = ort.SessionOptions()
    options.intra_op_num_threads = request["threads"]
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    options.add_session_config_entry("session.set_denormal_as_zero", "1")
    if profile:
        options.enable_profiling, options.profile_file_prefix = True, profile
    return ort.InferenceSession(model, options, providers=[provider])


def _opened(model: Any, request: dict[str, Any], timing: dict[str, Any], feeds: dict[str, Any]) -> Any:
    start = time.perf_counter()
    session = open_session(model, request)
    opened = time.perf_counter()
    session.run(None, feeds)
    timing["init_ms"].append((opened - start) * 1e3)
    timing["first_ms"].append((time.perf_counter() - opened) * 1e3)
    for _ in range(WARM_UP_RUNS - 1):
        session.run(None, feeds)
    return session


def _runs_per_round(timings: Sequence[dict[str, Any]], request: dict[str, Any]) -> int:
    if request.get("runs"):
        runs = -(-request["runs"] // MAX_ROUNDS)
    else:
        all_s = sum(timing["first_ms"][0] for timing in timings) / 1e3
        runs = min(MAX_RUNS, max(MIN_RUNS, int(request["budget_s"] / MAX_ROUNDS / max(all_s, 1e-9))))
    return int(runs + runs % 2)


def time_round(sessions: Sequence[Any], feeds: dict[str, Any], runs: int) -> list[list[list[float]]]:
    """Returns wall and CPU samples in ms of every session, run in turn: A B B A A B B A."""
    found: list[list[list[float]]] = [[[], []] for _ in sessions]
    there = range(len(sessions))
    for _ in range(runs // 2):
        for i in [*there, *reversed(there)]:
            wall, cpu = time.perf_counter(), time.thread_time()
            sessions[i].run(None, feeds)
            cpu_s, wall_s = time.thread_time() - cpu, time.perf_counter() - wall
            found[i][0].append(wall_s * 1e3)
            found[i][1].append(cpu_s * 1e3)
    return found


def kernels(model: Any, feeds: dict[str, Any], request: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns the nodes of the optimized graph: name, operator, provider and mean time of a run in ms."""
    with tempfile.TemporaryDirectory() as folder:
        session = open_session(model, request, os.path.join(folder, "profile"))
        for _ in range(PROFILED_RUNS):
            session.run(None, feeds)
        with open(session.end_profiling(), encoding="utf-8") as stream:
            events = json.load(stream)
    found: dict[str, dict[str, Any]] = {}
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            name = event["name"][: -len("_kernel_time")]
            fields = event.get("args", {})
            row = found.setdefault(
                name, {"name": name, "op": fields.get("op_name", ""), "provider": fields.get("provider", ""), "ms": 0.0}
            )
            row["ms"] += event["dur"] / 1e3 / PROFILED_RUNS
    return list(found.values())


def _peak_bytes(model: Any, feeds: dict[str, Any], request: dict[str, Any]) -> int | None:
    """Returns the memory that a model takes at its peak beyond that of an empty process, measured in one of its own."""
    import numpy as np

    with tempfile.TemporaryDirectory() as folder:
        path = model if isinstance(model, str) else os.path.join(folder, "model.onnx")
        if not isinstance(model, str):
            with open(path, "wb") as stream:
                stream.write(model)
        np.savez(os.path.join(folder, "feeds.npz"), *feeds.values())
        asked = {"path": path, "feeds": os.path.join(folder, "feeds.npz"), "inputs": list(feeds), "request": request}
        with open(os.path.join(folder, "asked.json"), "w", encoding="utf-8") as stream:
            json.dump(asked, stream)
        command = [sys.executable, os.path.abspath(__file__), "--peak", os.path.join(folder, "asked.json")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        return int(done.stdout.split()[-1])
    except (ValueError, IndexError):
        return None


def peak(file: str) -> int:
    """Returns the bytes by which this process grows at most while it opens a model and runs it."""
    import numpy as np
    import onnxruntime  # noqa: F401

    with open(file, encoding="utf-8") as stream:
        asked = json.load(stream)
    with np.load(asked["feeds"], allow_pickle=False) as held:
        feeds = {name: held[f"arr_{i}"] for i, name in enumerate(asked["inputs"])}
    before = _peak_so_far(reset=True)
    session = open_session(asked["path"], asked["request"])
    for _ in range(2):
        session.run(None, feeds)
    return max(0, _peak_so_far() - before)


def _peak_so_far(reset: bool = False) -> int:
    """Returns the most memory that this process has held, in bytes; where Linux allows it, since the last reset."""
    try:
        if reset:
            with open("/proc/self/clear_refs", "w", encoding="utf-8") as stream:
                stream.write("5")
        return next(int(line.split()[1]) for line in _read("/proc/self/status").splitlines() if "VmHWM" in line) * 1024
    except (OSError, StopIteration):
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def machine() -> dict[str, Any]:
    """Returns what this machine is, as far as it says so."""
    import numpy as np
    import onnxruntime as ort

    info = _read("/proc/cpuinfo")
    fields = dict(_field(line) for line in info.splitlines() if ":" in line)
    flags = set((fields.get("flags", "") + " " + fields.get("Features", "")).split())
    model = fields.get("model name") or _read("/proc/device-tree/model").strip("\0 \n") or platform.processor()
    return {
        "system": f"{platform.system()} {platform.release()}",
        "architecture": platform.machine(),
        "cpu": model,
        "flags": [flag for flag in FLAGS if flag in flags],
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_bytes": _memory_bytes(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "onnxruntime": ort.__version__,
        "build": _build(ort),
        "emulated": _is_emulated(platform.machine(), info),
        "clock_mhz": _number("/sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq", 1e-3),
        "temperature_c": _hottest(),
        "battery": _battery(),
    }


def _is_emulated(architecture: str, cpuinfo: str) -> bool:
    """Returns whether the processor is of another kind than the program: under emulation, timings mean nothing."""
    arm = architecture.startswith(("aarch64", "arm"))
    x86 = "GenuineIntel" in cpuinfo or "AuthenticAMD" in cpuinfo
    return (arm and x86) or (architecture in ("x86_64", "AMD64") and "CPU implementer" in cpuinfo)


def _build(ort: Any) -> str:
    try:
        return str(ort.get_build_info())[:200]
    except AttributeError:
        return ""


def _field(line: str) -> Any:
    key, _, value = line.partition(":")
    return key.strip(), value.strip()


def _memory_bytes() -> int | None:
    for line in _read("/proc/meminfo").splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) * 1024
    return None


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            return stream.read()
    except OSError:
        return ""


def _number(path: str, scale: float) -> float | None:
    try:
        return round(float(_read(path)) * scale, 1)
    except ValueError:
        return None


def _hottest() -> float | None:
    found = [_number(path, 1e-3) for path in glob.glob("/sys/class/thermal/thermal_zone*/temp")]
    return max((value for value in found if value is not None), default=None)


def _battery() -> str:
    for folder in sorted(glob.glob("/sys/class/power_supply/*")):
        if _read(os.path.join(folder, "type")).strip() == "Battery":
            status, capacity = (_read(os.path.join(folder, name)).strip() for name in ("status", "capacity"))
            return f"{status} {capacity} %".strip()
    return ""


def _pin(cores: Sequence[int]) -> None:
    if not cores:
        return
    if not hasattr(os, "sched_setaffinity"):
        raise RuntimeError("this system must let a process choose its cores, it does not")
    try:
        os.sched_setaffinity(0, set(cores))
    except OSError as error:
        raise RuntimeError(f"cores {sorted(cores)} must be there, got: {error.strerror}") from error


if __name__ == "__main__":
    if sys.argv[1] == "--peak":
        print(peak(sys.argv[2]))
    else:
        main(sys.argv[1])
