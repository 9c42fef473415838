"""Sizes of known models against transformers' own models, built without memory, and against published counts."""

import json
from pathlib import Path

import huggingface_hub
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from contrans.models import catalogue, resolve
from contrans.models.facts import ModelFacts
from contrans.models.known import KNOWN, Sizes, known_facts, tokens_seen

DISTINCT = {sizes.facts: (name, sizes) for name, sizes in KNOWN.items()}


@pytest.mark.parametrize(("name", "sizes"), DISTINCT.values(), ids=[name for name, _ in DISTINCT.values()])
def test_weights_are_those_of_transformers(name: str, sizes: Sizes) -> None:
    optional = {"num_key_value_heads": sizes.kv_heads, "head_dim": sizes.head_dim}
    config = AutoConfig.for_model(
        sizes.family,
        vocab_size=sizes.vocab_size,
        hidden_size=sizes.hidden_size,
        intermediate_size=sizes.intermediate_size,
        num_hidden_layers=sizes.n_blocks,
        num_attention_heads=sizes.heads,
        tie_word_embeddings=sizes.tied,
        **{key: value for key, value in optional.items() if value is not None},
    )
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    assert sum(weight.numel() for weight in model.parameters()) == sizes.parameters


PUBLISHED = {
    # Biderman et al. 2023, table 1
    "EleutherAI/pythia-70m": 70_426_624,
    "EleutherAI/pythia-160m": 162_322_944,
    "EleutherAI/pythia-410m": 405_334_016,
    "EleutherAI/pythia-1b": 1_011_781_632,
    "EleutherAI/pythia-1.4b": 1_414_647_808,
    "EleutherAI/pythia-2.8b": 2_775_208_960,
    "EleutherAI/pythia-6.9b": 6_857_302_016,
    "EleutherAI/pythia-12b": 11_846_072_320,
    # as the models' pages on the Hub give them
    "huggyllama/llama-7b": 6_738_415_616,
    "huggyllama/llama-13b": 13_015_864_320,
    "huggyllama/llama-65b": 65_285_660_672,
    "meta-llama/Llama-2-70b-hf": 68_976_648_192,
    "mistralai/Mistral-7B-v0.1": 7_241_732_096,
    "mistralai/Mistral-7B-v0.3": 7_248_023_552,
    "Qwen/Qwen2.5-0.5B": 494_032_768,
    "Qwen/Qwen2.5-7B": 7_615_616_512,
    "Qwen/Qwen2.5-72B": 72_706_203_648,
    "HuggingFaceTB/SmolLM2-1.7B": 1_711_376_384,
}


def test_weights_are_those_published() -> None:
    assert {name: KNOWN[name].parameters for name in PUBLISHED} == PUBLISHED


def test_the_catalogue_agrees() -> None:
    for entry in catalogue.MODELS.values():
        assert known_facts(entry.base_model) == entry.facts


def test_a_known_model_has_facts_before_it_is_fetched() -> None:
    facts = resolve("huggyllama/llama-65b").facts()
    assert facts == ModelFacts("llama", 80, 8192, 32_000, 65_285_660_672, 2048)
    assert resolve("HuggyLlama/LLaMA-65B@main").facts() == facts
    assert resolve("EleutherAI/pythia-410m-deduped@step1000").facts() == KNOWN["EleutherAI/pythia-410m"].facts
    assert resolve("org/unheard-of").facts() is None


def cached(hub: Path, identifier: str, **settings: object) -> None:
    """Puts a configuration where huggingface_hub keeps what it fetched."""
    folder = hub / f"models--{identifier.replace('/', '--')}"
    (folder / "snapshots" / "abc").mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("abc")
    (folder / "snapshots" / "abc" / "config.json").write_text(json.dumps(settings))


def test_what_was_fetched_goes_before_what_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    name, sizes = "EleutherAI/pythia-70m", KNOWN["EleutherAI/pythia-70m"]
    theirs = {"model_type": "gpt_neox", "num_hidden_layers": 6, "hidden_size": 512, "vocab_size": 50_304}
    cached(tmp_path, name, **theirs)
    # a configuration without weight files lacks their number alone
    assert resolve(name).facts() == ModelFacts("gpt_neox", 6, 512, 50_304, sizes.parameters, None)
    cached(tmp_path, "EleutherAI/pythia-160m", **theirs | {"num_hidden_layers": 7})
    assert resolve("EleutherAI/pythia-160m").facts() == ModelFacts("gpt_neox", 7, 512, 50_304, None, None)


@pytest.mark.parametrize(
    ("reference", "tokens"),
    [
        ("EleutherAI/pythia-410m-deduped@step1000", 2_097_152_000),
        ("EleutherAI/pythia-12b@step143000", 299_892_736_000),
        ("EleutherAI/pythia-70m@step0", 0),
        ("EleutherAI/pythia-70m", None),
        ("EleutherAI/pythia-70m@main", None),
        ("org/pythia-70m@step1000", None),
        ("./pythia-70m@step1000", None),
    ],
)
def test_tokens_seen(reference: str, tokens: int | None) -> None:
    assert tokens_seen(reference) == tokens
