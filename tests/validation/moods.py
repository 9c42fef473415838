"""The emotion protocol on tiny models in which the right directions are planted."""

import torch

from contrans.validation.arms import Directions
from contrans.validation.emotion import EmotionProtocol
from contrans.validation.items import few_shot_prefix

BLOCK = 2


def protocol(model, family, split="test", per_label=3, **settings: str) -> EmotionProtocol:
    return EmotionProtocol(model, family, block=BLOCK, split=split, per_label=per_label, **settings)


def planted(model, family) -> Directions:
    """For each label the gradient of its log-probability over the others': what moves the answer to it."""
    p = protocol(model, family)
    stem = few_shot_prefix(family) + p.items[0].prompt
    start = len(model.tokenizer(stem)["input_ids"])
    gradient = {}
    for concept, label in zip(p.concepts, p.labels, strict=True):
        delta = torch.zeros(model.hidden_size, requires_grad=True)
        handle = model.blocks[BLOCK].register_forward_hook(lambda _m, _a, out, delta=delta: out + delta)
        ids = model.tokenizer(f"{stem} {label}", return_tensors="pt")["input_ids"]
        logp = model.module(input_ids=ids).logits[0].log_softmax(-1)
        logp[torch.arange(start - 1, ids.shape[1] - 1), ids[0, start:]].sum().backward()
        handle.remove()
        assert delta.grad is not None
        gradient[concept] = delta.grad
    mean = torch.stack(list(gradient.values())).mean(0)
    own = {c: g - mean for c, g in gradient.items()}
    rest = {c: torch.randn(model.hidden_size, generator=torch.Generator().manual_seed(i)) for i, c in enumerate(own)}
    return Directions({"transplanted": own, "own": own, "shuffled_map": rest}, residual_norm=5.0, seed=1)
