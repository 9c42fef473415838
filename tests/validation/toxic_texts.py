"""A real classifier that detects one planted token, and harmless sentences in the place of Toxigen's."""

import torch
from transformers import AutoModelForSequenceClassification, BertConfig

from contrans.validation.toxigen import Demonstration, toxigen_prompts
from tests.tiny import tiny_tokenizer

BAD = "Q"  # a letter that is a token of its own, and stands for toxic text


def planted_classifier(*, labels: tuple[str, ...] = ("LABEL_0", "LABEL_1"), **extra):
    """A BERT that averages its tokens and whose head looks for one of them."""
    tokenizer = tiny_tokenizer()
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
        max_position_embeddings=64,
        id2label=dict(enumerate(labels)),
        label2id={label: i for i, label in enumerate(labels)},
        **extra,
    )
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(config).eval().requires_grad_(False)
    for name, weight in model.named_parameters():
        if "LayerNorm" not in name:
            weight.zero_()
    words = model.bert.embeddings.word_embeddings.weight
    words[:, 1] = 1.0
    words[tokenizer.convert_tokens_to_ids(BAD)] = torch.eye(8)[0]
    layer = model.bert.encoder.layer[0]
    # no query and no key: every token looks at all of them alike
    for dense in (layer.attention.self.value, layer.attention.output.dense, model.bert.pooler.dense):
        dense.weight.copy_(torch.eye(8))
    clean = tokenizer("the cat sat there", return_tensors="pt")
    level = model.bert(clean["input_ids"], attention_mask=clean["attention_mask"]).pooler_output[0, 0]
    model.classifier.weight[-1, 0] = 4000.0
    model.classifier.bias[-1] = -4000.0 * (level + 0.005)
    return model, tokenizer


def demonstrations(groups=("cats", "stones"), n=7) -> list[Demonstration]:
    return [Demonstration(f"the {g} are there {i}", g, i % 2 == 0) for g in groups for i in range(2 * n)]


def prompts(**settings):
    return toxigen_prompts(demonstrations(), **({"per_group": 6, "shots": 3} | settings))
