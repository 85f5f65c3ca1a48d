"""Runs the command line in forks of a process that has everything imported: a second each instead of three."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

SERVER = """
import json, os, resource, sys, time
import numpy, onnx, onnxruntime, PIL.Image, scipy.linalg
import bocr_onnx.api
if "torch" in sys.argv:
    import torch, bocr_onnx.pipeline.training, bocr_onnx.training.finetune
from bocr_onnx.cli.main import run
for line in sys.stdin:
    asked = json.loads(line)
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.dup2(writing, 1), os.dup2(writing, 2), os.close(reading)
        resource.setrlimit(resource.RLIMIT_CPU, (asked["cpu_s"], asked["cpu_s"]))
        sys.argv, code = ["bocr-onnx", *asked["arguments"]], 0
        sys.stdout = open(1, "w", buffering=1, closefd=False)
        sys.stderr = open(2, "w", buffering=1, closefd=False)
        try:
            run()
        except SystemExit as left:
            code = left.code or 0
        sys.stdout.flush(), sys.stderr.flush()
        os._exit(code)
    os.close(writing)
    said, sent = [], False
    with open(reading, errors="replace") as stream:
        for text in stream:
            said.append(text)
            if asked["at"] and asked["at"] in text and not sent:
                time.sleep(asked["after_s"])
                os.kill(child, asked["signal"])
                sent = True
    _, status, usage = os.wait4(child, 0)
    answer = {"code": os.waitstatus_to_exitcode(status), "text": "".join(said), "memory": usage.ru_maxrss << 10}
    print(json.dumps(answer | {"sent": sent}), flush=True)
"""


@dataclass(frozen=True)
class Answer:
    """What a command ended with.

    Attributes:
        code: Exit code; negative where a signal ended it.
        text: Stdout and stderr together.
        memory: Largest resident set in bytes.
        sent: Whether the signal was sent.
    """

    code: int
    text: str
    memory: int
    sent: bool

    @property
    def words(self) -> str:
        """The text with all white space as single spaces."""
        return " ".join(self.text.split())


class Ask(Protocol):
    def __call__(
        self, *arguments: str, cpu_s: int = 60, at: str = "", signal: int = 2, after_s: float = 0.0
    ) -> Answer: ...


@contextmanager
def served(*extra: str) -> Iterator[Ask]:
    """Yields what runs a command line; a signal is sent when `at` is said."""
    with subprocess.Popen([sys.executable, "-c", SERVER, *extra], stdin=-1, stdout=-1, text=True) as server:
        assert server.stdin is not None
        assert server.stdout is not None

        def ask(*arguments: str, cpu_s: int = 60, at: str = "", signal: int = 2, after_s: float = 0.0) -> Answer:
            asked = {"arguments": arguments, "cpu_s": cpu_s, "at": at, "signal": signal, "after_s": after_s}
            server.stdin.write(json.dumps(asked) + "\n")
            server.stdin.flush()
            return Answer(**json.loads(server.stdout.readline()))

        yield ask
        server.stdin.close()
