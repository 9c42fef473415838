"""A small stand-in for a model that need not be here: blocks of its shape, few of them, with random weights.

What a forward pass reaches of a machine's speed hangs on the shape of its products, on attention, norms and all that
happens beside them. Four blocks of the same shape show it in a second, whatever the size of the model.
"""

import json
from typing import TYPE_CHECKING, Any

from contrans.models import resolve
from contrans.models.turns import one_at_a_time
from flows.costs import Sizes

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from contrans.models import Model

BLOCKS = 4
WIDEST = 2048
"""A CPU is no faster on wider blocks, and they take seconds: a stand-in for one is as wide as this."""
VOCABULARY = 32_768
"""Most tokens of a stand-in; the head's time grows with their number."""
_COUNTS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")


def stand_in(reference: str, sizes: Sizes, device: str) -> "Model":
    """Builds a stand-in with a tokenizer that takes words "w0", "w1", …, one token each.

    Args:
        reference: The model. Its own configuration is used where it is on this machine, else a LLaMA's of its sizes.
        sizes: Its sizes.
        device: Where it is to run.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

    from contrans.models import Model

    config: Any = None
    settings = _own_settings(reference, sizes)
    if settings is not None:
        config = AutoConfig.for_model(settings.pop("model_type"), **settings)
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        config = AutoConfig.for_model("llama", **_llama(sizes))
    with one_at_a_time(), torch.random.fork_rng(devices=[]):
        module = AutoModelForCausalLM.from_config(config, dtype=torch.float32).to(device)
    return Model.wrap(module, _tokenizer(config.vocab_size), reference)


def _own_settings(reference: str, sizes: Sizes) -> dict[str, Any] | None:
    """The model's own configuration with few blocks and few tokens, if it is here and no wider than need be."""
    folder = resolve(reference).folder()
    if folder is None or sizes.width > WIDEST or not (folder / "config.json").is_file():
        return None
    settings: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    count = next((name for name in _COUNTS if isinstance(settings.get(name), int)), None)
    if count is None or settings.get("quantization_config") or settings.get("auto_map"):
        return None
    n = settings[count]
    # what is listed block by block, such as which of them see a window only
    settings = {k: v[:BLOCKS] if isinstance(v, list) and len(v) == n else v for k, v in settings.items()}
    settings = {k: v for k, v in settings.items() if not k.endswith("_token_id")}
    return settings | {count: BLOCKS, "vocab_size": min(settings.get("vocab_size", VOCABULARY), VOCABULARY)}


def _llama(sizes: Sizes) -> dict[str, Any]:
    width = max(64, min(sizes.width, WIDEST) // 64 * 64)
    weights = sizes.block_parameters * (width / max(sizes.width, 1)) ** 2
    return {
        "hidden_size": width,
        # what attention's four square matrices leave of the block's weights, in three matrices
        "intermediate_size": max(64, round((weights - 4 * width**2) / (3 * width) / 64) * 64),
        "num_attention_heads": width // 64,
        "num_hidden_layers": BLOCKS,
        "vocab_size": max(256, min(sizes.vocabulary, VOCABULARY)),
        "tie_word_embeddings": True,
    }


def _tokenizer(vocabulary: int) -> "PreTrainedTokenizerFast":
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {f"w{i}": i for i in range(min(vocabulary, 256))}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()  # pyright: ignore[reportAttributeAccessIssue]
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="w0")
