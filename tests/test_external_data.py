"""External data: mapped, inside the model's folder only, of any size, or given in memory."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Sequence

import numpy as np
import onnx
import onnxruntime
import pytest
from model_cases import FLOAT, model, node, outcome
from onnx import TensorProto
from reference import IS_NEW

import jitrt
from jitrt.fusion import importer

onnxruntime.set_default_logger_severity(4)


def external(
    location: str | None, offset: object = None, length: object = None, shape: Sequence[int] = (4,), kind: int = FLOAT
) -> onnx.ModelProto:
    tensor = TensorProto(name="w", data_type=kind, dims=shape, data_location=TensorProto.EXTERNAL)
    for key, given_ in (("location", location), ("offset", offset), ("length", length)):
        if given_ is not None:
            tensor.external_data.add(key=key, value=str(given_))
    return model([node("Add", ["x", "w"], ["y"])], weights=[tensor])


@pytest.fixture
def folder(tmp_path) -> pathlib.Path:
    """A folder with data in it, beside a file that must not be read."""
    inside = tmp_path / "model"
    inside.mkdir()
    (tmp_path / "secret.bin").write_bytes(np.ones(4, np.float32).tobytes())
    (inside / "in.bin").write_bytes(np.arange(1, 5, dtype=np.float32).tobytes())
    (inside / "link.bin").symlink_to(tmp_path / "secret.bin")
    (inside / "inner.bin").symlink_to(inside / "in.bin")
    (inside / "up").symlink_to(tmp_path)
    return inside


READ = {
    "whole": ("in.bin",),
    "dotted": ("./in.bin",),
    "up and down": ("../model/in.bin",),
    "link inside": ("inner.bin",),
    "offset and length": ("in.bin", 4, 8, (2,)),
}
REFUSED = {
    "parent": ("../secret.bin",),
    "absolute": ("/etc/passwd",),
    "link to outside": ("link.bin",),
    "linked folder": ("up/secret.bin",),
    "missing": ("no.bin",),
    "a folder": (".",),
    "no location": (None,),
    "beyond the end": ("in.bin", 8),
    "length too small": ("in.bin", 0, 8),
    "length too large": ("in.bin", 0, 64),
    "negative offset": ("in.bin", -4),
    "offset no number": ("in.bin", "a"),
}


@pytest.mark.parametrize("case", READ)
@pytest.mark.filterwarnings("ignore")
def test_external_data_is_read_as_by_onnxruntime(case, folder):
    path, x = folder / "m.onnx", np.float32([1])
    onnx.save(external(*READ[case]), path)
    got, expected = (runtime.InferenceSession(path).run(None, {"x": x})[0] for runtime in (jitrt, onnxruntime))
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.filterwarnings("ignore")
def test_external_data_is_refused_as_by_onnxruntime(case, folder):
    path = folder / "m.onnx"
    onnx.save(external(*REFUSED[case]), path)
    with pytest.raises(jitrt.Fail, match="'w'"):
        jitrt.InferenceSession(path)
    if IS_NEW:  # an old one reads what lies outside the folder, and has another name for the other mistakes
        assert outcome(lambda: onnxruntime.InferenceSession(path).run(None, {"x": np.float32([1])})) == "Fail"


def test_external_data_beside_the_file_that_a_model_links_to_is_read(folder, tmp_path):
    store = tmp_path / "blobs"
    store.mkdir()
    (store / "data").write_bytes(np.arange(4, dtype=np.float32).tobytes())
    onnx.save(external("w.bin"), store / "model")
    (folder / "m.onnx").symlink_to(store / "model")
    (folder / "w.bin").symlink_to(store / "data")
    (y,) = jitrt.InferenceSession(folder / "m.onnx").run(None, {"x": np.float32([1])})
    np.testing.assert_array_equal(y, [1, 2, 3, 4])


def test_external_data_of_bytes_lies_in_the_working_directory_or_where_the_options_say(folder, monkeypatch):
    data = external("in.bin").SerializeToString()
    options = jitrt.SessionOptions()
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(folder))
    for chosen in (options, None):
        if chosen is None:
            monkeypatch.chdir(folder)
        (y,) = jitrt.InferenceSession(data, chosen).run(None, {"x": np.float32([1])})
        np.testing.assert_array_equal(y, [2, 3, 4, 5])


def test_external_data_may_be_given_in_memory():
    data = np.float32([10, 20, 30, 40, 50])
    options = jitrt.SessionOptions()
    options.add_external_initializers_from_files_in_memory(["in.bin"], [data.tobytes()], [20])
    (y,) = jitrt.InferenceSession(external("in.bin", 4).SerializeToString(), options).run(None, {"x": np.float32([1])})
    np.testing.assert_array_equal(y, [21, 31, 41, 51])


def test_initializers_may_be_given_in_place_of_the_models(folder):
    for name in ("add_initializer", "add_external_initializers"):
        options = jitrt.SessionOptions()
        given_ = jitrt.OrtValue.ortvalue_from_numpy(np.float32([7, 8, 9, 10]))
        getattr(options, name)(*(("w", given_) if name == "add_initializer" else (["w"], [given_])))
        (y,) = jitrt.InferenceSession(external("missing.bin"), options).run(None, {"x": np.float32([1])})
        np.testing.assert_array_equal(y, [8, 9, 10, 11])
    options.add_initializer("w", jitrt.OrtValue.ortvalue_from_numpy(np.float32([7])))
    with pytest.raises(jitrt.Fail, match=r"'w': float32\[4\] expected, float32\[1\] given"):
        jitrt.InferenceSession(external("missing.bin"), options)


def test_unaligned_and_packed_external_data_are_read(folder):
    (folder / "odd.bin").write_bytes(b"\0" + np.arange(1, 5, dtype=np.float32).tobytes())
    onnx.save(external("odd.bin", 1), folder / "m.onnx")
    (y,) = jitrt.InferenceSession(folder / "m.onnx").run(None, {"x": np.float32([1])})
    np.testing.assert_array_equal(y, [2, 3, 4, 5])
    (folder / "four.bin").write_bytes(bytes([0x21, 0xF3, 0x07]))
    made = external("four.bin", 0, 3, (5,), TensorProto.INT4)
    made.graph.node[0].input[1] = "x"
    made.opset_import[0].version = 25
    onnx.save(made, folder / "m.onnx")
    found = importer.load(folder / "m.onnx").graph.constants["w"]
    np.testing.assert_array_equal(found.astype(np.int32), [1, 2, 3, -1, 7])


def test_external_data_is_mapped_not_read_and_may_be_larger_than_2_gb(folder):
    size = 2_500_000_000
    with open(folder / "huge.bin", "wb") as file:
        file.truncate(size)
        file.seek(size - 16)
        file.write(np.float32([1, 2, 3, 4]).tobytes())
    made = external("huge.bin", size - 16)
    whole = TensorProto(name="whole", data_type=FLOAT, dims=[size // 4], data_location=TensorProto.EXTERNAL)
    whole.external_data.add(key="location", value="huge.bin")
    made.graph.initializer.append(whole)
    onnx.save_model(made, folder / "m.onnx")
    before = resident()
    graph = importer.load(folder / "m.onnx").graph
    (y,) = jitrt.InferenceSession(folder / "m.onnx").run(None, {"x": np.float32([1])})
    np.testing.assert_array_equal(y, [2, 3, 4, 5])
    assert graph.constants["whole"].nbytes == size
    assert not graph.constants["whole"].flags.writeable
    assert resident() - before < 1 << 30


def resident() -> int:
    """Bytes of memory that the process uses."""
    pages = pathlib.Path("/proc/self/statm")
    return int(pages.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if pages.exists() else 0
