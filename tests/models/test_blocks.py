from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForSeq2SeqLM, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from contrans.errors import ModelError
from contrans.models.blocks import BlockLayout, block_list, find_blocks, module_tree
from tests.tiny import ARCHITECTURES, TEXT_ARCHITECTURES, tiny_config, tiny_model

PLACES = dict.fromkeys(TEXT_ARCHITECTURES, ("model.layers", "model")) | {
    "gpt2": ("transformer.h", "transformer"),
    "gpt_neo": ("transformer.h", "transformer"),
    "gptj": ("transformer.h", "transformer"),
    "gpt_neox": ("gpt_neox.layers", "gpt_neox"),
    "bloom": ("transformer.h", "transformer"),
    "falcon": ("transformer.h", "transformer"),
    "mpt": ("transformer.blocks", "transformer"),
    "opt": ("model.decoder.layers", "model.decoder"),
    "gemma3": ("model.language_model.layers", "model.language_model"),
    "llava": ("model.language_model.layers", "model.language_model"),
    "qwen2_vl": ("model.language_model.layers", "model.language_model"),
}


def executed(model: PreTrainedModel, layout: BlockLayout) -> tuple[list[int], set[tuple[int, ...]]]:
    """Runs a batch of 2 × 12 tokens and returns the order of the blocks and the shapes of their outputs."""
    order: list[int] = []
    shapes: set[tuple[int, ...]] = set()

    def seen(index: int, output: Any) -> None:
        order.append(index)
        shapes.add(tuple((output[0] if isinstance(output, tuple) else output).shape))

    for index, block in enumerate(block_list(model, layout)):
        block.register_forward_hook(lambda _m, _i, output, index=index: seen(index, output))
    with torch.inference_mode():
        model(torch.randint(9, 100, (2, 12)))
    return order, shapes


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_blocks_of_every_architecture(architecture: str) -> None:
    model = tiny_model(architecture, layers=6)
    layout = find_blocks(model)
    assert layout == BlockLayout(*PLACES[architecture], count=6, hidden_size=32)
    assert executed(model, layout) == (list(range(6)), {(2, 12, 32)})


# Their blocks are found, but do not map one stream of shape [batch, tokens, width] to itself, in order.
OTHER_SHAPE = {
    "cpmant": "puts its prompt's states before the tokens",
    "deepseek_v4": "carries several residual streams",
    "hy_v4": "carries several residual streams",
    "mllama": "skips cross-attention blocks without an image",
    "prophetnet": "carries one stream per predicted token",
    "xlnet": "puts time before the batch",
}
UNREADABLE = {"hrm_text": "runs two stacks in turns"}


def test_sweep_over_all_causal_models_of_transformers() -> None:
    found = ran = 0
    for architecture in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        try:
            config = tiny_config(architecture)
            with torch.device("meta"):
                size = sum(weight.numel() for weight in AutoModelForCausalLM.from_config(config).parameters())
            if size > 30e6:
                continue
            model = AutoModelForCausalLM.from_config(config).eval()
        except Exception:  # noqa: BLE001 - whatever its reason, this one cannot be built small without care
            continue
        if architecture in UNREADABLE:
            with pytest.raises(ModelError, match="cannot be found"):
                find_blocks(model)
            continue
        layout = find_blocks(model)
        found += 1
        try:
            order, shapes = executed(model, layout)
        except Exception:  # noqa: BLE001 - our small settings are not runnable, but the blocks were found
            continue
        ran += 1
        if architecture not in OTHER_SHAPE:
            assert order == list(range(layout.count)), architecture
            assert shapes == {(2, 12, layout.hidden_size)}, architecture
    assert found >= 140
    assert ran >= 140


def test_width_is_the_residual_stream_not_the_embedding() -> None:
    model = tiny_model("opt", word_embed_proj_dim=16)
    layout = find_blocks(model)
    assert layout.hidden_size == 32
    assert executed(model, layout)[1] == {(2, 12, 32)}


@pytest.mark.parametrize("architecture", ["bart", "t5"])
def test_an_encoder_decoder_gives_its_decoder(architecture: str) -> None:
    model = AutoModelForSeq2SeqLM.from_config(tiny_config(architecture))
    layout = find_blocks(model)
    assert "decoder" in layout.path
    assert "encoder" not in layout.path
    assert layout.container_path.endswith("decoder")


def test_an_encoder_can_be_read() -> None:
    model = AutoModel.from_config(tiny_config("bert"))
    assert find_blocks(model) == BlockLayout("encoder.layer", "", 4, 32)


@pytest.mark.parametrize(
    ("layers", "groups", "shared"),
    [(4, 1, (0, 0, 0, 0)), (6, 2, (0, 0, 0, 1, 1, 1)), (4, 4, ()), (6, 4, (0, 0, 1, 2, 2, 3))],
)
def test_blocks_that_share_weights(layers: int, groups: int, shared: tuple[int, ...]) -> None:
    model = AutoModel.from_config(tiny_config("albert", layers=layers, num_hidden_groups=groups)).eval()
    layout = find_blocks(model)
    assert layout == BlockLayout("encoder.albert_layer_groups", "", layers, 32, shared)
    order: list[nn.Module] = []
    for block in dict.fromkeys(block_list(model, layout)):
        block.register_forward_hook(lambda module, _i, _o: order.append(module))
    model(torch.tensor([[1, 9, 40]]))
    assert order == block_list(model, layout)


def test_experts_are_no_blocks() -> None:
    model = tiny_model("mixtral", num_local_experts=4, layers=4)
    assert find_blocks(model).path == "model.layers"


def test_a_hybrid_is_one_list() -> None:
    layout = find_blocks(AutoModelForCausalLM.from_config(tiny_config("nemotron_h")))
    assert (layout.path, layout.count) == ("model.layers", 4)


def test_container_turns_ids_into_states() -> None:
    model = tiny_model("llama")
    states = model.get_submodule(find_blocks(model).container_path)(torch.tensor([[1, 9]])).last_hidden_state
    assert states.shape == (1, 2, 32)


class Stranger(nn.Module):
    def __init__(self, lists: int, count: int = 3) -> None:
        super().__init__()
        self.config = AutoConfig.for_model("llama", hidden_size=8, num_hidden_layers=count, num_attention_heads=2)
        self.embed = nn.Embedding(4, 8)
        for index in range(lists):
            blocks = nn.ModuleList(nn.Sequential(nn.Linear(8, 8)) for _ in range(3))
            self.add_module(f"stack{index}", nn.ModuleDict({"layers": blocks}))

    def get_input_embeddings(self) -> nn.Module:
        return self.embed


def test_an_unreadable_model_shows_its_tree() -> None:
    with pytest.raises(ModelError, match=r"no list of 5 blocks.*stack0: ModuleDict \(layers: ModuleList\[3\]\)"):
        find_blocks(Stranger(1, count=5))


def test_two_equal_stacks_are_not_guessed_between() -> None:
    with pytest.raises(ModelError, match=r"stack0\.layers and stack1\.layers could each be"):
        find_blocks(Stranger(2))


def test_a_module_without_config_is_refused() -> None:
    with pytest.raises(ModelError, match="has no config"):
        find_blocks(nn.Linear(2, 2))


def test_a_config_without_sizes_is_refused() -> None:
    stranger = Stranger(1)
    stranger.config = object()
    with pytest.raises(ModelError, match="no number of layers"):
        find_blocks(stranger)


def test_module_tree_shows_lists_with_their_length() -> None:
    assert "layers: ModuleList[4]" in module_tree(tiny_model("llama"))
