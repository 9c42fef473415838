"""Encoder-only models as a source: found, loaded, read and refined like any other."""

from pathlib import Path

import pytest
import torch
from tokenizers import processors
from transformers import CONFIG_MAPPING, AutoModel, AutoModelForMaskedLM, PreTrainedModel, PreTrainedTokenizerFast
from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

from contrans.concepts import ContrastSet, encoders, refine
from contrans.errors import ModelError, TextError
from contrans.models import Model, load_model
from contrans.models.loading import auto_class
from contrans.states import capture
from contrans.states.encode import encode
from tests.tiny import VOCAB_SIZE, tiny_config, tiny_tokenizer

ENCODERS = {
    "bert": "encoder.layer",
    "roberta": "encoder.layer",
    "xlm-roberta": "encoder.layer",
    "distilbert": "transformer.layer",
    "electra": "encoder.layer",
    "albert": "encoder.albert_layer_groups",
    "modernbert": "layers",
    "deberta-v2": "encoder.layer",
    "mpnet": "encoder.layer",
}
TEXTS = ["the cat sat", "one stone alone on a mountain", "x", "they think the weather is the weather there"]


def encoder_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer that puts a text between two special tokens, as encoders read it."""
    tokenizer = tiny_tokenizer()
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> $B </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    return tokenizer


def encoder(architecture: str, *, masked: bool = False) -> PreTrainedModel:
    special = (
        {"cls_token_id": 1, "sep_token_id": 2, "global_attn_every_n_layers": 2} if "modern" in architecture else {}
    )
    config = tiny_config(architecture, **special)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = (AutoModelForMaskedLM if masked else AutoModel).from_config(config, dtype=torch.float32)
        for parameter in module.parameters():
            parameter.data.add_(torch.randn_like(parameter) * (0.15 if parameter.dim() > 1 else 0.02))
    return module.eval()


def plain_states(model: Model, text: str) -> list[torch.Tensor]:
    """All block outputs [tokens, d] of one text, in the order in which blocks run, by plain hooks."""
    out: list[torch.Tensor] = []
    handles = [
        block.register_forward_hook(lambda _m, _a, o: out.append((o if isinstance(o, torch.Tensor) else o[0])[0]))
        for block in model.module.get_submodule(model.layout.path).children()
    ]
    with torch.inference_mode():
        encoded = model.tokenizer(text, return_tensors="pt")
        model.module(input_ids=encoded["input_ids"], attention_mask=encoded["attention_mask"])
    for handle in handles:
        handle.remove()
    return out


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("architecture", ENCODERS)
def test_states_equal_plain_hooks(architecture: str, masked: bool) -> None:
    model = Model.wrap(encoder(architecture, masked=masked), encoder_tokenizer())
    assert model.layout.path.endswith(ENCODERS[architecture])
    assert (model.n_blocks, model.hidden_size, len(model.blocks)) == (4, 32, 4)
    last, first = capture(model, TEXTS), capture(model, TEXTS, position=0, blocks=[1, 3], batch_tokens=1)
    for i, text in enumerate(TEXTS):
        expected = plain_states(model, text)
        assert len(expected) == 4
        for block, states in enumerate(expected):
            # the last token of the text itself; the one after it is the tokenizer's
            torch.testing.assert_close(last[block][i], states[-2], rtol=1e-4, atol=1e-4)
        for block in (1, 3):
            torch.testing.assert_close(first[block][i], expected[block][0], rtol=1e-4, atol=1e-4)


def test_blocks_of_shared_weights_are_told_apart_by_their_turn() -> None:
    model = Model.wrap(encoder("albert"), encoder_tokenizer())
    assert len(set(model.blocks)) == 1
    ran = []
    handle = model.blocks[0].register_forward_hook(lambda _m, _a, _o: ran.append(1))
    made = capture(model, TEXTS, blocks=[1, 2], batch_tokens=10_000)
    handle.remove()
    assert len(ran) == 3
    assert not torch.allclose(made[1], made[2], atol=1e-2)
    assert not any(block._forward_hooks for block in model.blocks)


def test_the_families_that_read_both_ways_are_those_that_load_as_encoders() -> None:
    families = set()
    for family in MODEL_FOR_MASKED_LM_MAPPING_NAMES:
        config = CONFIG_MAPPING[family]()
        if auto_class(config) is AutoModel:
            families.add(family)
    assert families == encoders.ENCODERS


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("architecture", ENCODERS)
def test_folders_load_as_encoders(architecture: str, masked: bool, tmp_path: Path) -> None:
    module = encoder(architecture, masked=masked)
    module.save_pretrained(tmp_path)
    encoder_tokenizer().save_pretrained(tmp_path)
    model = load_model(tmp_path)
    assert not getattr(model.module.config, "is_decoder", False)
    assert not model.module.can_generate()
    expected = capture(Model.wrap(module, encoder_tokenizer()), TEXTS)
    made = capture(model, TEXTS)
    for block in range(4):
        torch.testing.assert_close(made[block], expected[block])
    with pytest.raises(ModelError, match="encoder and cannot generate"):
        model.complete("the cat")


@pytest.mark.parametrize("architecture", ENCODERS)
def test_concepts_are_refined_at_the_texts_own_tokens(architecture: str) -> None:
    model = Model.wrap(encoder(architecture), encoder_tokenizer())
    pairs = [(f"the cat {i} sat", f"one stone {i} sat") for i in range(4)]
    contrast = ContrastSet.from_pairs("c", pairs)
    last = refine(model, contrast, split=None, blocks=[2], position="last")
    gaps = [plain_states(model, p)[2][-2] - plain_states(model, n)[2][-2] for p, n in pairs]
    torch.testing.assert_close(last.directions[2], torch.stack(gaps).mean(0), rtol=1e-3, atol=1e-4)
    usual = refine(model, contrast, split=None, blocks=[2])
    gaps = [plain_states(model, p)[2][1:-1].mean(0) - plain_states(model, n)[2][1:-1].mean(0) for p, n in pairs]
    torch.testing.assert_close(usual.directions[2], torch.stack(gaps).mean(0), rtol=1e-3, atol=1e-4)
    assert usual.provenance["position"] == "mean"
    words = refine(model, contrast, split=None, blocks=[2], position="span:sat")
    assert bool(torch.isfinite(words.directions[2]).all())


@pytest.mark.parametrize(("architecture", "limit"), [("bert", 256), ("roberta", 255), ("mpnet", 254)])
def test_the_first_learned_positions_may_serve_no_token(architecture: str, limit: int) -> None:
    model = Model.wrap(encoder(architecture), encoder_tokenizer())
    assert model.context_length == limit
    text = "x" * (limit - 2)
    assert len(encode(model, [text]).ids[0]) == limit
    assert bool(torch.isfinite(capture(model, [text], blocks=[0])[0]).all())
    with pytest.raises(TextError, match=f"reads at most {limit}"):
        capture(model, [text + "x"])


def test_the_vocabulary_fits() -> None:
    assert len(encoder_tokenizer()) <= VOCAB_SIZE
