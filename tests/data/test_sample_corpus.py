import json
import random
from collections import Counter
from importlib.resources import files
from pathlib import Path

import pytest
import torch

from contrans.data.corpus_prompts import Pool, RequestMaker
from contrans.data.passage_filter import PassageFilter, cut_at_sentence_end, flaw, shingles
from contrans.data.sample_corpus import SHARES, Sampling, main, sample_passages, sample_tokens, write_corpus
from contrans.errors import TextError
from tests.tiny import tiny_model, tiny_tokenizer

PLAIN = "You open the old wooden gate and a small dog runs out."


@pytest.fixture(scope="module")
def pool() -> Pool:
    return Pool.read(Path(str(files("contrans.data"))) / "corpora")


@pytest.mark.parametrize(
    ("text", "min_words", "expected"),
    [
        (f"{PLAIN} Then it", 8, PLAIN),
        ("Dr. Hall walked to the old house at 4. Main Street in the", 8, None),
        ("It cost Mr. Hall 3.50 to cross by bus. He", 8, "It cost Mr. Hall 3.50 to cross by bus."),
        ("Stop now. The train is about to leave us! All", 8, "Stop now. The train is about to leave us!"),
        ('"Do not open it. It is cold," she said.', 4, '"Do not open it. It is cold," she said.'),
        ("She said “we should all leave now.” Then", 6, 'She said "we should all leave now."'),
        ("Too short a sentence.", 8, None),
        ("A text that never comes to any end at all and", 8, None),
    ],
)  # fmt: skip
def test_cut_at_sentence_end(text: str, min_words: int, expected: str | None) -> None:
    assert cut_at_sentence_end(text, min_words=min_words) == expected


@pytest.mark.parametrize(
    ("passage", "expected"),
    [
        (PLAIN, None),
        ("The café on the corner opens at seven every morning.", None),
        ("The rain stopped. We walked home along the quiet river.", None),
        ('"Have you seen my keys anywhere?" asked the old man again.', None),
        ("Only seven words stand in this one.", "length"),
        (" ".join(["The", *[f"word{chr(97 + i % 26)}{i}" for i in range(33)]]) + ".", "length"),
        ("You open the old wooden gate and a small dog runs", "unfinished"),
        ("One is here now. Two are there now. Three is too many.", "sentences"),
        ("the gate is open and a small dog runs out.", "start"),
        ("Sure, the gate is open and a small dog runs out.", "start"),
        ("Here is the gate that the small dog ran through today.", "start"),
        ("The gate is open\nand a small dog runs out now.", "line break"),
        ("The gate is open and a 小 dog runs out now.", "script"),
        ("The **gate** is open and a small dog runs out now.", "markup"),
        ("Read all about it on www.example.net before you go home.", "markup"),
        ("- The gate is open and a small dog runs out.", "start"),
        ("The gate was open... and a small dog ran out.", "markup"),
        ("Call 555 0199 22 before the small dog runs out.", "digits"),
        ("The GATE IS OPEN AND a small dog runs out.", "shouting"),
        ("As an AI I cannot open the gate for you.", "assistant talk"),
        ("In one sentence, the gate is open for the dog.", "assistant talk"),
        ("The small dog ran out and she felt Fear at once.", "concept word"),
        ("The small dog ran out and was quite fearless about it.", None),
        ("The gate is very very old and a dog runs out.", "repeated word"),
        ("The top of the roof of the roof fell down.", "repeated phrase"),
        ("The gate was open.A small dog ran out of it.", "glued"),
        ("The gate (which is old was open for the dog.", "brackets"),
        ("Is the gate still open for the small dog today?", "not a question"),
    ],
)
def test_flaw(passage: str, expected: str | None) -> None:
    assert flaw(passage) == expected


@pytest.mark.parametrize(
    ("passage", "expected"),
    [
        ("Why is the old gate still open at this hour?", None),
        (PLAIN, "question"),
        ("The gate is open at this hour, no?", "question"),
    ],
)
def test_questions_begin_and_end_as_questions(passage: str, expected: str | None) -> None:
    assert flaw(passage, question=True) == expected


def test_duplicates_and_equal_starts_are_refused() -> None:
    accept = PassageFilter()
    assert accept.reject(PLAIN) is None
    assert accept.reject(PLAIN.replace("small", "Small")) == "duplicate"
    assert accept.reject(PLAIN.replace("out", "away")) == "near duplicate"
    tails = ["first door on my left", "tin of red paint", "heavy book about ships", "shop on Sunday night"]
    tails += ["letter from an uncle", "drawer full of spoons", "window behind those chairs"]
    reasons = [accept.reject(f"You open the {tail} and hear {n} bells.") for n, tail in enumerate(tails)]
    assert reasons == [None] * 5 + ["same start"] * 2


def test_near_duplicates_agree_with_brute_force() -> None:
    words = [f"{a}{b}" for a in ("ba", "ke", "li", "mo") for b in ("ran", "sol", "tip", "dur")]
    draw = random.Random(0)
    accept, kept = PassageFilter(), []
    for number in range(300):
        # A few of sixteen words are replaced, so that overlaps fall on both sides of one half.
        changed = set(draw.sample(range(16), draw.choice([1, 2, 4, 16])))
        body = [f"{w}{draw.choice('xyz')}" if i in changed else w for i, w in enumerate(words)]
        text = f"{draw.choice('ABCDEFGH')}{number} {' '.join(body)}."
        parts = shingles(text)
        near = any(len(parts & other) >= 0.5 * len(parts | other) for other in kept)
        assert (accept.reject(text) == "near duplicate") == near
        if not near:
            kept.append(parts)
    assert 5 < len(kept) < 250


def test_rows_that_leave_a_padded_batch_do_not_change_the_others() -> None:
    module = tiny_model("llama")
    draw = torch.Generator().manual_seed(1)
    prompts = [torch.randint(3, 100, (n,), generator=draw).tolist() for n in (3, 9, 1, 6)]
    lengths = [12, 3, 7, 20]
    written = sample_tokens(
        module,
        prompts,
        stop=lambda row, tokens: len(tokens) == lengths[row],
        sampling=Sampling(top_k=1, max_new_tokens=16),
        generator=torch.Generator().manual_seed(0),
    )
    for prompt, length, new in zip(prompts, lengths, written, strict=True):
        ids = list(prompt)
        for _ in range(min(length, 16)):
            ids.append(int(module(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
        assert new == ids[len(prompt) :]


def test_top_p_keeps_the_smallest_set_that_reaches_it() -> None:
    module = tiny_model("llama")
    prompt = [5, 6, 7]
    share = module(input_ids=torch.tensor([prompt])).logits[0, -1].softmax(-1).sort(descending=True)
    nucleus = int((share.values.cumsum(-1) < 0.3).sum()) + 1
    drawn = sample_tokens(
        module,
        [prompt] * 2000,
        stop=lambda row, tokens: True,
        sampling=Sampling(temperature=1.0, top_k=64, top_p=0.3),
        generator=torch.Generator().manual_seed(0),
    )
    assert {tokens[0] for tokens in drawn} <= set(share.indices[:nucleus].tolist())
    counts = Counter(tokens[0] for tokens in drawn)
    expected = float(share.values[0] / share.values[:nucleus].sum())
    assert counts[int(share.indices[0])] / 2000 == pytest.approx(expected, abs=0.05)


def test_requests_are_reproducible_and_start_with_their_opening(pool: Pool) -> None:
    makers = [RequestMaker(pool, tiny_tokenizer(), seed=3) for _ in range(2)]
    for kind in SHARES:
        requests = [[maker.draw(kind) for _ in range(50)] for maker in makers]
        assert requests[0] == requests[1]
        assert all(r.kind == kind and r.prompt.endswith(r.opening) for r in requests[0])
        assert len({r.prompt for r in requests[0]}) > 25


def test_a_model_that_writes_no_sentences_is_refused(pool: Pool) -> None:
    sampling = Sampling(top_k=64, batch=16, max_new_tokens=4)
    with pytest.raises(TextError, match="Too few samples pass the filter"):
        list(sample_passages(tiny_model("llama"), tiny_tokenizer(), pool=pool, count=4, seed=0, sampling=sampling))


def test_the_file_holds_a_header_and_the_inoffensive_passages(pool: Pool, tmp_path: Path) -> None:
    drawn = [
        {"text": PLAIN, "kind": "fact"},
        {"text": "A man was murdered at the gate.", "kind": "situation"},
    ]
    write_corpus(tmp_path / "p.jsonl", drawn, model="m", licence="l", pool=pool, seed=7, sampling=Sampling(batch=16))
    assert [path.name for path in tmp_path.iterdir()] == ["p.jsonl"]
    header, *lines = map(json.loads, (tmp_path / "p.jsonl").read_text(encoding="utf-8").splitlines())
    assert lines == drawn[:1]
    assert (header["format_version"], header["model"], header["licence"]) == (1, "m", "l")
    assert (header["seed"], header["count"], header["settings"]["batch"]) == (7, 1, 16)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--count", "0"], "--count is 0"), (["--output", "no/such/folder/p.jsonl"], "There is no folder")],
)
def test_bad_arguments_end_before_anything_is_loaded(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    assert message in capsys.readouterr().err
