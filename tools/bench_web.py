"""Measures pairs of models in a headless Chromium, compares outputs, and takes pictures of the page.

Usage:
    python tools/bench_web.py FILE.onnx ... [--seconds 10] [--pictures docs] [-o docs/benchmarks/web.json]

Every file is measured against what `--round-to auto` leaves of it at half the MACs (uniform, weights not recovered:
neither changes the time of a kernel), on one thread and on all that the browser has. A row is a pair: how many times
faster, with the ends of the 99 % interval, the largest difference of an output from the native runtime, and seconds in
all. The pictures are of the page after the first pair: light, dark, and 390 pixels wide.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

import bocr_onnx
from bocr_onnx.devices import Web, open_device


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--pictures", type=Path)
    parser.add_argument("-o", "--output", type=Path, default=Path("docs/benchmarks/web.json"))
    args = parser.parse_args()
    rows = json.loads(args.output.read_text()) if args.output.exists() else {}
    for number, file in enumerate(args.files):
        with tempfile.TemporaryDirectory() as folder:
            slim = Path(folder) / f"{file.stem}_half.onnx"
            bocr_onnx.prune(file, flops=0.5, search="uniform", history="none", output=slim)
            for threads in (1, 0):
                key = f"{file.stem} {'all threads' if threads == 0 else 'one thread'}"
                if key in rows and not args.pictures:
                    continue
                start = time.monotonic()
                with person(args.pictures if number + threads == 1 else None):
                    pair = bocr_onnx.bench([file, slim], device="web", seconds=args.seconds, threads=threads)
                ratio = pair.speedups[0]
                rows[key] = {
                    "speedup": [round(v, 4) for v in (ratio.value, ratio.low, ratio.high)],
                    "median_ms": [round(one.median_ms, 3) for one in pair.measured.latencies],
                    "largest_difference": max(o["largest_error"] for a in pair.agreements for o in a.outputs),
                    "threads": pair.measured.latencies[0].threads,
                    "seconds": round(time.monotonic() - start, 1),
                    "notes": list(pair.measured.notes),
                }
                args.output.write_text(json.dumps(rows, indent=1) + "\n")
                print(key, rows[key], flush=True)


@contextmanager
def person(pictures: Path | None) -> Iterator[None]:
    """Opens the page announced in its body, and closes it afterwards."""
    urls: list[str] = []
    over = threading.Event()
    device = open_device("web")
    assert isinstance(device, Web)
    device.invite = lambda url, address: urls.append(url)
    thread = threading.Thread(target=_browse, args=(urls, over, pictures))
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _browse(urls: list[str], over: threading.Event, pictures: Path | None) -> None:
    while not urls:
        time.sleep(0.05)
    with sync_playwright() as started:
        path = shutil.which("chromium") or shutil.which("google-chrome")
        browser = started.chromium.launch(executable_path=path, args=["--no-sandbox"])
        page = browser.new_page()
        page.goto(urls[0])
        if pictures is not None:
            page.wait_for_selector("#results:not([hidden])")
            page.wait_for_timeout(1500)
            _take(page, pictures)
        while not over.is_set():
            page.wait_for_timeout(100)
        browser.close()


def _take(page: Page, folder: Path) -> None:
    for name, scheme, width in (("light", "light", 720), ("dark", "dark", 720), ("phone", "light", 390)):
        page.set_viewport_size({"width": width, "height": 640})
        page.emulate_media(color_scheme=scheme)
        page.wait_for_timeout(100)
        page.screenshot(path=folder / f"web_{name}.png")


if __name__ == "__main__":
    main()
