"""Refining: from the states of a contrast set to a concept vector."""

import logging
from collections.abc import Mapping, Sequence

import torch

from contrans.concepts.chat import as_chat, begins_with_bos
from contrans.concepts.diagnostics import diagnose
from contrans.concepts.estimators import ESTIMATORS
from contrans.concepts.examples import ContrastSet, Example
from contrans.concepts.positions import TokenPosition, token_spans, usual_position
from contrans.concepts.vector import ConceptVector
from contrans.errors import FitError, StateError
from contrans.models import Model, ModelRecord
from contrans.states.capturing import Progress, capture
from contrans.states.encode import encode

log = logging.getLogger(__name__)


def refine(
    model: Model,
    contrast: ContrastSet,
    *,
    blocks: Sequence[int] | None = None,
    estimator: str = "mean_difference",
    position: str | None = None,
    chat: str = "none",
    system: str | None = None,
    split: str | None = "refine",
    precision: str = "float32",
    batch_tokens: int = 2048,
    progress: Progress | None = None,
) -> ConceptVector:
    """Refines a concept vector: the direction from states without a concept to states with it.

    By default states are read at the last token of each prompt, and at all tokens of an encoder.
    Source: Dong et al. 2024 (arXiv 2405.13578), §3.1.

    Args:
        model: the model to read, which should hold the concept.
        contrast: the texts.
        blocks: block numbers; every block if None.
        estimator: a key of `contrans.concepts.estimators.ESTIMATORS`.
        position: the tokens that are read, and averaged where they are several: "last", "last:K" (the final K), "mean",
            "answer" (the answer of each example) or "span:WORDS" (the last place where these words stand); "last" if
            None, and "mean" for an encoder, which spreads what a text says over all its tokens.
        chat: "none" for prompts as they are (a base model), "model" for the tokenizer's own chat template (an
            instruct model), or a key of `contrans.concepts.chat.CHAT_FORMATS`.
        system: the system prompt of the chat.
        split: which split of the texts to use; all texts if None.
        precision: "float32" or "bfloat16" products.
        batch_tokens: most tokens in one batch.
        progress: called with the number of tokens after every batch.

    Returns:
        A vector with one direction [d] per block, in the units of the model's residual stream.

    Raises:
        FitError: unknown estimator, too few texts, or states that give no direction.
        SpecError: unknown position or chat template.
        TextError: an empty split, an overlong text, or one without the tokens that `position` names.
        BlockError: the model has no such block.
    """
    part = contrast.split(split) if split else contrast
    examples = (*part.positives, *part.negatives)
    position = position or usual_position(model.family)
    read_at = TokenPosition.parse(position)
    texts = [_as_read(model, e, chat, system) for e in examples]
    # a chat template writes its own BOS, and the tokenizer would put a second one before it
    special_tokens = chat == "none" or not begins_with_bos(model, texts[0])
    encoded = encode(model, texts, special_tokens=special_tokens)
    states = capture(
        model,
        texts,
        blocks=blocks,
        spans=token_spans(read_at, encoded, texts, [e.answer for e in examples]),
        precision=precision,
        batch_tokens=batch_tokens,
        special_tokens=special_tokens,
        progress=progress,
    )
    n = len(part.positives)
    return refine_states(
        {b: (rows[:n], rows[n:]) for b, rows in states.blocks.items()},
        concept=part.concept,
        model=model.record,
        estimator=estimator,
        paired=part.paired,
        provenance={
            "contrast_set": contrast.name,
            "texts": part.hash,
            "split": split,
            "template": part.template,
            "position": position,
            "chat": chat,
            **({"system": system} if system is not None else {}),
            "precision": precision,
        },
    )


def _as_read(model: Model, example: Example, chat: str, system: str | None) -> str:
    if chat == "none" and system is None:
        return example.prompt
    opening = as_chat(model, example.question, template=chat, system=system)
    gap = "" if not example.answer or opening[-1:].isspace() else " "
    return f"{opening}{gap}{example.answer}"


def refine_states(
    states: Mapping[int, tuple[torch.Tensor, torch.Tensor]],
    *,
    concept: str,
    model: ModelRecord,
    estimator: str = "mean_difference",
    paired: bool = False,
    provenance: Mapping[str, object] = {},
) -> ConceptVector:
    """A concept vector from states that were captured before.

    Args:
        states: per block the positive [n, d] and negative [m, d] states.
        concept: its name.
        model: whose states they are.
        estimator: a key of `contrans.concepts.estimators.ESTIMATORS`.
        paired: whether the i-th states of both sides belong together, for the cosine among pair differences.
        provenance: further facts to keep with the vector.

    Raises:
        FitError: unknown estimator, no block, fewer than two states on a side, pairs of unequal number, or no direction
            between the sides.
        StateError: states that are not finite.
    """
    if estimator not in ESTIMATORS:
        raise FitError(f"No estimator is called {estimator!r}; there are {', '.join(ESTIMATORS)}.")
    if not states:
        raise FitError(f"No states were given for {concept!r}; capture them at one block at least.")
    estimate = ESTIMATORS[estimator]
    directions, spread, norms, measured = {}, {}, {}, {}
    for block, (positive, negative) in sorted(states.items()):
        if min(len(positive), len(negative)) < 2:
            raise FitError(
                f"{concept!r} has {len(positive)} positive and {len(negative)} negative states; "
                f"two of each are the least."
            )
        if paired and len(positive) != len(negative):
            raise FitError(
                f"{concept!r} has {len(positive)} positive and {len(negative)} negative states, so they are no pairs; "
                f"pass paired=False."
            )
        try:
            directions[block] = estimate(positive, negative).float()
        except (FitError, StateError) as error:
            raise type(error)(f"No direction for {concept!r} at block {block} of {model.name}. {error}") from error
        both = torch.cat([positive, negative]).double()
        spread[block] = float(both.var(0, correction=0).sum().sqrt())
        norms[block] = float(both.norm(dim=1).median())
        measured[block] = diagnose(positive, negative, estimate, paired=paired)
    best = max(measured, key=lambda b: (measured[b]["d_prime"], measured[b]["auc"]))
    d, cosine = measured[best]["d_prime"], measured[best]["split_half_cosine"]
    if d < 1:
        log.warning(
            "%s: %s hardly holds this concept (held-out d′ %.2f at its best block %d).", concept, model.name, d, best
        )
    elif cosine < 0.8:
        log.warning("%s: halves of the texts give vectors of cosine %.2f; more texts would steady it.", concept, cosine)
    n, m = next((len(p), len(q)) for p, q in states.values())
    facts = {
        **provenance,
        "estimator": estimator,
        "n_positive": n,
        "n_negative": m,
        "diagnostics": {str(b): {k: round(v, 6) for k, v in d.items()} for b, d in measured.items()},
    }
    return ConceptVector(concept, model, directions, spread, norms, facts)
