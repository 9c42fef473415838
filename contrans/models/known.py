"""Sizes of well-known models of the Hub, so that a plan needs no network.

The sizes are those of each model's `config.json`; the number of weights follows from them.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from contrans.models.facts import ModelFacts

_PYTHIA_TOKENS_PER_STEP = 1024 * 2048  # sequences of a batch × their tokens; the last step is 143,000
_GATED = ("llama", "mistral", "qwen2", "gemma3_text")  # three matrices in the feed-forward part instead of two


@dataclass(frozen=True)
class Sizes:
    """What a configuration says of a decoder.

    Attributes:
        family: `model_type`.
        vocab_size: Number of tokens.
        hidden_size: Width of the residual stream.
        intermediate_size: Width of the feed-forward part.
        n_blocks: Number of blocks.
        heads: Heads of attention.
        kv_heads: Heads of keys and values; as many as `heads` if None.
        head_dim: Width of a head; `hidden_size / heads` if None.
        tied: Whether the head shares its weights with the embeddings.
        context_length: Tokens that it can read at once; None where it differs between models of these sizes.
    """

    family: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    n_blocks: int
    heads: int
    kv_heads: int | None = None
    head_dim: int | None = None
    tied: bool = False
    context_length: int | None = None

    @property
    def parameters(self) -> int:
        """Number of weights."""
        d, width = self.hidden_size, self.head_dim or self.hidden_size // self.heads
        queries, keys = self.heads * width, (self.kv_heads or self.heads) * width
        feed_forward = (3 if self.family in _GATED else 2) * d * self.intermediate_size
        norms = {"gpt_neox": 4 * d, "gemma3_text": 4 * d + 2 * width}.get(self.family, 2 * d)
        biases = {"gpt_neox": 5 * d + self.intermediate_size, "qwen2": queries + 2 * keys}.get(self.family, 0)
        block = 2 * d * queries + 2 * d * keys + feed_forward + norms + biases
        last_norm = 2 * d if self.family == "gpt_neox" else d
        return (1 if self.tied else 2) * self.vocab_size * d + self.n_blocks * block + last_norm

    @property
    def facts(self) -> ModelFacts:
        """The same as a planner reads it."""
        return ModelFacts(
            family=self.family,
            n_blocks=self.n_blocks,
            hidden_size=self.hidden_size,
            vocab_size=self.vocab_size,
            parameters=self.parameters,
            context_length=self.context_length,
        )


def _llama(hidden: int, intermediate: int, blocks: int, heads: int, kv_heads: int | None = None) -> Sizes:
    return Sizes("llama", 32_000, hidden, intermediate, blocks, heads, kv_heads)


def _qwen(hidden: int, intermediate: int, blocks: int, heads: int, kv_heads: int, *, small: bool = False) -> Sizes:
    return Sizes("qwen2", 151_936 if small else 152_064, hidden, intermediate, blocks, heads, kv_heads, tied=small)


def _pythia(hidden: int, blocks: int, heads: int, vocabulary: int = 50_304) -> Sizes:
    return Sizes("gpt_neox", vocabulary, hidden, 4 * hidden, blocks, heads, context_length=2048)


def _smollm2(hidden: int, intermediate: int, blocks: int, heads: int, kv_heads: int, *, tied: bool = True) -> Sizes:
    return Sizes("llama", 49_152, hidden, intermediate, blocks, heads, kv_heads, tied=tied, context_length=8192)


_LLAMA_7B = _llama(4096, 11_008, 32, 32)
_LLAMA_13B = _llama(5120, 13_824, 40, 40)
_LLAMA_65B = _llama(8192, 22_016, 80, 64)
_LLAMA_2_70B = _llama(8192, 28_672, 80, 64, 8)
_MISTRAL_7B = Sizes("mistral", 32_000, 4096, 14_336, 32, 32, 8, context_length=32_768)
_GEMMA = Sizes("gemma3_text", 262_144, 640, 2048, 18, 4, 1, 256, tied=True, context_length=32_768)
_QWEN = {
    "0.5B": _qwen(896, 4864, 24, 14, 2, small=True),
    "1.5B": _qwen(1536, 8960, 28, 12, 2, small=True),
    "3B": _qwen(2048, 11_008, 36, 16, 2, small=True),
    "7B": _qwen(3584, 18_944, 28, 28, 4),
    "14B": _qwen(5120, 13_824, 48, 40, 8),
    "32B": _qwen(5120, 27_648, 64, 40, 8),
    "72B": _qwen(8192, 29_568, 80, 64, 8),
}
_PYTHIA = {
    "70m": _pythia(512, 6, 8),
    "160m": _pythia(768, 12, 12),
    "410m": _pythia(1024, 24, 16),
    "1b": _pythia(2048, 16, 8),
    "1.4b": _pythia(2048, 24, 16),
    "2.8b": _pythia(2560, 32, 32),
    "6.9b": _pythia(4096, 32, 32, 50_432),
    "12b": _pythia(5120, 36, 40, 50_688),
}
_SMOLLM2 = {
    "135M": _smollm2(576, 1536, 30, 9, 3),
    "360M": _smollm2(960, 2560, 32, 15, 5),
    "1.7B": _smollm2(2048, 8192, 24, 32, 32),
}


def _every() -> dict[str, Sizes]:
    first, second = {"context_length": 2048}, {"context_length": 4096}
    found = {
        "huggyllama/llama-7b": replace(_LLAMA_7B, **first),
        "huggyllama/llama-13b": replace(_LLAMA_13B, **first),
        "huggyllama/llama-65b": replace(_LLAMA_65B, **first),
        "lmsys/vicuna-7b-v1.3": replace(_LLAMA_7B, **first),
        "lmsys/vicuna-13b-v1.3": replace(_LLAMA_13B, **first),
        "lmsys/vicuna-7b-v1.5": replace(_LLAMA_7B, **second),
        "lmsys/vicuna-13b-v1.5": replace(_LLAMA_13B, **second),
        "mistralai/Mistral-7B-v0.1": _MISTRAL_7B,
        "mistralai/Mistral-7B-Instruct-v0.1": _MISTRAL_7B,
        "mistralai/Mistral-7B-Instruct-v0.2": _MISTRAL_7B,
        "mistralai/Mistral-7B-v0.3": replace(_MISTRAL_7B, vocab_size=32_768),
        "mistralai/Mistral-7B-Instruct-v0.3": replace(_MISTRAL_7B, vocab_size=32_768),
        "google/gemma-3-270m": _GEMMA,
        "google/gemma-3-270m-it": _GEMMA,
    }
    for size, sizes in {"7b": _LLAMA_7B, "13b": _LLAMA_13B, "70b": _LLAMA_2_70B}.items():
        for kind in ("", "-chat"):
            found[f"meta-llama/Llama-2-{size}{kind}-hf"] = replace(sizes, **second)
    for size, sizes in _QWEN.items():
        found |= {f"Qwen/Qwen2.5-{size}": sizes, f"Qwen/Qwen2.5-{size}-Instruct": sizes}
    for size, sizes in _PYTHIA.items():
        found |= {f"EleutherAI/pythia-{size}": sizes, f"EleutherAI/pythia-{size}-deduped": sizes}
    for size, sizes in _SMOLLM2.items():
        found |= {f"HuggingFaceTB/SmolLM2-{size}": sizes, f"HuggingFaceTB/SmolLM2-{size}-Instruct": sizes}
    return found


KNOWN: Mapping[str, Sizes] = _every()
"""Sizes by the model's id on the Hub."""
_FOLDED = {name.casefold(): sizes for name, sizes in KNOWN.items()}  # the Hub does not tell A from a


def known_facts(identifier: str) -> ModelFacts | None:
    """Sizes of a model of the Hub by its id; None if it is not among `KNOWN`."""
    sizes = _FOLDED.get(identifier.casefold())
    return None if sizes is None else sizes.facts


def tokens_seen(reference: str) -> int | None:
    """Tokens that a checkpoint of pre-training was trained on; None where the reference does not tell.

    Biderman et al. 2023 (Pythia, arXiv 2304.01373): every model saw batches of 1,024 sequences of 2,048 tokens, and
    its revisions are called after the batches that it has seen.

    Args:
        reference: such as "EleutherAI/pythia-410m-deduped@step1000".
    """
    found = re.fullmatch(r"eleutherai/pythia-[\w.-]+@step(\d+)", reference.casefold())
    return int(found[1]) * _PYTHIA_TOKENS_PER_STEP if found else None
