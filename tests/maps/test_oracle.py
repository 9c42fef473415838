"""A widened copy of a model: the right map is known, and transplanting through it must be exact."""

import pytest
import torch
from transformers import LlamaForCausalLM

from contrans.concepts import ContrastSet, refine
from contrans.errors import ArtifactError, BlockError, CircularityError, FitError, TextError
from contrans.maps import Corpus, MapSet, corpus, fit_map
from contrans.maps.corpora import check_circularity
from contrans.models import Model
from contrans.transplants import transplant
from tests.tiny import tiny, tiny_config, tiny_tokenizer

SMALL, WIDE = 32, 48
PAIRS = [(f"the cat sat {i} times", f"one stone {i}") for i in range(30)]
CONTRAST = ContrastSet.from_pairs("c", PAIRS)
WORDS = ["the", "cat", "and", "sat", "there", "with", "their", "mother", "she", "thinks", "is", "stone", "alone", "on"]


def texts(n: int = 600, seed: int = 0) -> Corpus:
    g = torch.Generator().manual_seed(seed)
    lines = [" ".join(WORDS[int(i)] for i in torch.randint(len(WORDS), (8,), generator=g)) + f" {k}" for k in range(n)]
    return Corpus("made", tuple(lines), tuple(map(str, range(n))), ("plain",) * n)


def widened(small: Model) -> tuple[Model, torch.Tensor]:
    """A copy with a wider residual stream that computes the same, and the embedding Q [32, 48] of one in the other.

    h' = h Q with orthonormal rows: what writes to the stream is multiplied by Q, what reads from it by Qᵀ. The norms
    are made blind to the change: their weights become one and move into the readers, and ‖h'‖² = ‖h‖² only differs
    by the mean over more dimensions, which the epsilon and a factor √(48/32) put right.
    """
    q = torch.linalg.qr(torch.randn((WIDE, WIDE), generator=torch.Generator().manual_seed(7), dtype=torch.float64))[0][
        :SMALL
    ]
    q = q.float()
    config = tiny_config("llama", hidden_size=WIDE)
    old = small.module
    config.num_attention_heads, config.num_key_value_heads = (
        old.config.num_attention_heads,
        old.config.num_key_value_heads,
    )
    config.head_dim, config.intermediate_size = old.config.head_dim, old.config.intermediate_size
    config.rms_norm_eps = old.config.rms_norm_eps * SMALL / WIDE
    config.tie_word_embeddings = False
    new = LlamaForCausalLM(config).eval()
    grow = (WIDE / SMALL) ** -0.5

    def read(weight: torch.Tensor, norm: torch.Tensor) -> torch.Tensor:
        return (weight * norm) @ q * grow

    with torch.no_grad():
        new.model.embed_tokens.weight.copy_(old.model.embed_tokens.weight @ q)
        for a, b in zip(new.model.layers, old.model.layers, strict=True):
            for name in ("q_proj", "k_proj", "v_proj"):
                getattr(a.self_attn, name).weight.copy_(
                    read(getattr(b.self_attn, name).weight, b.input_layernorm.weight)
                )
            for name in ("gate_proj", "up_proj"):
                getattr(a.mlp, name).weight.copy_(read(getattr(b.mlp, name).weight, b.post_attention_layernorm.weight))
            a.self_attn.o_proj.weight.copy_(q.T @ b.self_attn.o_proj.weight)
            a.mlp.down_proj.weight.copy_(q.T @ b.mlp.down_proj.weight)
            a.input_layernorm.weight.fill_(1)
            a.post_attention_layernorm.weight.fill_(1)
        new.model.norm.weight.fill_(1)
        new.lm_head.weight.copy_(read(old.lm_head.weight, old.model.norm.weight))
    return Model.wrap(new, tiny_tokenizer(), reference="tiny-widened"), q


@pytest.fixture(scope="module")
def pair():
    small = tiny("llama")
    wide, q = widened(small)
    return small, wide, q


def logits(model: Model, text: str) -> torch.Tensor:
    with torch.inference_mode():
        return model.module(**model.tokenizer(text, return_tensors="pt")).logits


def test_the_widened_copy_is_the_same_function(pair):
    small, wide, _ = pair
    torch.testing.assert_close(logits(wide, PAIRS[0][0]), logits(small, PAIRS[0][0]), rtol=1e-4, atol=1e-4)


def test_map_vector_and_steered_logits_are_exact(pair):
    small, wide, q = pair
    across = fit_map(small, wide, texts(), source_blocks=[2], target_blocks=[2], judged_by=[CONTRAST])
    m = across[2, 2]
    # the λ of 10⁻⁶ mean eigenvalues is what is left of an error
    assert (m.weight - q).norm() / q.norm() < 1e-5
    assert m.info["heldout_r2"] > 1 - 1e-8
    source = refine(small, CONTRAST, blocks=[2], split=None)
    true = source.directions[2] @ q
    mapped = across.map_direction(source, rescale="none")
    assert (mapped.directions[2] - true).norm() / true.norm() < 1e-5
    # the two streams are equally long, so equal doses are equal shifts
    scaled = across.map_direction(source)
    assert scaled.directions[2].norm() == pytest.approx(float(true.norm()), rel=1e-4)
    with transplant(small, source, dose=0.5):
        steered = logits(small, "the cat and the stone")
    dose = 0.5 * source.residual_norm[2] / mapped.residual_norm[2]
    with transplant(wide, mapped, dose=dose):
        torch.testing.assert_close(logits(wide, "the cat and the stone"), steered, rtol=1e-3, atol=1e-3)
    assert scaled.provenance["survival"]["2"] > 0.999


def test_states_map_with_the_bias_and_directions_without(pair):
    small, wide, _ = pair
    m = fit_map(small, wide, texts(), source_blocks=[1], target_blocks=[3])[1, 3]
    h = m.source_mean + 0.1
    torch.testing.assert_close(m.map_state(m.source_mean), m.target_mean, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(
        m.map_state(h) - m.map_state(m.source_mean),
        m.map_direction(h - m.source_mean, rescale="none"),
        rtol=1e-3,
        atol=1e-4,
    )


def test_files_hold_the_maps_whole(pair, tmp_path):
    small, wide, _ = pair
    made = fit_map(small, wide, texts(60), source_blocks=[1, 2], target_blocks=[2])
    again = MapSet.load(made.save(tmp_path / "m"))
    assert again.to_files() == made.to_files()
    assert torch.equal(again[1, 2].weight, made[1, 2].weight)
    with pytest.raises(BlockError, match="Several maps lead to one target block"):
        again.map_direction(refine(small, CONTRAST, split=None))
    picked = again.select((1, 2)).map_direction(refine(small, CONTRAST, split=None))
    assert picked.blocks == [2]
    with pytest.raises(BlockError, match="no map from block 0"):
        again[0, 2]
    files = made.to_files()
    with pytest.raises(ArtifactError, match="missing or damaged"):
        MapSet.from_files({**files, "affine_map.safetensors": files["affine_map.safetensors"][:50]})


def test_circularity_is_refused_whole_and_inside_a_template(pair):
    small, wide, _ = pair
    bad = texts(60)
    bad = Corpus("bad", (*bad.texts[:-1], f"Scenario:  {PAIRS[3][0].upper()} and so on"), bad.documents, bad.kinds)
    with pytest.raises(CircularityError, match="the cat sat 3 times"):
        fit_map(small, wide, bad, judged_by=[CONTRAST])
    check_circularity(texts(60).texts, CONTRAST.texts)


def test_why_circularity_matters():
    """With contrast texts in the fit and few rows, min-norm gives back a pure-noise target's own vector."""
    from contrans.maps.estimators import paper
    from contrans.maps.paired import PairedStates

    g = torch.Generator().manual_seed(0)
    x, noise = torch.randn((40, 64), generator=g), torch.randn((40, 64), generator=g)
    paired = PairedStates(x, noise, [str(i) for i in range(40)])
    keep = (~paired.is_held_out).nonzero().flatten()
    positive, negative = keep[:16], keep[16:32]
    source_vector = x[positive].mean(0) - x[negative].mean(0)
    own_vector = noise[positive].mean(0) - noise[negative].mean(0)
    mapped = source_vector.double() @ paper(paired).weight
    assert torch.nn.functional.cosine_similarity(mapped, own_vector.double(), dim=0) > 0.999


def test_corpora(tmp_path):
    shipped = corpus()
    assert len(shipped) >= 3000
    assert shipped.licence == "Apache-2.0"
    cut = shipped.take(50).truncate()
    assert all(
        s.startswith(c) and 2 <= len(s.split()) - len(c.split()) <= 4
        for s, c in zip(shipped.texts, cut.texts, strict=False)
    )
    wrapped = shipped.take(3).wrap("Say {text}!")
    assert wrapped.texts[0] == f"Say {shipped.texts[0]}!"
    both = cut + wrapped
    assert both.only(["wrapped"]) == [50, 51, 52]
    (tmp_path / "c.txt").write_text("one\n\ntwo\n")
    assert corpus(tmp_path / "c.txt").texts == ("one", "two")
    (tmp_path / "e.txt").write_text("\n")
    (tmp_path / "b.jsonl").write_text('{"text": "a"}\n{"no": 1}\n')
    for name, says in [("e.txt", "is empty"), ("b.jsonl", "Line 2"), ("no.txt", "cannot be read")]:
        with pytest.raises(TextError, match=says):
            corpus(tmp_path / name)
    with pytest.raises(TextError, match="No corpus is called"):
        corpus("novels")
    with pytest.raises(TextError, match="ask for fewer rows"):
        shipped.take(10**6)
    with pytest.raises(TextError, match=r"has no \{text\}"):
        shipped.wrap("nothing")


def test_bad_input(pair):
    small, wide, _ = pair
    with pytest.raises(FitError, match="No map estimator is called 'magic'"):
        fit_map(small, wide, texts(60), estimator="magic")
    with pytest.raises(BlockError, match="has no block 7"):
        fit_map(small, wide, texts(60), source_blocks=[7])
    across = fit_map(small, wide, texts(60), source_blocks=[2], target_blocks=[2])
    with pytest.raises(ArtifactError, match="belongs to tiny-widened"):
        across.map_direction(refine(wide, CONTRAST, split=None))
    with pytest.raises(FitError, match="Rescaling"):
        across[2, 2].map_direction(torch.ones(SMALL), rescale="twice")
    with pytest.raises(FitError, match="sends this direction to zero"):
        across[2, 2].map_direction(torch.zeros(SMALL))
