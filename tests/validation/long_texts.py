"""A tiny model's long texts: shifts towards a token, and the value of one window."""

import math

import torch

from contrans.validation.stability import Stability
from contrans.validation.stability_result import StabilityResult, WindowRow
from contrans.validation.text_measures import Limits

PROMPTS = ["the cat", "they think of one stone", "there"]
BLOCK = 3
NORM = 5.0
CALM = Limits(repetition=1.0, dominance=1.0, surprise=math.inf)


def embedding(model, token: str) -> torch.Tensor:
    weight = model.module.get_input_embeddings().weight
    return weight[model.tokenizer.convert_tokens_to_ids(token)] - weight.mean(0)


def towards(model, token: str, size: float) -> dict[int, torch.Tensor]:
    row = model.module.get_output_embeddings().weight[model.tokenizer.convert_tokens_to_ids(token)]
    return {BLOCK: row / row.norm() * size}


def stability(model, **settings) -> Stability:
    direction = embedding(model, "b")
    return Stability(model, **{"block": 0, "direction": direction, "residual_norm": NORM, "limits": CALM} | settings)


def value(result: StabilityResult, arm: str, metric: str, window: int) -> WindowRow:
    return next(r for r in result.window_rows if (r.arm, r.metric, r.window) == (arm, metric, window))
