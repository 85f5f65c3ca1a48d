"""The command's door: an interrupt of the first import ends it as one at any later stage does."""

from __future__ import annotations

import os
import sys

from bocr_onnx.cli.signals import NOTHING_KEPT, listen, stopped_code


def run() -> None:
    """Runs the command line.

    Waiting threads of torch (GNU OpenMP) go to sleep soon: threads that spin take the cores that other work needs.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "2000")
    listen()
    try:
        from bocr_onnx.cli.main import run as run_commands
    except KeyboardInterrupt:
        sys.stderr.write(f"error: interrupted; nothing was written\n  {NOTHING_KEPT}\n")
        sys.exit(stopped_code())
    run_commands()
