"""What a step asks of any machine: floating-point operations and memory, from the sizes of its model alone."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from contrans.errors import ModelError
from contrans.models import resolve
from contrans.models.known import KNOWN
from flows.step import Cost

_ACTIVATIONS = 16  # values that live at once for each token and unit of the residual stream
_CAPTURED = 3  # copies of a step's states: its file, its tensor, and that in float64 that a fit centres
_GENERIC_TOKENS = 15  # of a generic text
_HEAD_ROWS = 256  # rows whose logits live at once


@dataclass(frozen=True)
class Sizes:
    """The sizes of a decoder that its costs follow from.

    Attributes:
        width: Of the residual stream.
        vocabulary: Number of tokens.
        n_blocks: Number of blocks.
        parameters: All weights.
        block_parameters: Weights of one block, norms included.
    """

    width: int
    vocabulary: int
    n_blocks: int
    parameters: int
    block_parameters: int


def sizes(reference: str) -> Sizes:
    """Sizes of a model, without loading or fetching it; 12 width² weights a block where only its widths are known.

    Raises:
        ModelError: Its sizes are not known before it is fetched.
    """
    resolved = resolve(reference)
    facts = resolved.facts()
    if facts is None or facts.n_blocks is None or facts.hidden_size is None:
        raise ModelError(
            f"The sizes of {reference} are not known before it is fetched, so there is no plan; "
            "`contrans run` fetches it."
        )
    width, vocabulary = facts.hidden_size, facts.vocab_size or 0
    embeddings = vocabulary * width * (1 if _tied(reference) else 2)
    if facts.parameters is None:
        block = 12 * width**2
        return Sizes(width, vocabulary, facts.n_blocks, block * facts.n_blocks + embeddings, block)
    block = max(facts.parameters - embeddings, 0) // facts.n_blocks
    return Sizes(width, vocabulary, facts.n_blocks, facts.parameters, block)


def _tied(reference: str) -> bool:
    """Whether embeddings and head share their weights, as they do in most small models."""
    resolved = resolve(reference)
    known = next((s for name, s in KNOWN.items() if name.casefold() == resolved.text.casefold()), None)
    if known is not None:
        return known.tied
    folder = resolved.folder()
    if folder is None or not (folder / "config.json").is_file():
        return True
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return bool(config.get("tie_word_embeddings", True))


def block_flops(cost: Cost, model: Sizes) -> float:
    """Floating-point operations of a step's blocks: products with weights, and attention over texts of mean length.

    A product of a token with a weight takes two; scores and mixing take 4 · width for every token that is attended to,
    masked ones included, since batched attention computes them too.
    """
    attention = 4.0 * model.width * cost.tokens / max(1, cost.texts)
    return cost.tokens * cost.share * model.n_blocks * (2.0 * model.block_parameters + attention)


def head_flops(cost: Cost, model: Sizes) -> float:
    """Floating-point operations of the rows that reach the language-model head."""
    return 2.0 * cost.head_rows * model.vocabulary * model.width


def weights_read(cost: Cost, model: Sizes) -> float:
    """Weights that its passes of one token read: each pass reads the blocks' and the head's once for its batch."""
    return cost.passes * (cost.share * model.n_blocks * model.block_parameters + model.vocabulary * model.width)


def map_flops(rows: int, source: int, target: int) -> float:
    """Operations of one map in float64: moments of its rows, and an eigendecomposition (about 10 · source³).

    Args:
        rows: Paired states.
        source: Width of the source.
        target: Width of the target.
    """
    return 2.0 * rows * source * (source + target) + 10.0 * source**3


def memory(cost: Cost, loaded: Mapping[str, Sizes], *, per_weight: int, batch_tokens: int, generic_texts: int) -> float:
    """Bytes that a step holds beside the process itself.

    Args:
        cost: The step.
        loaded: The models that are loaded by then, by side; those that the step runs among them.
        per_weight: Bytes of a weight, with the copies that products keep of it.
        batch_tokens: Most tokens in a batch.
        generic_texts: Texts whose next-token distributions are kept to measure KL against.
    """
    total = float(sum(per_weight * model.parameters for model in loaded.values()))
    return total + max((_beside_weights(c, loaded, batch_tokens, generic_texts) for c in cost.by_model), default=0.0)


def _beside_weights(cost: Cost, loaded: Mapping[str, Sizes], batch_tokens: int, generic_texts: int) -> float:
    if cost.model is None:
        return 0.0
    model = loaded[cost.model]
    total = 4.0 * _ACTIVATIONS * batch_tokens * model.width
    if cost.head_rows:
        # logits come in half precision, become float32, and are read once more to be normalised
        total += (2 + 4 + 4) * min(cost.head_rows, _HEAD_ROWS) * model.vocabulary
        total += 4.0 * generic_texts * _GENERIC_TOKENS * model.vocabulary
    return total


def states_memory(texts: int, blocks: Mapping[str, int], widths: Mapping[str, int]) -> float:
    """Bytes of the states that a choice among blocks compares.

    Args:
        texts: Rows of the corpus.
        blocks: Blocks captured, by side.
        widths: Of the residual streams, by side.
    """
    return 4.0 * _CAPTURED * texts * sum(n * widths[side] for side, n in blocks.items())
