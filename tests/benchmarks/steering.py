"""What steering costs: generation under a transplant, and by a baked model, against generation without."""

from collections.abc import Callable
from contextlib import nullcontext

import torch

import contrans
from contrans.models import Model
from contrans.transplants import Transplant, bake_shifts

from .ratio import Benchmark, Ratio, compare

TOKENS = 64
PROMPTS = (
    "Scenario: The train is late and nobody says why.\nThe emotion of the above scenario is",
    "Scenario: My sister called after years of silence.\nThe emotion of the above scenario is",
    "The old bridge over the river was closed last winter, and since then",
    "Once the rain had stopped, the children ran out of the house and",
    "What is the capital of the country that lies to the north of Spain?",
    "A good recipe for bread begins with flour, water, salt and",
    "The committee met on Tuesday to decide whether the new library",
    "In the middle of the night a dog began to bark, so",
)


def _shift(model: Model) -> dict[int, torch.Tensor]:
    # which direction and how long it is does not matter to the time
    direction = torch.randn(model.hidden_size, generator=torch.Generator().manual_seed(0))
    return {round(0.75 * model.n_blocks): direction}


def _generating(model: Model, rows: int, shifts: dict[int, torch.Tensor] | None = None) -> Callable[[], None]:
    """Writes as many tokens as there are to be, after so many prompts, left-padded."""
    ids = [model.tokenizer(text)["input_ids"] for text in PROMPTS[:rows]]
    width = max(map(len, ids))
    batch = torch.tensor([[model.pad_token_id] * (width - len(row)) + row for row in ids])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in ids])

    def generate() -> None:
        with Transplant(model, shifts) if shifts is not None else nullcontext():
            out = model.generate(
                input_ids=batch,
                attention_mask=mask,
                max_new_tokens=TOKENS,
                min_new_tokens=TOKENS,
                do_sample=False,
                temperature=None,
                top_p=None,
                top_k=None,
                pad_token_id=model.pad_token_id,
            )
        assert out.shape == (rows, width + TOKENS)

    return generate


def _worse(found: dict[int, Ratio]) -> Ratio:
    """Of the ratios by batch size the lower one, with both medians in its notes."""
    worse = min(found.values(), key=lambda ratio: ratio.median)
    notes = {f"batch_{rows}": round(ratio.median, 4) for rows, ratio in found.items()}
    return Ratio(worse.values, worse.ours, worse.theirs, notes)


def hooked(model: Model, rounds: int) -> Ratio:
    """Unsteered time over the time with a transplant in, in batches of one and of eight."""
    shifts = _shift(model)
    return _worse(
        {n: compare(_generating(model, n, shifts), _generating(model, n), rounds=rounds) for n in (1, len(PROMPTS))}
    )


def baked(model: Model, rounds: int, *, in_memory: bool) -> Ratio:
    """Unsteered time over the time of the baked model, in batches of one and of eight.

    Args:
        model: what is baked.
        rounds: pairs of times.
        in_memory: whether for this process alone; else so that it can be saved, where the setting that gives a Llama
            its bias gives all its other layers biases of zero.
    """
    steered = bake_shifts(model, _shift(model), in_memory=in_memory)
    return _worse(
        {n: compare(_generating(steered, n), _generating(model, n), rounds=rounds) for n in (1, len(PROMPTS))}
    )


BENCHMARKS = [
    Benchmark(
        "generation_overhead",
        "the same generation unsteered: Gemma-3-270M, greedy, 64 new tokens, the worse of batch 1 and 8",
        0.99,
        lambda rounds: hooked(contrans.load_model("pypi:gemma-3-270m"), rounds),
    ),
    # Gemma 3 has a norm after its MLP, so no bias can shift its blocks
    *(
        Benchmark(
            name,
            "the same generation unsteered: SmolLM2-135M-Instruct, greedy, 64 new tokens, the worse of batch 1 and 8",
            1.0,
            lambda rounds, in_memory=in_memory: baked(
                contrans.load_model("pypi:smollm2-135m-instruct"), rounds, in_memory=in_memory
            ),
        )
        for name, in_memory in (("baked_overhead", True), ("baked_to_save_overhead", False))
    ),
]
