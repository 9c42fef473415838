"""Contrast sets that ship with the package, and what is refused."""

import re
from itertools import combinations

import pytest
import yaml

from contrans.concepts import ContrastSet, contrast_set, contrast_set_names, contrast_sets
from contrans.concepts.contrast import family_of
from contrans.concepts.splits import SPLITS, split_of
from contrans.concepts.template import fill
from contrans.errors import TextError
from contrans.hashing import text_hash

EMOTIONS = ["anger", "disgust", "fear", "happiness", "sadness", "surprise"]
EMOTION_WORDS = re.compile(
    r"\b(happ(y|i)|joy|glad\b|delight|cheerful|sad(ly|ness|der|den)?\b|sorrow|grie[fv]|unhapp|depress|tear(s|ful)\b|cry(ing)?\b"
    r"|ang(er|ry|rily)\b|fur(y|ious)|rage|annoy|irritat|outrage|fear|afraid|scar(y|ed|es)\b|terrif|terror|fright|panic"
    r"|disgust|revolt|repuls|nause|surpris|astonish|amaz|shock|startl|unexpected)",
    re.IGNORECASE,
)


def trigrams(text: str) -> set[tuple[str, ...]]:
    words = re.findall(r"[a-z']+", text.lower())
    return set(zip(words, words[1:], words[2:], strict=False))


@pytest.fixture(scope="module")
def emotions() -> list[ContrastSet]:
    return contrast_sets(["emotion/*"])


def test_six_emotions_of_at_least_ninety_scenarios(emotions):
    assert [c.concept for c in emotions] == EMOTIONS
    for c in emotions:
        assert len(c.positives) >= 90
        assert c.labels == tuple(EMOTIONS)
        assert len(c.negatives) == sum(len(o.positives) for o in emotions if o is not c)
        assert c.licence == "Apache-2.0"
        assert c.author


def test_no_emotion_word_stands_in_a_scenario(emotions):
    found = [(e.text, EMOTION_WORDS.search(e.text)) for c in emotions for e in c.positives]
    assert [(t, m.group()) for t, m in found if m] == []


def test_no_near_duplicates(emotions):
    grams = [(e.text, trigrams(e.text)) for c in emotions for e in c.positives]
    assert len({text_hash(t) for t, _ in grams}) == len(grams)
    near = [(a, b) for (a, x), (b, y) in combinations(grams, 2) if len(x & y) > 0.4 * min(len(x), len(y))]
    assert near == []


@pytest.mark.parametrize("name", contrast_set_names())
def test_splits_are_disjoint_and_none_is_empty(name):
    c = contrast_set(name)
    texts = {s: {text_hash(e.text) for e in (*c.split(s).positives, *c.split(s).negatives)} for s in SPLITS}
    for one, other in combinations(SPLITS, 2):
        assert not texts[one] & texts[other]
    assert sum(map(len, texts.values())) == len({text_hash(t) for t in c.texts})
    assert all(len(c.split(s).positives) >= 15 for s in SPLITS)


@pytest.mark.parametrize(
    ("name", "least"),
    [
        ("civility", 100),
        ("honesty/persona", 200),
        ("honesty/statements", 200),
        ("honesty/character", 130),
        ("honesty/conduct", 130),
    ],
)
def test_pairs(name, least):
    c = contrast_set(name)
    assert c.paired
    assert len(c.positives) == len(c.negatives) >= least
    assert all(p.split == n.split for p, n in zip(c.positives, c.negatives, strict=True))
    assert len(c.labels) == 2 or name == "honesty/persona"


def test_a_split_is_fixed_by_the_text_alone():
    # written down: a change would move texts of published vectors between splits
    gold = {
        "one": "refine",
        "two": "refine",
        "three": "refine",
        "four": "refine",
        "five": "refine",
        "six": "refine",
        "seven": "refine",
        "eight": "dev",
        "nine": "test",
        "ten": "test",
        "eleven": "test",
        "twelve": "test",
    }
    assert {t: split_of(t) for t in gold} == gold
    assert split_of("The  Cat") == split_of("the cat")


def test_braces_in_templates_and_texts_are_themselves():
    assert fill("{prefix}: {text} {x}", "a {text} {y}", "P") == "P: a {text} {y} {x}"


def test_own_pairs_and_own_files(tmp_path):
    c = ContrastSet.from_pairs("warmth", [("it is hot", "it is cold"), ("warm", "cool")], template="Say: {text}")
    assert c.positives[0].prompt == "Say: it is hot"
    for emotion in ("calm", "haste"):
        (tmp_path / f"{emotion}.yaml").write_text(
            yaml.safe_dump(
                {
                    "format_version": 1,
                    "name": f"mood/{emotion}",
                    "concept": emotion,
                    "family": "mood",
                    "kind": "family",
                    "template": "{text} so",
                    "positive": [f"{emotion} {i}" for i in range(9)],
                }
            )
        )
    made = contrast_set(tmp_path / "calm.yaml")
    assert len(made.negatives) == 9
    assert [m.concept for m in family_of(tmp_path / "haste.yaml")] == ["calm", "haste"]
    assert [m.concept for m in contrast_sets([f"{tmp_path}/*.yaml"])] == ["calm", "haste"]
    assert [m.concept for m in family_of(f"{tmp_path}/*.yaml")] == ["calm", "haste"]


def test_answers(tmp_path):
    c = ContrastSet.from_pairs("honesty", [("q 1", "q 1"), ("q 2", "q 2")], answers=[("yes", "no"), ("so", "")])
    assert [(e.prompt, e.question, e.answer) for e in (*c.positives, *c.negatives)] == [
        ("q 1 yes", "q 1", "yes"),
        ("q 2 so", "q 2", "so"),
        ("q 1 no", "q 1", "no"),
        ("q 2", "q 2", ""),
    ]
    path = tmp_path / "set.yaml"
    pair = {"positive": "q 1", "negative": "q 1", "positive_answer": "yes", "negative_answer": "no"}
    raw = {"format_version": 1, "name": "h", "concept": "h", "kind": "pairs", "template": "Q: {text}", "pairs": [pair]}
    path.write_text(yaml.safe_dump(raw))
    assert contrast_set(path).negatives[0].prompt == "Q: q 1 no"
    with pytest.raises(TextError, match="1 pairs of answers were given for 2 pairs of texts"):
        ContrastSet.from_pairs("c", [("a", "b"), ("c", "d")], answers=[("yes", "no")])
    with pytest.raises(TextError, match="on both sides"):
        ContrastSet.from_pairs("c", [("q", "q")], answers=[("yes", "Yes")])


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("kind: pairs", "malformed at `format_version`"),
        ("- a\n- b", "must be a mapping"),
        ("a: [", "not valid YAML"),
        ("format_version: 9\nname: a\nconcept: a\nkind: pairs\ntemplate: '{text}'", "upgrade contrans"),
        ("format_version: 1\nname: a\nconcept: a\nkind: pairs\ntemplate: x", "has no {text}"),
        ("format_version: 1\nname: a\nconcept: a\nkind: pairs\ntemplate: '{text}'", "has no positive texts"),
        (
            "format_version: 1\nname: a\nconcept: a\nkind: pairs\ntemplate: '{text}'\npositive: [x]",
            "has no negative texts",
        ),
        (
            "format_version: 1\nname: a\nconcept: a\nkind: odd\ntemplate: '{text}'",
            "use family, pairs or prefixes",
        ),
        (
            "format_version: 1\nname: a\nconcept: a\nkind: pairs\ntemplate: '{text}'\nposs: [x]",
            "malformed at `poss`",
        ),
        (
            "format_version: 1\nname: a\nconcept: a\nkind: pairs\ntemplate: '{text}'\npositive: [x]\nnegative: [X]",
            "on both sides",
        ),
    ],
)
def test_malformed_files(tmp_path, content, says):
    path = tmp_path / "set.yaml"
    path.write_text(content)
    with pytest.raises(TextError, match=re.escape(says)):
        contrast_set(path)


def test_unknown_names():
    with pytest.raises(TextError, match="did you mean emotion/anger"):
        contrast_set("emotion/angr")
    with pytest.raises(TextError, match="matches 'moods/\\*'"):
        contrast_sets(["moods/*"])
    with pytest.raises(TextError, match=r"No file matches 'moods/\*\.yaml'"):
        contrast_sets(["moods/*.yaml"])
    with pytest.raises(TextError, match="cannot be read"):
        contrast_set("nowhere.yaml")
    with pytest.raises(TextError, match="no split 'train'"):
        contrast_set("civility").split("train")
    with pytest.raises(TextError, match="belongs to no family"):
        family_of("civility")


def test_the_hash_tells_every_letter_and_the_order_of_pairs() -> None:
    """What was made from texts is found again by their hash, and models read capitals, spaces and pairs."""
    pairs = [("I am glad.", "It is three."), ("What joy!", "A door.")]
    made = ContrastSet.from_pairs("joy", pairs)
    assert made.hash == ContrastSet.from_pairs("joy", pairs).hash
    for other in (
        [("I am GLAD.", "It is three."), pairs[1]],
        [("I am  glad.", "It is three."), pairs[1]],
        [("I am glad.", "A door."), ("What joy!", "It is three.")],
        [(b, a) for a, b in pairs],
    ):
        assert ContrastSet.from_pairs("joy", other).hash != made.hash
