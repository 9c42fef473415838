"""Labels as a model's tokens: what must follow a prompt for it to name one of them."""

import logging
from collections.abc import Sequence
from itertools import permutations

from contrans.errors import TextError
from contrans.models import Model
from contrans.states.encode import encode

log = logging.getLogger(__name__)


def label_tokens(model: Model, stem: str, labels: Sequence[str]) -> list[list[int]]:
    """Token ids of each label as it follows a prompt.

    Args:
        model: whose tokens.
        stem: the prompt.
        labels: the labels.

    Raises:
        TextError: a label runs into the prompt's last token, two are the same tokens, or, of three or more, one can
            never be the likeliest since it begins with all tokens of another; a pair is read from its means, so there
            it can.
    """
    alone = encode(model, [stem]).ids[0]
    out = []
    for label in labels:
        ids = encode(model, [f"{stem} {label}"]).ids[0]
        if ids[: len(alone)] != alone:
            raise TextError(
                f"The label {label!r} runs into the template's last token in {model.name}; end the template in a word."
            )
        out.append(ids[len(alone) :])
    if len({tuple(ids) for ids in out}) != len(out):
        raise TextError(f"Two labels of {list(labels)} are the same tokens in {model.name}; choose other labels.")
    for (one, a), (other, b) in permutations(zip(labels, out, strict=True), 2):
        if len(out) > 2 and a == b[: len(a)]:
            raise TextError(
                f"In {model.name} the label {other!r} begins with all tokens of {one!r}, so it can never be the "
                f"likelier; choose other labels."
            )
    return out


def told_apart_by_first_token(model: Model, labels: Sequence[str], tokens: Sequence[Sequence[int]]) -> bool:
    """Whether comparing first tokens alone is possible, and anything but comparing whole labels."""
    if len({ids[0] for ids in tokens}) < len(tokens):
        log.warning(
            "Labels of %s begin with the same token in %s, so there is no first_token_accuracy; whole words are "
            "compared.",
            list(labels),
            model.name,
        )
        return False
    return max(map(len, tokens)) > 1
