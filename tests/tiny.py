"""Tiny random models of every decoder architecture, and tiny tokenizers, built in memory."""

from collections.abc import Mapping
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from contrans.models.model import Model
from contrans.models.turns import one_at_a_time

VOCAB_SIZE = 128
BOS, EOS, PAD = 1, 2, 0

# The architectures that every table test walks over; the last ones are vision-language models,
# whose text tower is the decoder that is read and steered.
TEXT_ARCHITECTURES = [
    "llama",
    "mistral",
    "mixtral",
    "qwen2",
    "qwen3",
    "gemma",
    "gemma2",
    "gemma3_text",
    "phi",
    "phi3",
    "gpt2",
    "gpt_neo",
    "gptj",
    "gpt_neox",
    "bloom",
    "falcon",
    "mpt",
    "opt",
    "olmo2",
    "stablelm",
    "starcoder2",
    "cohere",
    "granite",
    "deepseek_v3",
]
VISION_ARCHITECTURES = ["gemma3", "llava", "qwen2_vl"]
ARCHITECTURES = TEXT_ARCHITECTURES + VISION_ARCHITECTURES

# Extra settings where the general shrinking below does not make a model that can be built or run.
SPECIAL: Mapping[str, Mapping[str, Any]] = {
    "deepseek_v3": {"first_k_dense_replace": 1, "head_dim": 4, "num_key_value_heads": 4},
}
TOKENS = ("bos_token_id", "eos_token_id", "pad_token_id")


def sizes(*, hidden_size: int, layers: int) -> dict[str, Any]:
    """Returns a small value for each size that any configuration of transformers may have."""
    head_dim = hidden_size // 4
    small: dict[str, Any] = {
        "vocab_size": VOCAB_SIZE,
        "bos_token_id": BOS,
        "eos_token_id": EOS,
        "pad_token_id": PAD,
    }
    small |= dict.fromkeys(
        ("hidden_size", "d_model", "n_embd", "embed_dim", "embedding_size", "lru_width"), hidden_size
    )
    small |= dict.fromkeys(
        ("word_embed_proj_dim", "hidden_size_per_layer_input", "dim", "decoder_d_model"), hidden_size
    )
    layer_names = (
        "num_hidden_layers",
        "n_layer",
        "n_layers",
        "num_layers",
        "depth",
        "decoder_layers",
        "encoder_layers",
    )
    small |= dict.fromkeys(layer_names, layers)
    small |= dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads", "decoder_attention_heads"), 4)
    small |= dict.fromkeys(("encoder_attention_heads", "attention_heads"), 4)
    small |= dict.fromkeys(("num_key_value_heads", "num_kv_heads"), 2)
    small |= dict.fromkeys(
        ("intermediate_size", "ffn_dim", "decoder_ffn_dim", "encoder_ffn_dim", "ffn_hidden_size"), 64
    )
    small |= dict.fromkeys(("n_inner", "moe_intermediate_size", "shared_expert_intermediate_size", "mlp_dim"), 64)
    small |= dict.fromkeys(("head_dim", "query_pre_attn_scalar", "v_head_dim", "global_head_dim"), head_dim)
    small |= {
        "rotary_dim": 4,
        "qk_rope_head_dim": 4,
        "qk_nope_head_dim": 4,
        "q_lora_rank": 8,
        "kv_lora_rank": 8,
    }
    small |= dict.fromkeys(("max_position_embeddings", "n_positions", "max_seq_len", "max_sequence_length"), 256)
    small |= dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"), 4)
    small |= dict.fromkeys(("num_experts_per_tok", "moe_top_k", "num_experts_per_token", "moe_k"), 2)
    small |= {"n_group": 1, "topk_group": 1, "n_shared_experts": 1, "sliding_window": 8}
    return small


def tiny_config(architecture: str, *, hidden_size: int = 32, layers: int = 4, **extra: Any) -> PretrainedConfig:
    """Builds a small configuration of an architecture, its vision or audio towers included."""
    config_class = CONFIG_MAPPING[architecture]
    settings = _shrunk(config_class, sizes(hidden_size=hidden_size, layers=layers))
    special = dict(SPECIAL.get(architecture, {}))
    if architecture == "gpt_neo":
        special |= {"attention_types": [[["global", "local"], layers // 2]], "window_size": 8}
    if architecture in VISION_ARCHITECTURES:
        special |= _vision(architecture, hidden_size=hidden_size, layers=layers)
    settings = _merged(settings, special)
    return AutoConfig.for_model(architecture, **(settings | extra))


def tiny_model(
    architecture: str, *, seed: int = 0, hidden_size: int = 32, layers: int = 4, **extra: Any
) -> PreTrainedModel:
    """Builds a randomly initialised model in fp32 and eval mode; the same seed gives the same weights.

    Args:
        architecture: A `model_type` of transformers, usually one of `ARCHITECTURES`.
        seed: Seed of the weights; the caller's random state is left alone.
        hidden_size: Width of the residual stream.
        layers: Number of decoder blocks (a multiple of 2).
        extra: Further settings of the configuration.
    """
    config = tiny_config(architecture, hidden_size=hidden_size, layers=layers, **extra)
    auto = AutoModelForImageTextToText if architecture in VISION_ARCHITECTURES else AutoModelForCausalLM
    with one_at_a_time(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = auto.from_config(config, dtype=torch.float32)
        # The default initialisation (σ = .02, zero biases) makes blocks nearly the identity, and a test
        # that reads the wrong block would pass.
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter) * (0.15 if parameter.dim() > 1 else 0.02))
    return model.eval().requires_grad_(False)


def _shrunk(config_class: type[PretrainedConfig], small: Mapping[str, Any]) -> dict[str, Any]:
    known = config_class().to_dict()
    # A setting that is none by default (n_inner, q_lora_rank) switches a part off: leave it off.
    settings = {name: value for name, value in small.items() if known.get(name) is not None or name in TOKENS}
    for name, child in config_class.sub_configs.items():
        if name in known and issubclass(child, PretrainedConfig) and child is not PretrainedConfig:
            settings[name] = _shrunk(child, small)
    return {name: value for name, value in settings.items() if name in known}


def _merged(settings: dict[str, Any], special: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(settings)
    for name, value in special.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(name), dict)
        merged[name] = _merged(merged[name], value) if both else value
    return merged


def _vision(architecture: str, *, hidden_size: int, layers: int) -> dict[str, Any]:
    # The vision tower has as many layers as the decoder: a rule that goes by the count alone must fail.
    tower = {
        "num_hidden_layers": layers,
        "image_size": 16,
        "patch_size": 8,
        "hidden_size": 16,
        "intermediate_size": 32,
    }
    if architecture == "gemma3":
        return {
            "vision_config": tower | {"num_attention_heads": 2},
            "mm_tokens_per_image": 4,
            "image_token_index": 5,
        }
    if architecture == "llava":
        text = {"model_type": "llama"} | _shrunk(CONFIG_MAPPING["llama"], sizes(hidden_size=hidden_size, layers=layers))
        return {
            "vision_config": tower | {"model_type": "clip_vision_model", "num_attention_heads": 2},
            "text_config": text,
            "image_token_index": 5,
        }
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]}
    return {
        "vision_config": {
            "depth": layers,
            "embed_dim": 16,
            "hidden_size": hidden_size,
            "num_heads": 2,
            "patch_size": 8,
        },
        "text_config": {"rope_parameters": rope},
        "image_token_id": 5,
        "video_token_id": 6,
        "vision_start_token_id": 7,
        "vision_end_token_id": 8,
    }


# Two training texts, so that the merges differ and pairing across tokenizers has work to do.
_TRAINING = {
    "bytes": "the cat and the other cat sat there with their mother; she thinks this is the weather. ",
    "pieces": "one stone alone on a mountain; none of the lemons comes from London or Rome once more. ",
}
SPECIAL_TOKENS = ["<pad>", "<s>", "</s>", "<unk>"]
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant] {% endif %}"
)


def tiny_tokenizer(
    vocab: str = "bytes", *, bos: bool = True, pad: bool = True, vocab_size: int = VOCAB_SIZE
) -> PreTrainedTokenizerFast:
    """Builds a fast BPE tokenizer that reads any ASCII text and knows character offsets.

    Args:
        vocab: "bytes" splits like GPT-2 (a leading space belongs to the word), "pieces" like SentencePiece
            (a `▁` before each word); their merges differ, so their tokens of one text differ too.
        bos: Whether `<s>` is put before every text.
        pad: Whether a padding token is named.
        vocab_size: Entries, at least 110.
    """
    printable = [chr(code) for code in range(33, 127)]
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    if vocab == "bytes":
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = [*printable, "Ġ", "Ċ"]
    else:
        tokenizer.normalizer = normalizers.Replace(Regex(" "), "▁")
        tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("▁?[^▁\n]+|▁|\n"), "isolated")
        tokenizer.decoder = decoders.Replace("▁", " ")
        alphabet = [*printable, "▁", "\n"]
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=SPECIAL_TOKENS, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([_TRAINING[vocab] * 3], trainer)
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", BOS)]
        )
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"} | ({"pad_token": "<pad>"} if pad else {})
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, chat_template=CHAT_TEMPLATE, clean_up_tokenization_spaces=False, **names
    )


def tiny(
    architecture: str = "llama", *, vocab: str = "bytes", bos: bool = True, seed: int = 0, **settings: Any
) -> Model:
    """Builds a tiny model with a tokenizer, as `load_model` would return it."""
    module = tiny_model(architecture, seed=seed, **settings)
    return Model.wrap(module, tiny_tokenizer(vocab, bos=bos), reference=f"tiny-{architecture}-{seed}")
