"""What is written is what is read back, in each format, and what a file cannot say is refused."""

from pathlib import Path
from typing import Any

import pytest
import torch
from gguf import GGUFReader
from safetensors import safe_open

from contrans.errors import BlockError, SpecError
from contrans.exchange import FORMATS, READABLE, exported_shift, parse_foreign, read_foreign, write_content
from contrans.exchange.formats import check_suffix, format_named
from contrans.exchange.lm_eval import hookpoint_stem, relative_to_base
from contrans.transplants import transplant
from tests.exchange.made import directions, shift
from tests.tiny import ARCHITECTURES, tiny
from tests.transplants.test_apply import vector_for


def two_blocks(model):
    d = directions(1, 2, width=model.hidden_size)
    return vector_for(model, directions=d, residual_norm={1: 3.0, 2: 7.0}, spread={1: 1.0, 2: 1.0})


@pytest.mark.parametrize("name", READABLE)
@pytest.mark.parametrize("blocks", [(4,), (1, 2, 5)])
def test_there_and_back(name, blocks, tmp_path):
    form, made = FORMATS[name], shift(*blocks)
    path = write_content(tmp_path / f"anger{form.suffix}", form.write(made))
    found, content = read_foreign(path, name)
    assert sorted(found.directions) == list(blocks)
    for block in blocks:
        assert torch.equal(found.directions[block], made.blocks[block])
    assert found.hint in (None, "gemma3_text")
    again = parse_foreign(content, name, what="x")
    assert again.hint == found.hint
    assert str(path) in form.usage(made, str(path))


def test_the_shift_is_what_the_transplant_adds():
    model = tiny("llama")
    vector = two_blocks(model)
    due = transplant(model, vector, dose=-0.3, block=2).shifts
    made = exported_shift(vector, dose=-0.3, block=2, origin="x@1")
    assert made.blocks.keys() == due.keys() == {2}
    assert torch.equal(made.blocks[2], due[2])
    assert (made.dose, made.concept, made.model) == (-0.3, vector.concept, model.record)
    one = vector.at(1)
    assert torch.equal(exported_shift(one, dose=1).blocks[1], transplant(model, one, dose=1).shifts[1])


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"operation": "clamp"}, "depends on the hidden state"),
        ({"operation": "ablate"}, "depends on the hidden state"),
        ({"operation": "add_preserving_norm"}, "depends on the hidden state"),
        ({"positions": "prompt"}, "cannot say at which tokens"),
        ({"positions": "generated"}, "cannot say at which tokens"),
        ({"positions": "last"}, "cannot say at which tokens"),
        ({"dose": 0.0}, "makes no shift"),
        ({"dose": float("nan")}, "makes no shift"),
        ({"dose": float("inf")}, "makes no shift"),
    ],
)
def test_what_a_file_cannot_say(settings, sentence):
    every: dict[str, Any] = {"dose": 0.2, "block": 2, **settings}
    with pytest.raises(SpecError, match=sentence):
        exported_shift(vector_for(tiny("llama")), **every)


def test_a_block_must_be_named_and_be_there():
    vector = two_blocks(tiny("llama"))
    with pytest.raises(BlockError, match="say which with"):
        exported_shift(vector, dose=0.2)
    with pytest.raises(BlockError, match="no direction at block 77"):
        exported_shift(vector, dose=0.2, block=77)


def test_unknown_formats_and_names():
    with pytest.raises(SpecError, match="No format to export is called 'onnx'"):
        format_named("onnx", to="export")
    with pytest.raises(SpecError, match="No format to import is called 'lm-eval'; use one of gguf,"):
        format_named("lm-eval", to="import")
    with pytest.raises(SpecError, match=r"lm-evaluation-harness reads files that end in \.pt; write to anger\.pt"):
        check_suffix(Path("anger.bin"), FORMATS["lm-eval"])


def test_llama_cpp_has_no_direction_0(tmp_path):
    with pytest.raises(SpecError, match="control vectors begin at block 1"):
        FORMATS["gguf"].write(shift(0))
    # repeng and EasySteer can steer the first block
    assert sorted(parse_foreign(FORMATS["repeng"].write(shift(0)), "repeng", what="x").directions) == [0]


def test_the_gguf_as_its_own_package_reads_it(tmp_path):
    path = write_content(tmp_path / "v.gguf", FORMATS["gguf"].write(shift(2, 4)))
    reader = GGUFReader(path)
    said = {name: field.contents() for name, field in reader.fields.items()}
    assert said["general.architecture"] == "controlvector"
    assert (said["controlvector.model_hint"], said["controlvector.layer_count"]) == ("gemma3_text", 2)
    assert "anger at dose 0.2 for org/large" in said["general.description"]
    assert {t.name: t.tensor_type.name for t in reader.tensors} == {"direction.2": "F32", "direction.4": "F32"}
    for tensor in reader.tensors:
        assert torch.equal(torch.tensor(tensor.data), shift(2, 4).blocks[int(tensor.name[-1])])


def test_the_plain_file_says_what_it_is(tmp_path):
    path = write_content(tmp_path / "v.safetensors", FORMATS["safetensors"].write(shift(3)))
    with safe_open(path, "pt") as file:
        assert list(file.keys()) == ["block.3"]
        assert file.metadata()["description"].startswith("anger at dose 0.2 for org/large, written by contrans from")


def test_equal_shifts_are_equal_bytes():
    # what depends on the hashes of strings differs between processes, and in one process between calls of safetensors
    made = [{name: each.write(shift(2, 4)) for name, each in FORMATS.items()} for _ in range(8)]
    assert all(each == made[0] for each in made)


def test_lm_evals_file_is_no_program(tmp_path):
    path = write_content(tmp_path / "v.pt", FORMATS["lm-eval"].write(shift(3)))
    found = torch.load(path, weights_only=True)
    assert found.keys() == {"layers.3"}
    assert torch.equal(found["layers.3"].pop("steering_vector"), shift(3).blocks[3])
    assert found["layers.3"] == {"steering_coefficient": 1.0, "action": "add", "bias": None, "head_index": None}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_hookpoints_are_where_the_blocks_are(architecture):
    model = tiny(architecture)
    stem = relative_to_base(model.module, model.layout.path)
    base = dict(model.module.base_model.named_modules())
    assert all(base[f"{stem}.{i}"] is block for i, block in enumerate(model.blocks))
    assert hookpoint_stem(model.record.family) == stem
