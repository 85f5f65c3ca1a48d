from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import onnx
import pytest
from onnx import ModelProto

from bocr_onnx.errors import OutputError
from bocr_onnx.graph import check_writable, load, replacing, save, serialized_size, write_text
from bocr_onnx.graph.save import EXTERNAL_THRESHOLD_BYTES
from tests.oracle import proto

AS_ROOT = hasattr(os, "geteuid") and os.geteuid() == 0


@pytest.fixture
def model() -> ModelProto:
    text = "m (float[N, 3, 4, 4] x) => (float[N, 2, 4, 4] y) { c = Conv(x, W, b) y = Conv(c, V) }"
    return proto(text, W=(200, 3, 1, 1), b=(200,), V=(2, 200, 1, 1))


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_a_model_is_written_whole(tmp_path: Path, model: ModelProto) -> None:
    path = save(model, tmp_path / "slim.onnx")
    assert path.read_bytes() == model.SerializeToString()
    assert path.stat().st_size == serialized_size(model)
    assert names(tmp_path) == ["slim.onnx"]


def test_an_old_file_is_replaced(tmp_path: Path, model: ModelProto) -> None:
    (tmp_path / "slim.onnx").write_text("old")
    save(model, str(tmp_path / "slim.onnx"))
    assert load(tmp_path / "slim.onnx").shapes["W"] == (200, 3, 1, 1)
    assert names(tmp_path) == ["slim.onnx"]


def test_permissions_follow_the_umask(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        write_text(tmp_path / "plan.json", "{}")
    finally:
        os.umask(old)
    assert (tmp_path / "plan.json").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("error", [RuntimeError("bug"), KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "slim.onnx"
    path.write_text("old")

    def write() -> None:
        with replacing(path) as temporary:
            temporary.write_text("half of the n")
            raise error

    with pytest.raises(OutputError if isinstance(error, OSError) else type(error)) as caught:
        write()
    if isinstance(error, OSError):
        assert "No space left on device" in str(caught.value)
    assert path.read_text() == "old"
    assert names(tmp_path) == ["slim.onnx"]


def full(*_: object, **__: object) -> None:
    raise OSError(28, "No space left on device")


def test_a_full_disk_leaves_the_old_model(tmp_path: Path, model: ModelProto, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(model, tmp_path / "slim.onnx")
    before = path.read_bytes()
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OutputError, match="No space left"):
        save(model, path)
    assert path.read_bytes() == before
    assert names(tmp_path) == ["slim.onnx"]


@pytest.mark.parametrize("external", [False, True])
def test_no_room_for_a_temporary_file(
    tmp_path: Path, model: ModelProto, monkeypatch: pytest.MonkeyPatch, external: bool
) -> None:
    monkeypatch.setattr(tempfile, "mkstemp", full)
    monkeypatch.setattr(tempfile, "mkdtemp", full)
    with pytest.raises(OutputError, match=r"slim\.onnx must be writable, got No space left"):
        save(model, tmp_path / "slim.onnx", external=external)
    assert names(tmp_path) == []


def test_external_data_stays_external(tmp_path: Path, model: ModelProto) -> None:
    before = model.SerializeToString()
    path = save(model, tmp_path / "slim.onnx", external=True)
    assert model.SerializeToString() == before
    assert names(tmp_path) == ["slim.onnx", "slim.onnx.data"]
    raw = onnx.load_model(path, load_external_data=False)
    outside = {t.name for t in raw.graph.initializer if t.data_location == onnx.TensorProto.EXTERNAL}
    assert outside == {"W", "V"}
    assert all(len(t.raw_data) < EXTERNAL_THRESHOLD_BYTES for t in raw.graph.initializer)
    graph = load(path)
    assert graph.external
    assert [t.raw_data for t in graph.proto.graph.initializer] == [t.raw_data for t in model.graph.initializer]


def test_external_data_is_replaced_and_not_appended_to(tmp_path: Path, model: ModelProto) -> None:
    path = save(model, tmp_path / "slim.onnx", external=True)
    size = (tmp_path / "slim.onnx.data").stat().st_size
    save(model, path, external=True)
    assert (tmp_path / "slim.onnx.data").stat().st_size == size
    assert load(path).shapes["V"] == (2, 200, 1, 1)


def test_a_failure_while_writing_external_data_leaves_both_old_files(
    tmp_path: Path, model: ModelProto, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(model, tmp_path / "slim.onnx", external=True)
    before = [p.read_bytes() for p in sorted(tmp_path.iterdir())]
    monkeypatch.setattr(sys.modules["bocr_onnx.graph.save"], "set_external_data", full)
    with pytest.raises(OutputError, match="No space left"):
        save(model, path, external=True)
    assert [p.read_bytes() for p in sorted(tmp_path.iterdir())] == before


def test_a_folder_is_no_output(tmp_path: Path, model: ModelProto) -> None:
    with pytest.raises(OutputError, match="must be a file, got a folder") as caught:
        save(model, tmp_path)
    assert caught.value.hint == f"Try: -o {tmp_path / 'slim.onnx'}"


def test_the_folder_of_an_output_must_exist(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="must exist") as caught:
        check_writable(tmp_path / "none" / "slim.onnx")
    assert caught.value.hint == f"Try: mkdir -p {tmp_path / 'none'}"
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="must exist"):
        check_writable(tmp_path / "file" / "slim.onnx")


def test_an_unwritable_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)
    with pytest.raises(OutputError, match="got no permission"):
        check_writable(tmp_path / "slim.onnx")


def test_an_unwritable_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "slim.onnx").write_text("old")
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path / "slim.onnx")
    with pytest.raises(OutputError, match="got no permission"):
        check_writable(tmp_path / "slim.onnx")


@pytest.mark.skipif(AS_ROOT, reason="root may write anywhere")
def test_a_read_only_folder(tmp_path: Path, model: ModelProto) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(OutputError, match="got no permission"):
            save(model, tmp_path / "slim.onnx")
    finally:
        tmp_path.chmod(0o700)
