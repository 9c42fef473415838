"""Maps on all tokens: the streaming moments against all rows at once, and memory that stays."""

import gc
import logging
from dataclasses import replace

import numpy as np
import pytest
import torch
from tokenizers import AddedToken

from contrans.errors import FitError, StateError
from contrans.maps import Corpus, fit_map
from contrans.maps.estimators import lstsq
from contrans.maps.fit import fit_states
from contrans.maps.paired import PairedStates, held_out_documents
from contrans.maps.streaming import TokenMoments, stream_moments
from contrans.models import Model
from contrans.states import Moments, capture, iter_states, pair_by_offset
from contrans.states.by_kind import MomentsByKind
from contrans.states.pairing import pair_positions
from tests.models.test_encoders import encoder
from tests.states.test_pairing import bytes_only, word_piece
from tests.tiny import tiny

WORDS = ["the", "cat", "and", "sat", "there", "with", "their", "mother", "she", "thinks", "is", "stone", "alone", "on"]


def texts(n: int) -> Corpus:
    g = torch.Generator().manual_seed(1)
    lines = [" ".join(WORDS[int(i)] for i in torch.randint(len(WORDS), (7,), generator=g)) for _ in range(n)]
    return Corpus("made", tuple(lines), tuple(f"d{k // 2}" for k in range(n)), ("plain",) * n)


def mixed(n: int) -> Corpus:
    """Plain texts, and half as many in each of two templates."""
    c = texts(n)
    kinds = ["asked" if i % 4 == 1 else "said" if i % 4 == 3 else "plain" for i in range(n)]
    form = {"plain": "{}", "asked": "is it the cat? {}: yes", "said": "they said {}."}
    lines = tuple(form[kind].format(line) for kind, line in zip(kinds, c.texts, strict=True))
    return replace(c, texts=lines, kinds=tuple(kinds))


def rows(model, lines, block):
    out = {}
    for batch in iter_states(model, lines, blocks=[block]):
        for row, i in enumerate(batch.indices):
            out[i] = (batch.hidden[block][row, : int(batch.lengths[row])].double().numpy(), batch.ends[row])
    return out


def test_equals_all_rows_at_once_across_tokenizers_and_chunks():
    source, target = tiny("llama"), tiny("gpt2", vocab="pieces", hidden_size=48)
    c = texts(300)
    got = stream_moments(source, target, c, source_blocks=[2], target_blocks=[1])[2, 1]
    of_source, of_target = rows(source, c.texts, 2), rows(target, c.texts, 1)
    aside = held_out_documents(c.documents, 0.2, 0)
    x, y = [], []
    for i, document in enumerate(c.documents):
        p = pair_by_offset(of_source[i][1], of_target[i][1])
        if document not in aside:
            x.append(of_source[i][0][p.source])
            y.append(of_target[i][0][p.target])
    a, b = np.concatenate(x), np.concatenate(y)
    assert got.train.n == len(a)
    assert got.held.n > 0
    np.testing.assert_allclose(got.train.mean_x, a.mean(0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(got.train.sxy, (a - a.mean(0)).T @ (b - b.mean(0)), rtol=1e-4, atol=1e-2)
    assert got.target_norm == pytest.approx(np.median(np.linalg.norm(b, axis=1)), rel=0.05)


def test_a_map_on_all_tokens():
    source, target = tiny("llama"), tiny("llama", seed=1)
    m = fit_map(source, target, texts(200), source_blocks=[1, 2], target_blocks=[2], tokens="all")
    assert sorted(m.maps) == [(1, 2), (2, 2)]
    assert m[1, 2].info["n"] > 1000
    same = fit_map(source, source, texts(200), source_blocks=[2], target_blocks=[2], tokens="all")[2, 2]
    torch.testing.assert_close(same.weight, torch.eye(32), rtol=0, atol=1e-3)
    with pytest.raises(FitError, match="from their moments alone"):
        fit_map(source, target, texts(20), tokens="all", estimator="paper")
    with pytest.raises(FitError, match="'last' or 'all'"):
        fit_map(source, target, texts(20), tokens="some")


def test_memory_does_not_grow_with_the_corpus():
    source, target = tiny("llama"), tiny("llama", seed=1)

    def grown(n: int) -> int:
        alive = 0  # values in all new tensors at once: they live outside of Python's allocator

        def count(_tokens: int) -> None:
            nonlocal alive
            gc.collect()  # what waits for the collector is not in use
            alive = max(alive, sum(t.numel() for t in gc.get_objects() if type(t) is torch.Tensor))

        settings = {"source_blocks": [2], "target_blocks": [2], "batch_tokens": 2048, "progress": count}
        gc.collect()
        gc.freeze()  # what is there before, other tests' too, is neither collected again nor counted
        try:
            stream_moments(source, target, mixed(n), center="kind", share={"said": 0.4}, per_document=20, **settings)
        finally:
            gc.unfreeze()
        return alive

    grown(256)
    assert grown(640) < 1.1 * grown(256)


def paired_rows(source, target, c: Corpus, ls: int, lt: int, **settings) -> PairedStates:
    """All paired tokens at once, through the class that serves last tokens."""
    of_source, of_target = rows(source, c.texts, ls), rows(target, c.texts, lt)
    pairs = pair_positions(source, target, c.texts).texts
    x = [of_source[i][0][p.source] for i, p in enumerate(pairs)]
    y = [of_target[i][0][p.target] for i, p in enumerate(pairs)]
    documents = [c.documents[i] for i, p in enumerate(pairs) for _ in p.source]
    kinds = [c.kinds[i] for i, p in enumerate(pairs) for _ in p.source]
    a, b = torch.tensor(np.concatenate(x)), torch.tensor(np.concatenate(y))
    return PairedStates(a, b, documents, kinds=kinds, **settings)


def same(one: Moments, other: Moments) -> None:
    assert one.n == other.n
    for name in ("mean_x", "mean_y", "sxx", "sxy"):
        a, b = getattr(one, name), getattr(other, name)
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5 * float(b.abs().max()))
    assert one.syy == pytest.approx(other.syy, rel=1e-5)


@pytest.mark.parametrize("center", ["all", "kind"])
@pytest.mark.parametrize("share", [{}, {"asked": 0.6}, {"asked": 0.2, "said": 0.2, "plain": 0.6}])
def test_centring_and_shares_equal_those_of_all_rows_at_once(center, share):
    source, target = tiny("llama"), tiny("gpt2", vocab="pieces", hidden_size=48)
    c = mixed(200)
    got = stream_moments(source, target, c, source_blocks=[2], target_blocks=[1], center=center, share=share)[2, 1]
    expected = paired_rows(source, target, c, 2, 1, center=center, share=share)
    same(got.train, expected.train)
    same(got.held, expected.held)
    same(got.whole, expected.whole)
    spread = [float(rows.var(0, correction=0).sum().sqrt()) for rows in (expected.x, expected.y)]
    assert got.spreads == pytest.approx(spread, rel=1e-5)


def test_a_weighted_fit_equals_numpy():
    source, target = tiny("llama", hidden_size=16), tiny("llama", seed=1, hidden_size=16)
    c = mixed(120)
    share = {"asked": 0.6}
    p = paired_rows(source, target, c, 1, 2)
    x, y, kinds = p.x.numpy(), p.y.numpy(), np.array(p.kinds)
    w = np.where(kinds == "asked", 0.6 / (kinds == "asked").sum(), 0.4 / (kinds != "asked").sum())[:, None] ** 0.5
    for center, extra in (("all", np.ones((len(x), 1))), ("kind", kinds[:, None] == np.unique(kinds))):
        # an intercept, or one for each kind
        design = np.hstack([x, extra])
        expected = np.linalg.lstsq(w * design, w * y, rcond=None)[0][:16]
        settings = {"source_blocks": [1], "target_blocks": [2], "center": center, "share": share}
        streamed = stream_moments(source, target, c, **settings)[1, 2]
        made = fit_map(source, target, c, tokens="all", estimator="lstsq", **settings)[1, 2]
        for weight in (lstsq(streamed).weight, made.weight):
            np.testing.assert_allclose(weight, expected, rtol=1e-3, atol=1e-3 * abs(expected).max())
        assert made.source_spread == pytest.approx(x.var(0).sum() ** 0.5, rel=1e-4)
        assert made.target_spread == pytest.approx(y.var(0).sum() ** 0.5, rel=1e-4)
        assert (made.info["pairing"], made.info["match_rate"]) == ("position", 1.0)
        assert (made.info["center"], made.info["share"]) == (center, share)


def test_at_most_so_many_pairs_of_a_document():
    source, target = tiny("llama"), tiny("gpt2", vocab="pieces")
    c = mixed(160)
    settings = {"source_blocks": [2], "target_blocks": [1]}
    counts: dict[str, int] = {}
    for document, pairs in zip(c.documents, pair_positions(source, target, c.texts).texts, strict=True):
        counts[document] = counts.get(document, 0) + len(pairs)
    seen: list[int] = []
    few = stream_moments(source, target, c, per_document=5, progress=seen.append, **settings)[2, 1]
    assert few.whole.n == 5 * 80 < sum(counts.values())
    assert few.held.n == 5 * len(held_out_documents(c.documents, 0.2, 0))
    assert few.info["per_document"] == 5
    order = torch.randperm(80, generator=torch.Generator().manual_seed(0)).tolist()
    moved = [j for d in order for j in (2 * d, 2 * d + 1)]
    other = Corpus("moved", *(tuple(part[i] for i in moved) for part in (c.texts, c.documents, c.kinds)))
    same(stream_moments(source, target, other, per_document=5, **settings)[2, 1].whole, few.whole)
    assert not torch.allclose(
        stream_moments(source, target, c, per_document=5, seed=1, **settings)[2, 1].whole.sxx, few.whole.sxx
    )
    every = stream_moments(source, target, c, per_document=max(counts.values()), **settings)[2, 1]
    same(every.whole, stream_moments(source, target, c, **settings)[2, 1].whole)
    # a text without any pick is not read
    one: list[int] = []
    stream_moments(source, target, c, per_document=1, progress=one.append, **settings)
    assert sum(one) < 0.6 * sum(seen)


def test_sinks_of_either_model_are_left_out():
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn((50, 4), generator=g), torch.randn((50, 3), generator=g)
    x[7] *= 1e3
    y[30] *= 1e3
    kept = TokenMoments(MomentsByKind(4, 3), MomentsByKind(4, 3), "all", {})
    held = torch.arange(50) >= 40
    kept.update(["plain"] * 50, held, x, y)
    rest = [i for i in range(50) if i not in (7, 30)]
    same(kept.whole, Moments.of(x[rest], y[rest]))
    assert kept.held.n == 10
    assert kept.target_norm == pytest.approx(float(y[rest].norm(dim=1).median()))


def strangers() -> tuple[Model, Model]:
    """A model that reads letters, and one that reads runs of words as one token each."""
    source, target = tiny("llama"), tiny("llama", seed=1, vocab_size=300)
    c = texts(20)
    target.tokenizer.add_tokens([AddedToken(line[:-1], normalized=False) for line in c.texts])
    return source, target


def test_unlike_tokenizers_are_warned_of(caplog):
    source, target = strangers()
    with caplog.at_level(logging.WARNING):
        made = stream_moments(source, target, texts(20), source_blocks=[1], target_blocks=[1])[1, 1]
    assert 0 < made.info["match_rate"] < 0.24
    assert "sees hardly any of the states" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        stream_moments(source, source, texts(20), source_blocks=[1], target_blocks=[1])
    assert not caplog.records


def test_bad_settings_and_states():
    source, target = tiny("llama"), tiny("llama", seed=1)
    blocks = {"source_blocks": [1], "target_blocks": [1]}
    with pytest.raises(FitError, match="center must be one of all, kind"):
        stream_moments(source, target, texts(20), center="document", **blocks)
    with pytest.raises(FitError, match="per_document must be at least 1"):
        stream_moments(source, target, texts(20), per_document=0, **blocks)
    with pytest.raises(FitError, match="no rows of kind 'wrapped'"):
        fit_map(source, target, texts(20), tokens="all", share={"wrapped": 0.5})
    target.blocks[1].mlp.down_proj.weight[0, 0] = float("inf")
    with pytest.raises(StateError, match="states that are not finite at block 1; float16 overflows"):
        stream_moments(source, target, texts(20), **blocks)


def reads_letters(model: Model, states: dict[str, torch.Tensor], letter_of: dict[str, str], seed: int) -> None:
    """Makes the state of a token that of its last letter, at every block: no other token has any part in it.

    Args:
        model: whose blocks then add nothing to the embeddings.
        states: the state of each letter, of mean 0 and variance 1 where the model has norms between its blocks.
        letter_of: the letter that a token's last sign stands for; the sign itself if it is not there.
        seed: of the states of all other tokens.
    """
    adds = ("attention.output.dense", "output.dense", "o_proj", "down_proj", "position_embeddings", "token_type")
    for name, weight in model.module.named_parameters():
        if "LayerNorm" in name:
            weight.fill_(float(name.endswith("weight")))
        elif any(part in name for part in adds):
            weight.zero_()
    g = torch.Generator().manual_seed(seed)
    table = model.module.get_input_embeddings().weight
    for token, i in model.tokenizer.get_vocab().items():
        state = states.get(letter_of.get(token[-1], token[-1]))
        table[i] = torch.randn(table.shape[1], generator=g) if state is None else state


def test_an_encoder_of_word_pieces_gives_the_map_that_was_planted():
    words = ["Über", "Café", "thé", "quick", "brown", "FOX", "jumps", "over", "lazy", "naïve", "Señor", "vizier"]
    source = Model.wrap(encoder("bert"), word_piece("cafe", "##ck", "##umps", "fox"))
    target = Model.wrap(tiny("llama", hidden_size=24, vocab_size=256).module, bytes_only())
    g = torch.Generator().manual_seed(0)
    plain = source.tokenizer.backend_tokenizer.normalizer.normalize_str
    x = torch.randn((26, 32), generator=g)
    x = (x - x.mean(1, keepdim=True)) / x.std(1, keepdim=True, correction=0)
    y = x @ torch.randn((32, 24), generator=g) + torch.randn(24, generator=g)
    letters = "abcdefghijklmnopqrstuvwxyz"
    reads_letters(source, dict(zip(letters, x, strict=True)), {}, seed=1)
    # the last byte of a sign stands for its letter without case and accent, which is what the source reads
    last_sign = {target.tokenizer.tokenize(letter)[-1]: plain(letter) for letter in "".join(words)}
    reads_letters(target, dict(zip(letters, y, strict=True)), last_sign, seed=2)

    lines = [" ".join(words[int(i)] for i in torch.randint(len(words), (6,), generator=g)) + "." for _ in range(60)]
    c = Corpus("made", tuple(lines), tuple(f"d{i}" for i in range(60)), ("plain",) * 60)
    made = fit_map(source, target, c, source_blocks=[2], target_blocks=[3], tokens="all")[2, 3]
    assert made.info["pairing"] == "offset"
    # every piece ends where a byte does, but a first letter may end at the target's position 0; no [CLS], no [SEP]
    pieces = [source.tokenizer.tokenize(line) for line in lines]
    lost = sum(len(first[0]) == 1 and line[0].isascii() for first, line in zip(pieces, lines, strict=True))
    assert 0 < lost < 60
    assert made.info["n"] == sum(map(len, pieces)) - lost
    assert made.info["match_rate"] == pytest.approx(made.info["n"] / sum(map(len, pieces)))
    assert made.info["heldout_r2"] > 0.999
    read = [i for i, letter in enumerate(letters) if any(plain(w).endswith(letter) for w in words)]
    torch.testing.assert_close(made.map_state(x)[read], y[read], rtol=1e-3, atol=1e-2)


def test_a_map_from_the_mean_of_an_encoders_tokens():
    """Read so where nothing else is asked for; the same map as of states read by hand. All tokens have no mean."""
    source = Model.wrap(encoder("bert"), word_piece("the", "cat", "##er", "stone"))
    target = tiny("llama", seed=1, hidden_size=48)
    c = texts(80)
    made = fit_map(source, target, c, source_blocks=[3], target_blocks=[2])[3, 2]
    read = []
    for line in c.texts:
        ids = source.tokenizer(line, return_tensors="pt")["input_ids"]
        handle = source.blocks[3].register_forward_hook(lambda _m, _a, o: read.append(o[0, 1:-1].mean(0)))
        with torch.inference_mode():
            source.module(input_ids=ids)
        handle.remove()
    last = capture(target, c.texts, blocks=[2])[2]
    by_hand = fit_states(
        {3: torch.stack(read)}, {2: last}, documents=c.documents, source=source.record, target=target.record
    )[3, 2]
    assert made.info["source_position"] == "mean"
    torch.testing.assert_close(made.weight, by_hand.weight, rtol=1e-3, atol=1e-3 * float(by_hand.weight.abs().max()))
    with pytest.raises(FitError, match="none of them is read at 'mean'"):
        fit_map(source, target, c, source_blocks=[3], target_blocks=[2], tokens="all", source_position="mean")


@pytest.mark.parametrize("architecture", ["bert", "albert", "modernbert"])
def test_encoders_are_mapped_from(architecture):
    source = Model.wrap(encoder(architecture), word_piece("the", "cat", "##er", "stone"))
    target = tiny("llama", seed=1, hidden_size=48)
    made = fit_map(source, target, texts(80), source_blocks=[1, 3], target_blocks=[2], tokens="all")
    for m in made:
        assert m.weight.shape == (32, 48)
        assert bool(torch.isfinite(m.weight).all())
        assert m.info["heldout_r2"] > 0
        assert m.info["n"] > 400
