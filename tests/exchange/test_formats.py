"""What is written is what is read back, in each format, and what a file cannot say is refused."""

import ast
import base64
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from gguf import GGUFReader, GGUFWriter
from safetensors import safe_open

from contrans.errors import ArtifactError, BlockError, SpecError
from contrans.exchange import FORMATS, READABLE, Shift, exported_shift, parse_foreign, read_foreign, write_content
from contrans.exchange.foreign import check_fits
from contrans.exchange.formats import check_suffix, format_named
from contrans.exchange.lm_eval import hookpoint_stem, relative_to_base
from contrans.transplants import transplant
from tests.exchange.made import RECORD, directions, shift
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


def test_a_file_of_llama_cpps_own_generator(tmp_path):
    """An int32 count, a direction for every block but the first, and the hint by llama.cpp's name of the architecture.

    github.com/ggml-org/llama.cpp at 0704760: `export_gguf` of tools/cvector-generator/cvector-generator.cpp.
    """
    writer = GGUFWriter(tmp_path / "v.gguf", "controlvector")
    writer.add_string("controlvector.model_hint", "llama")
    writer.add_int32("controlvector.layer_count", 5)
    due = directions(*range(1, 6))
    for block, direction in due.items():
        writer.add_tensor(f"direction.{block}", direction.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    found, _ = read_foreign(tmp_path / "v.gguf", "gguf")
    assert found.directions.keys() == due.keys()
    assert all(torch.equal(found.directions[b], due[b]) for b in due)
    # llama.cpp runs Mistral as "llama"
    check_fits(found, replace(RECORD, family="mistral"), what="v")
    with pytest.raises(ArtifactError, match="made for a 'llama' model, and large is a gpt2 model"):
        check_fits(found, replace(RECORD, family="gpt2"), what="v")


def test_easyedit2_as_its_sources_have_it(tmp_path):
    """`torch.load(layer_N.pt)` is one tensor, and the settings are fields of `ApplyCAAHyperParams`.

    github.com/zjunlp/EasyEdit at 14cea82: steer/vector_appliers/caa/apply_caa.py and apply_caa_hparam.py; its
    steer/vector_generators/caa/generate_caa_vectors.py writes the same files. tests/interop/test_sources.py runs them.
    """
    path = write_content(tmp_path / "v", FORMATS["easyedit2"].write(shift(2, 4)))
    assert sorted(p.name for p in path.iterdir()) == ["apply_caa.yaml", "layer_2.pt", "layer_4.pt"]
    for block, due in shift(2, 4).blocks.items():
        assert torch.equal(torch.load(path / f"layer_{block}.pt", weights_only=True), due)
    settings = yaml.safe_load((path / "apply_caa.yaml").read_text())
    assert settings == {"alg_name": "caa", "layers": [2, 4], "multipliers": [1.0, 1.0]}
    # what it writes itself
    torch.save(torch.stack([2 * due, due - 1]).mean(0), path / "layer_4.pt")
    assert torch.equal(read_foreign(path, "easyedit2")[0].directions[4], torch.stack([2 * due, due - 1]).mean(0))


def test_easysteer_as_its_sources_have_it(tmp_path):
    """A GGUF of arch "controlvector" with a `model_hint`, without which it refuses, and a `method`.

    github.com/ZJU-REAL/EasySteer at 312c6d8: `StatisticalControlVector` in easysteer/steer/utils.py, and `VectorSpec`
    in its README, which says where layers are named and that a scale of 1 adds the file's own numbers.
    """
    form = FORMATS["easysteer"]
    reader = GGUFReader(write_content(tmp_path / "v.gguf", form.write(shift(0, 4))))
    said = {name: field.contents() for name, field in reader.fields.items() if name.startswith("controlvector")}
    assert said == {
        "controlvector.model_hint": "gemma3_text",
        "controlvector.method": "contrans",
        "controlvector.layer_count": 2,
    }
    assert sorted(t.name for t in reader.tensors) == ["direction.0", "direction.4"]
    names = {"source", "scale", "layers", "apply", "phases", "vectors", "steering"}
    assert names <= {k.arg for k in ast.walk(ast.parse(form.usage(shift(4), "v.gguf"))) if isinstance(k, ast.keyword)}


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


@pytest.mark.parametrize("name", ['quote""" of', "back\\", "line\nfeed", "__SHIFTS__"])
def test_a_name_does_not_get_into_the_program_for_generate(name):
    made = Shift(name, RECORD, directions(1, 4), 0.2)
    [(path, data)] = FORMATS["huggingface"].write(made).items()
    assert path == "custom_generate/generate.py"
    tree = ast.parse(data)
    kinds = [type(node).__name__ for node in tree.body]
    assert kinds == ["Expr", "Import", "Import", *["Assign"] * 4, "FunctionDef", "FunctionDef"]
    assert {alias.name for node in tree.body if isinstance(node, ast.Import) for alias in node.names} == {
        "base64",
        "torch",
    }
    found: dict[str, Any] = {}
    exec(compile(tree, path, "exec"), found)
    assert (found["FAMILY"], found["BLOCKS"], found["WIDTH"]) == ("gemma3_text", "layers", 8)
    for block, text in found["SHIFTS"].items():
        assert np.array_equal(np.frombuffer(base64.b64decode(text), "<f4"), made.blocks[block].numpy())


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_hookpoints_are_where_the_blocks_are(architecture):
    model = tiny(architecture)
    stem = relative_to_base(model.module, model.layout.path)
    base = dict(model.module.base_model.named_modules())
    assert all(base[f"{stem}.{i}"] is block for i, block in enumerate(model.blocks))
    assert hookpoint_stem(model.record.family) == stem
