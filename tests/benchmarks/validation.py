"""Validation against full forwards: six emotions × 7 doses × 7 arms on the quickstart's dev items.

Both sides read the same prompts and reduce logits alike, so only the forward passes differ: ours keeps what lies below
the block and the shared prefix; the other runs every prompt whole, padded, in batches of as many tokens, and its head,
in bf16 once and for all as ours, on the last token alone.
"""

import time
from collections.abc import Sequence
from itertools import product

import numpy as np
import torch

import contrans
from contrans.concepts import contrast_sets
from contrans.models import Model
from contrans.states.encode import batches, pad_right
from contrans.states.precision import autocast, resolve_precision
from contrans.transplants import Transplant
from contrans.validation.emotion import EmotionProtocol
from contrans.validation.resuming import head_for, language_head
from contrans.validation.vocabulary import total_and_best

from .ratio import Benchmark, Ratio, seconds

BLOCK = 14
"""Of 18: relative depth .78, as in the quickstart."""
CONCEPTS, ARMS = 6, 7
DOSES = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4)
RESIDUAL_NORM = 19_300.0
PER_LABEL, BATCH_TOKENS = 8, 4096
FULL_SAMPLE = 3
TOLERANCE = 1e-4


def all_shifts(width: int) -> list[torch.Tensor]:
    """One shift [d] per concept, dose and arm. What a pass costs does not depend on where a shift points."""
    generator = torch.Generator().manual_seed(0)
    directions = torch.randn(ARMS, CONCEPTS, width, generator=generator)
    directions = directions / directions.norm(dim=-1, keepdim=True)
    return [directions[a, c] * (d * RESIDUAL_NORM) for a, d, c in product(range(ARMS), DOSES, range(CONCEPTS))]


class FullForwards:
    """The protocol's prompts run whole under `Transplant`, as a plain evaluation does it."""

    def __init__(self, model: Model, protocol: EmotionProtocol, precision: str) -> None:
        """Tokenises and pads; nothing runs yet."""
        self._model, self._precision = model, precision
        text = protocol._prefix_text
        rows = [model.tokenizer(text + e.prompt)["input_ids"] for e in protocol.items]
        self._labels = [ids[0] for ids in protocol._label_ids]
        self._n = len(rows)
        weight = language_head(model).weight
        bf16 = precision == "bfloat16"
        self._head = torch.nn.Parameter(weight.to(torch.bfloat16), requires_grad=False) if bf16 else None
        self._batches = [
            (group, *pad_right([rows[i] for i in group], model.pad_token_id))
            for group in batches([len(r) for r in rows], batch_tokens=BATCH_TOKENS)
        ]

    def score(self, shift: torch.Tensor) -> np.ndarray:
        """Log-probability of each label's token after each prompt, float64 [items, labels]."""
        out = np.empty((self._n, len(self._labels)))
        for group, ids, mask in self._batches:
            last = torch.arange(ids.shape[1]) == mask.sum(1)[:, None] - 1
            with (
                torch.inference_mode(),
                autocast(self._model.device, self._precision),
                Transplant(self._model, {BLOCK: shift}),
                head_for(self._model, last, self._head),
            ):
                logits = self._model.module(input_ids=ids, attention_mask=mask, **self._model.no_cache).logits[:, 0]
            total, _ = total_and_best(logits)
            out[group] = (logits[:, self._labels].float() - total[:, None]).double().numpy()
        return out


def _protocol(model: Model, precision: str, per_label: int = PER_LABEL) -> EmotionProtocol:
    family = contrast_sets(["emotion/*"])
    return EmotionProtocol(
        model, family, block=BLOCK, split="dev", per_label=per_label, precision=precision, batch_tokens=BATCH_TOKENS
    )


def check_equal(model: Model, shifts: Sequence[torch.Tensor]) -> float:
    """The largest difference in log-probability of a label over the size of the largest one, in float32.

    Raises:
        RuntimeError: it is above `TOLERANCE`, or a model answers differently.
    """
    protocol = _protocol(model, "float32", per_label=2)
    if not protocol._asked.engine.resumes or any(len(ids) != 1 for ids in protocol._label_ids):
        raise RuntimeError("The benchmark needs a model that resumes and labels of one token each.")
    full = FullForwards(model, protocol, "float32")
    worst = 0.0
    for shift, ours in zip(shifts, protocol.score_many(shifts), strict=True):
        theirs = full.score(shift)
        worst = max(worst, float(np.abs(ours.label_logprob - theirs).max() / np.abs(theirs).max()))
        if not np.array_equal(ours.label_logprob.argmax(1), theirs.argmax(1)):
            raise RuntimeError("Resumed and full forward passes name different labels; the engine is wrong.")
    if worst > TOLERANCE:
        raise RuntimeError(f"Resumed and full forward passes differ by {worst:.2g}, above {TOLERANCE:g}.")
    return worst


def validation_vs_full(rounds: int) -> Ratio:
    """All shifts on our side, preparation included, against as many full forwards, timed on a few of them."""
    model = contrans.load_model("pypi:gemma-3-270m")
    precision = resolve_precision("auto", model.device)
    shifts = all_shifts(model.hidden_size)
    worst = check_equal(model, [shifts[0], shifts[len(shifts) // 2]])
    ours, theirs = [], []
    for number in range(rounds + 1):
        sample = [shifts[(number * 97 + k * 101) % len(shifts)] for k in range(FULL_SAMPLE)]
        taken: dict[str, float] = {}
        for side in ("ours", "full") if number % 2 == 0 else ("full", "ours"):
            taken[side] = _ours(model, precision, shifts) if side == "ours" else _full(model, precision, sample)
        # the first round warms up
        if number:
            ours.append(taken["ours"])
            theirs.append(taken["full"] * len(shifts) / FULL_SAMPLE)
    values = tuple(b / a for a, b in zip(ours, theirs, strict=True))
    return Ratio(values, tuple(ours), tuple(theirs), {"shifts": len(shifts), "largest_difference_fp32": worst})


def _ours(model: Model, precision: str, shifts: Sequence[torch.Tensor]) -> float:
    start = time.perf_counter()
    protocol = _protocol(model, precision)
    for first in range(0, len(shifts), CONCEPTS):
        protocol.score_many(shifts[first : first + CONCEPTS])
    return time.perf_counter() - start


def _full(model: Model, precision: str, shifts: Sequence[torch.Tensor]) -> float:
    full = FullForwards(model, _items_of(model, precision), precision)
    return seconds(lambda: [full.score(shift) for shift in shifts])


_ITEMS: dict[str, EmotionProtocol] = {}


def _items_of(model: Model, precision: str) -> EmotionProtocol:
    # only its prompts are read, so one serves every round
    if precision not in _ITEMS:
        _ITEMS[precision] = _protocol(model, precision)
    return _ITEMS[precision]


BENCHMARKS = [
    Benchmark(
        "validation_vs_full",
        f"full forwards of whole prompts under Transplant, in the same precision and batch tokens; {FULL_SAMPLE} of "
        f"{CONCEPTS * ARMS * len(DOSES)} shifts a round, scaled to all",
        25.0,
        validation_vs_full,
    )
]
