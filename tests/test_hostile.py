"""Hostile inputs: each ends with exit code 2, in words, within 20 CPU seconds and 2 GiB."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Callable, Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from PIL import Image

from tests.served import Ask, served

DEMO, DIGITS = (str(files("bocr_onnx.calibration") / name) for name in ("demo.onnx", "digits.npz"))
CPU_S, MEMORY_BYTES = 20, 2 << 30


@pytest.fixture(scope="module")
def ask() -> Iterator[Ask]:
    with served() as found:
        yield found


TOML = 'channels = "L"\nscale = 1\nmean = [0]\nstd = [1]\n'


def text_file(name: str, text: str) -> Callable[[Path], str]:
    def make(folder: Path) -> str:
        (folder / name).write_text(text, encoding="utf-8")
        return str(folder / name)

    return make


def toml(text: str) -> Callable[[Path], list[str]]:
    def make(folder: Path) -> list[str]:
        return ["evaluate", DEMO, "--data", DIGITS, "--preprocess", text_file("p.toml", text)(folder)]

    return make


def picture(content: bytes, *options: str, name: str = "a.jpg") -> Callable[[Path], list[str]]:
    def make(folder: Path) -> list[str]:
        for i in range(4):
            (folder / "images").mkdir(exist_ok=True)
            (folder / "images" / f"{i}{name}").write_bytes(content)
        chosen = options or ("--preset", "digits")
        return [
            "prune",
            DEMO,
            "--flops",
            "0.5",
            "-o",
            str(folder / "s.onnx"),
            "--data",
            str(folder / "images"),
            *chosen,
        ]

    return make


def encoded(kind: str, image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind)
    return stream.getvalue()


def sliver(folder: Path) -> list[str]:
    described = text_file("p.toml", TOML + "resize = 224\ncrop = 8\n")(folder)
    return picture(encoded("PNG", Image.new("L", (1, 60_000))), "--preprocess", described, name="a.png")(folder)


def arrays(**made: Any) -> Callable[[Path], list[str]]:
    def make(folder: Path) -> list[str]:
        np.savez_compressed(folder / "x.npz", **made)
        return ["evaluate", DEMO, "--data", str(folder / "x.npz")]

    return make


def huge_header(folder: Path) -> list[str]:
    """Writes an array that declares 64 TiB and holds nothing."""
    header = "{'descr': '|u1', 'fortran_order': False, 'shape': (70368744177664, 1, 1), }".ljust(117) + "\n"
    with zipfile.ZipFile(folder / "x.npz", "w") as archive:
        archive.writestr("images.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode())
    return ["evaluate", DEMO, "--data", str(folder / "x.npz")]


def inflated(folder: Path) -> list[str]:
    """Writes an array of 3 GiB of zeros that nobody asked for, and one that is wanted."""
    with zipfile.ZipFile(folder / "x.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name in ("images.npy", "extra.npy"):
            with archive.open(name, "w", force_zip64=True) as member:
                n = 3 << 10 if name == "extra.npy" else 0
                np.lib.format.write_array_header_1_0(
                    member, {"descr": "|u1", "fortran_order": False, "shape": (max(n << 20, 1), 1, 1)}
                )
                for _ in range(n // 64):
                    member.write(bytes(64 << 20))
                if not n:
                    member.write(b"0")
    return ["evaluate", DEMO, "--data", str(folder / "x.npz")]


def plan(text: str) -> Callable[[Path], list[str]]:
    def make(folder: Path) -> list[str]:
        return ["apply", DEMO, text_file("plan.json", text)(folder), "-o", str(folder / "s.onnx")]

    return make


def option(*given: str) -> Callable[[Path], list[str]]:
    def make(folder: Path) -> list[str]:
        return ["prune", DEMO, "--flops", "0.5", "--data", DIGITS, "-o", str(folder / "s.onnx"), *given]

    return make


def run_folder(name: str, text: str) -> Callable[[Path], list[str]]:
    def make(folder: Path) -> list[str]:
        (folder / "run").mkdir()
        text_file(f"run/{name}", text)(folder)
        return ["prune", DEMO, "--resume", str(folder / "run")]

    return make


def model(content: bytes | Callable[[], onnx.ModelProto]) -> Callable[[Path], list[str]]:
    def make(folder: Path) -> list[str]:
        made = content if isinstance(content, bytes) else content().SerializeToString()
        (folder / "m.onnx").write_bytes(made)
        return ["inspect", str(folder / "m.onnx")]

    return make


def nested(depth: int = 3_000) -> onnx.ModelProto:
    node, info = onnx.helper.make_node, onnx.helper.make_tensor_value_info
    opsets = [onnx.helper.make_opsetid("", 17), onnx.helper.make_opsetid("f", 1)]
    functions = [
        onnx.helper.make_function("f", f"g{i}", ["x"], ["y"], [node(f"g{i + 1}", ["x"], ["y"], domain="f")], opsets)
        for i in range(depth)
    ]
    functions.append(onnx.helper.make_function("f", f"g{depth}", ["x"], ["y"], [node("Relu", ["x"], ["y"])], opsets))
    graph = onnx.helper.make_graph(
        [node("g0", ["x"], ["y"], domain="f")], "m", [info("x", 1, [1])], [info("y", 1, [1])]
    )
    return onnx.helper.make_model(graph, functions=functions, opset_imports=opsets)


def outside(*, in_function: bool) -> onnx.ModelProto:
    tensor = onnx.TensorProto(name="w", data_type=1, dims=[4], data_location=onnx.TensorProto.EXTERNAL)
    for key, value in (("location", "../../etc/passwd"), ("length", "16")):
        tensor.external_data.add(key=key, value=value)
    node, info = onnx.helper.make_node, onnx.helper.make_tensor_value_info
    constant = node("Constant", [], ["w"], value=tensor)
    opsets = [onnx.helper.make_opsetid("", 17), onnx.helper.make_opsetid("f", 1)]
    body = [constant, node("Add", ["x", "w"], ["y"])]
    functions = [onnx.helper.make_function("f", "g", ["x"], ["y"], body, opsets)] if in_function else []
    nodes = [node("g", ["x"], ["y"], domain="f")] if in_function else body
    graph = onnx.helper.make_graph(nodes, "m", [info("x", 1, [4])], [info("y", 1, [4])])
    return onnx.helper.make_model(graph, functions=functions, opset_imports=opsets)


def vast() -> onnx.ModelProto:
    text = '<ir_version: 8, opset_import: ["" : 17]> m (float[1] x) => (float[A, B] y) { y = Expand(x, s) }'
    made = onnx.parser.parse_model(text)
    made.graph.initializer.append(onnx.numpy_helper.from_array(np.array([1 << 20, 1 << 20]), "s"))
    return made


HOSTILE: dict[str, tuple[Callable[[Path], list[str]], str]] = {
    "PostScript named .jpg": (picture(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\nshowpage\n"), "image must be"),
    "sliver": (sliver, "at most 67108864 pixels"),
    "truncated image": (picture(encoded("PNG", Image.new("L", (64, 64)))[:40], name="a.png"), "image must be readable"),
    "empty image": (picture(b""), "image must be readable"),
    "text as image": (picture(b"hello", name="a.png"), "image must be readable"),
    "deep image": (picture(encoded("PNG", Image.new("I;16", (8, 8))), name="a.png"), "8 bits a channel"),
    "npz of 64 TiB": (huge_header, "declares 70368744177664 bytes"),
    "npz of unwanted arrays": (inflated, "array 'extra' must be a known one"),
    "npz of objects": (arrays(images=np.array([{}], dtype=object)), "without pickled objects"),
    "npz of another shape": (arrays(images=np.zeros((3, 2), np.uint8)), "must be (N, H, W)"),
    "npz of nothing": (arrays(labels=np.zeros(3, np.int64)), "must have an array 'images'"),
    "npz of NaN": (arrays(images=np.full((4, 1, 8, 8), np.nan, np.float32)), "must be finite"),
    "resize of 10^9": (toml(TOML + "resize = 1000000000\n"), "resize must be"),
    "crop of 10^9": (toml(TOML + "crop = [1000000000, 8]\n"), "crop must be"),
    "pad of 10^9": (toml(TOML + "[augment]\npad = 1000000000\n"), "augment.pad must be"),
    "400 digits": (toml(TOML.replace("scale = 1", f"scale = 1{'0' * 400}")), "scale must be"),
    "5,000 digits": (toml(TOML.replace("scale = 1", f"scale = 1{'0' * 5000}")), "must be valid TOML"),
    "5,000 brackets": (toml(TOML + f"resize = {'[' * 5000}{']' * 5000}\n"), "must be valid TOML"),
    "infinity in single precision": (toml(TOML.replace("std = [1]", "std = [1e-60]")), "std must be"),
    "preprocessing from a device": (
        lambda folder: ["evaluate", DEMO, "--data", DIGITS, "--preprocess", "/dev/zero"],
        "not a regular file",
    ),
    "plan from a device": (
        lambda folder: ["apply", DEMO, "/dev/zero", "-o", str(folder / "s.onnx")],
        "not a regular file",
    ),
    "plan that is not JSON": (plan("{"), "must be JSON"),
    "plan of brackets": (plan("[" * 100_000), "must be JSON"),
    "plan that is a list": (plan("[]"), "plan"),
    "trials of 10^30": (option("--trials", f"1{'0' * 30}"), "--trials must be at most"),
    "images of 10^30": (option("--score-images", f"1{'0' * 30}"), "--score-images must be at most"),
    "options that are a list": (run_folder("run.json", "[]"), "must hold the options of a run"),
    "options of brackets": (run_folder("run.json", "[" * 100_000), "must hold the options of a run"),
    "half a model": (model(Path(DEMO).read_bytes()[:-2000]), "must be"),
    "text as a model": (model(b"hello"), "must be an ONNX file"),
    "functions nested 3,000 deep": (model(nested), "nested at most 200 deep"),
    "data outside the folder": (model(lambda: outside(in_function=False)), "must be in the model's folder"),
    "function data outside the folder": (model(lambda: outside(in_function=True)), "must be in the model's folder"),
    "a tensor of 4 TiB": (model(vast), "must have at most"),
    "model from a device": (lambda folder: ["inspect", "/dev/zero"], "a device or a pipe"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_input_is_refused_in_words(name: str, ask: Ask, tmp_path: Path) -> None:
    make, said = HOSTILE[name]
    answer = ask(*make(tmp_path), cpu_s=CPU_S)
    assert answer.code == 2, answer.text
    assert "error:" in answer.text
    assert said in answer.words, answer.text
    assert "Traceback" not in answer.text
    assert answer.memory < MEMORY_BYTES
    assert not (tmp_path / "s.onnx").exists()
