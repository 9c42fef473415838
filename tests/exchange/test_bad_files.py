"""Files that need not be trusted: every kind of damage is one of our sentences, and memory stays bounded."""

import io
import json
import pickle
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save

from contrans.errors import ArtifactError, BlockError, ContransError
from contrans.exchange import FORMATS, READABLE, Foreign, parse_foreign, read_foreign
from contrans.exchange import foreign as foreign_module
from contrans.exchange.foreign import check_fits
from contrans.exchange.torch_file import saved
from tests.exchange.made import RECORD, directions, gguf_file, shift

ROW = np.ones(8, dtype=np.float32)
FUZZ = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


class Bomb:
    def __reduce__(self):
        return exec, ("raise SystemExit('the pickle ran')",)


def refused(content, name: str, sentence: str) -> None:
    with pytest.raises(ArtifactError, match=sentence) as caught:
        parse_foreign(content, name, what="v")
    assert str(caught.value).startswith("v")


@pytest.mark.parametrize(
    ("tensors", "facts", "sentence"),
    [
        ({"direction.1": ROW}, {"arch": "llama"}, "architecture 'llama' where \"controlvector\" is due"),
        ({"output.weight": ROW}, {}, "a tensor 'output.weight', where `direction.N` is due"),
        ({"direction.x": ROW}, {}, "does not end in a block's number"),
        ({"direction.99999": ROW}, {}, "does not end in a block's number"),
        ({"direction.1": ROW, "direction.01": ROW}, {}, "does not end in a block's number"),
        ({"direction.1": ROW, "direction.2": ROW}, {"count": 3}, "is to hold 3 directions and holds 2"),
        ({"direction.1": ROW, "direction.2": ROW[:4]}, {}, "of different widths"),
        ({"direction.1": np.float32([1, np.nan])}, {}, "not finite"),
        ({"direction.1": np.float32([1, np.inf])}, {}, "not finite"),
        ({"direction.1": 0 * ROW}, {}, "nothing but zeros"),
        ({"direction.1": np.ones((2, 4), dtype=np.float32)}, {}, "where one direction is due"),
        ({"direction.1": np.ones(4, dtype=np.int32)}, {}, "as type 26; export it as float32"),
    ],
)
def test_gguf(tmp_path, tensors, facts, sentence):
    refused(gguf_file(tmp_path / "v.gguf", tensors, **facts), "gguf", sentence)


def test_a_direction_twice_in_one_gguf(tmp_path):
    data = gguf_file(tmp_path / "v.gguf", {"direction.1": ROW, "direction.2": ROW})
    refused(data.replace(b"direction.2", b"direction.1"), "gguf", "two directions for block 1")


def test_half_precision_and_other_shapes_are_read(tmp_path):
    tensors = {"direction.1": np.float16([1, 2, 3]), "direction.2": np.float64([[4, 5, 6]])}
    found = parse_foreign(gguf_file(tmp_path / "v.gguf", tensors), "easysteer", what="v")
    assert found.directions[1].tolist() == [1, 2, 3]
    assert found.directions[2].tolist() == [4, 5, 6]
    assert {t.dtype for t in found.directions.values()} == {torch.float32}


def test_what_a_gguf_says_of_itself(tmp_path):
    data = gguf_file(tmp_path / "v.gguf", {"direction.1": ROW}, more={"method": "diffmean"})
    found = parse_foreign(data, "easysteer", what="v")
    assert (found.hint, found.facts) == ("gemma3_text", {"method": "diffmean"})


def test_every_cut_of_a_gguf_is_told(tmp_path):
    data = gguf_file(tmp_path / "v.gguf", {"direction.1": ROW, "direction.3": 2 * ROW}, count=2)
    # up to the padding after the last tensor
    for length in range(len(data)):
        try:
            found = parse_foreign(data[:length], "gguf", what="v")
        except ArtifactError:
            continue
        assert all(torch.equal(found.directions[b], torch.full((8,), float(s))) for b, s in ((1, 1), (3, 2)))


@pytest.mark.parametrize(
    "header",
    [
        b"GGUF" + struct.pack("<IQQ", 3, 2**60, 1),
        b"GGUF" + struct.pack("<IQQ", 3, 1, 2**60),
        b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 2**63),
        b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q1sIIQ", 1, b"k", 9, 8, 2**61),
        b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q1sIIQ", 1, b"k", 9, 9, 2**61),
        b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q1sIIQ", 1, b"k", 9, 0, 2**61),
        b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q1sI", 1, b"k", 77),
        b"GGUF" + struct.pack("<IQQ", 1, 0, 0),
        b"GGUF" + struct.pack(">IQQ", 3, 1, 1),
        b"GGUF",
        b"",
        b"{}",
    ],
)
def test_gguf_headers_that_lie(header):
    tracemalloc.start()
    try:
        refused(header, "gguf", "v ")
        assert tracemalloc.get_traced_memory()[1] < 2**22
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (save({"block.1": torch.ones(4), "layer_1": torch.ones(4)}), "two directions for block 1"),
        (save({"weight": torch.ones(4)}), "does not end in a block's number"),
        (save({"block.1": torch.ones(4, dtype=torch.int64)}), "no tensor of floating-point numbers"),
        (save({"block.1": torch.ones(2, 4)}), "where one direction is due"),
        (save({"block.1": torch.tensor([float("nan")])}), "not finite"),
        (save({"block.1": torch.zeros(4)}), "nothing but zeros"),
        (save({"block.1": torch.ones(4)})[:-3], "cannot be read as safetensors"),
        (struct.pack("<Q", 2**40) + b"{}", "header claims"),
        (struct.pack("<Q", 2) + b"[]", "no JSON object"),
        (struct.pack("<Q", 2**14) + b"[" * 2**14, "not valid JSON"),
        (b"abc", "too short"),
        (pickle.dumps({"block.1": [1.0]}), "is a pickle or an archive"),
        (saved({"block.1": torch.ones(4)}), "is a pickle or an archive"),
    ],
)
def test_safetensors(data, sentence):
    refused(data, "safetensors", sentence)
    refused(data, "steering-vectors", sentence)


def test_a_name_twice_in_a_safetensors_header():
    entry = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
    header = json.dumps({"block.1": entry})[:-1] + "," + json.dumps({"block.1": entry})[1:]
    refused(struct.pack("<Q", len(header)) + header.encode() + b"\0\0\x80?", "safetensors", "stands there twice")


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (Bomb(), "is a pickle or an archive"),
        ({"a": torch.ones(3)}, "holds no tensor"),
        ([1.0, 2.0], "holds no tensor"),
        (torch.ones(3, dtype=torch.int64), "is a pickle or an archive"),
        (torch.nn.Linear(2, 2), "is a pickle or an archive"),
        (torch.ones(1).expand(2**30), "claims 1,073,741,824 values"),
        (torch.tensor([1, float("nan")]), "not finite"),
        (torch.zeros(3), "nothing but zeros"),
        (torch.ones(2, 3), "where one direction is due"),
    ],
)
def test_a_pt_file_that_holds_anything_but_a_tensor(value, sentence):
    refused({"layer_1.pt": saved(value)}, "easyedit2", sentence)


def test_pt_files_of_different_models():
    refused({"layer_1.pt": saved(torch.ones(3)), "layer_2.pt": saved(torch.ones(4))}, "easyedit2", "different widths")


def test_a_pt_file_that_is_a_program():
    good = saved(torch.ones(3))
    bomb = pickle.dumps(Bomb(), protocol=2)
    with zipfile.ZipFile(io.BytesIO(good)) as archive:
        entries = {e.filename: archive.read(e) for e in archive.infolist()}
    for packing in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w", packing) as archive:
            for name, data in entries.items():
                archive.writestr(name, bomb if name.endswith(".pkl") else data)
        refused({"layer_1.pt": out.getvalue()}, "easyedit2", "is a pickle or an archive")
    refused({"layer_1.pt": bomb}, "easyedit2", "is a pickle or an archive")
    refused({"layer_1.pt": b"nothing"}, "easyedit2", "no file that torch.save wrote")
    refused({"other.pt": good}, "easyedit2", "has no `layer_N.pt`")
    refused({"layer_1.pt": good, "layer_01.pt": good}, "easyedit2", "does not end in a block's number")


def test_paths_that_hold_nothing(tmp_path, monkeypatch):
    with pytest.raises(ArtifactError, match="cannot be read"):
        read_foreign(tmp_path / "no.gguf", "gguf")
    with pytest.raises(ArtifactError, match="cannot be read"):
        read_foreign(tmp_path, "gguf")
    with pytest.raises(ArtifactError, match="is no folder"):
        read_foreign(tmp_path / "no", "easyedit2")
    monkeypatch.setattr(foreign_module, "MAX_BYTES", 10)
    (tmp_path / "large.gguf").write_bytes(bytes(11))
    with pytest.raises(ArtifactError, match="larger than 10 bytes"):
        read_foreign(tmp_path / "large.gguf", "gguf")


@pytest.mark.parametrize(
    ("found", "sentence"),
    [
        (Foreign({}), "holds no direction"),
        (Foreign(directions(1, width=9)), "directions of 9 values, and the hidden states of large have 8"),
        (Foreign(directions(1, 6)), "block 6, and large has blocks 0 to 5"),
        (Foreign(directions(1), "llama"), "made for a 'llama' model, and large is a gemma3_text model"),
    ],
)
def test_of_another_model(found, sentence):
    with pytest.raises(ArtifactError, match=sentence):
        check_fits(found, RECORD, what="v")


def test_names_of_the_same_kind_of_model():
    for hint in ("gemma3", "gemma3_text", "Gemma-3", None):
        check_fits(Foreign(directions(1), hint), RECORD, what="v")
    check_fits(Foreign(directions(1), "llama"), RECORD, what="v", allow_mismatch=True)


def test_only_some_blocks():
    found = Foreign(directions(1, 2, 3))
    assert sorted(found.only([3, 1]).directions) == [1, 3]
    assert found.only([]) is found
    with pytest.raises(BlockError, match="no direction for block 9; it has 1, 2, 3"):
        found.only([9])


@pytest.mark.parametrize("name", READABLE)
@FUZZ
@given(data=st.data())
def test_anything_at_all(name, data):
    content = FORMATS[name].write(shift(1, 4))
    raw = content if isinstance(content, bytes) else content["layer_1.pt"]
    kind = data.draw(st.sampled_from(["noise", "cut", "bytes", "splice"]))
    if kind == "noise":
        raw = raw[: data.draw(st.integers(0, 8))] + data.draw(st.binary(max_size=200))
    elif kind == "cut":
        raw = raw[: data.draw(st.integers(0, len(raw)))]
    elif kind == "bytes":
        changed = bytearray(raw)
        for _ in range(data.draw(st.integers(1, 6))):
            changed[data.draw(st.integers(0, min(len(raw), 700) - 1))] = data.draw(st.integers(0, 255))
        raw = bytes(changed)
    else:
        at = data.draw(st.integers(0, len(raw)))
        raw = raw[:at] + data.draw(st.binary(max_size=16)) + raw[at + data.draw(st.integers(0, 16)) :]
    broken = raw if isinstance(content, bytes) else {**content, "layer_1.pt": raw}
    tracemalloc.start()
    try:
        found = parse_foreign(broken, name, what="v")
    except ContransError:
        found = None
    finally:
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert most < 2**24
    for direction in found.directions.values() if found else ():
        assert bool(torch.isfinite(direction).all())
        assert direction.dtype == torch.float32
        assert direction.ndim == 1
