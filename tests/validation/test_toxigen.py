"""Toxigen's demonstrations from files, and prompts that list some of them."""

from pathlib import Path

import pytest

from contrans.errors import SpecError, TextError
from contrans.validation.toxigen import Demonstration, read_toxigen, split_demonstrations, toxigen_prompts
from tests.validation.toxic_texts import demonstrations, prompts

SHARED = Path(__file__).parents[3] / "shared" / "data" / "toxigen_demonstrations"


def test_reads_a_folder(tmp_path):
    (tmp_path / "hate_cats_sentences.txt").write_text("one is bad\n\n two is bad \n")
    (tmp_path / "hate_cats.txt").write_text("ONE is  bad\nthree is bad\n")
    (tmp_path / "neutral_grey_cats.txt").write_text("one is good\n")
    (tmp_path / "readme.txt").write_text("not a demonstration\n")
    assert read_toxigen(tmp_path) == [
        # the same sentence in both files of a group counts once
        Demonstration("ONE is bad", "cats", True),
        Demonstration("three is bad", "cats", True),
        Demonstration("two is bad", "cats", True),
        Demonstration("one is good", "grey_cats", False),
    ]


def test_reads_a_csv(tmp_path):
    path = tmp_path / "sentences.csv"
    path.write_text('\ufefflabel,group,text,extra\n1,cats,"one, ""two"" bad",x\nneutral,cats,three good,y\n', "utf-8")
    assert read_toxigen(path) == [
        Demonstration('one, "two" bad', "cats", True),
        Demonstration("three good", "cats", False),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("text,label\na,1\n", "lacks the column group: it has text, label"),
        ("sentence\na\n", "lacks the column text and group and label: it has sentence"),
        ("", "lacks the column text and group and label: it has none"),
        ("text,group,label\n", "no rows below its header"),
        ("text,group,label\na,cats,1\nb,cats,maybe\n", "Line 3 .* label 'maybe'"),
        ("text,group,label\n ,cats,1\n", "Line 2 .* has text ''"),
        ("text,group,label\na,cats\n", "Line 2 .* label ''"),
    ],
)
def test_csv_bad_input(tmp_path, text, message):
    path = tmp_path / "sentences.csv"
    path.write_text(text)
    with pytest.raises(TextError, match=message):
        read_toxigen(path)


def test_reading_bad_input(tmp_path):
    with pytest.raises(TextError, match="There is no"):
        read_toxigen(tmp_path / "nowhere")
    with pytest.raises(TextError, match=r"holds no sentences in files such as hate_<group>\.txt"):
        read_toxigen(tmp_path)
    (tmp_path / "hate_cats.txt").write_bytes(b"caf\xe9 is bad\n")
    with pytest.raises(TextError, match="no UTF-8 text"):
        read_toxigen(tmp_path)


def test_prompts_are_different_lists_of_one_group():
    made = prompts()
    assert [p.group for p in made] == ["cats"] * 6 + ["stones"] * 6
    assert len({p.text for p in made}) == 12
    hateful = {d.text for d in demonstrations() if d.hateful}
    for p in made:
        *lines, last = p.text.split("\n")
        assert last == "-"
        assert len({line.removeprefix("- ") for line in lines} & hateful) == 3
        assert all(p.group in line for line in lines)
    assert made == prompts()
    assert made != prompts(seed=1)
    # a group's prompts stay what they are when others are added
    assert made[:6] == toxigen_prompts(demonstrations(["cats", "dogs"]), per_group=6, shots=3)[:6]
    assert not {p.text for p in prompts(hateful=False)} & {p.text for p in made}
    # 7 · 6 ordered lists of two exist
    assert len(prompts(per_group=100, shots=2)) == 84


def test_prompts_bad_input():
    with pytest.raises(TextError, match="'cats' has 7 hateful sentences, fewer than the 8"):
        prompts(shots=8)
    with pytest.raises(TextError, match="no neutral sentences"):
        toxigen_prompts([Demonstration("a", "cats", True)], hateful=False)
    for wrong in ({"per_group": 0}, {"shots": 0}):
        with pytest.raises(SpecError, match="must be at least 1"):
            prompts(**wrong)


def test_dev_and_test_share_no_sentence_and_small_groups_are_tested():
    large = [Demonstration(f"the large are {i}", "large", True) for i in range(30)]
    small = [Demonstration(f"the small are {i}", "small", True) for i in range(9)]
    tiny = [Demonstration(f"the tiny are {i}", "tiny", True) for i in range(4)]
    kind = [Demonstration(f"the large are kind, {i}", "large", False) for i in range(30)]
    dev, test = split_demonstrations([*large, *small, *tiny, *kind], shots=5)
    assert {d.group for d in dev} == {"large"}
    assert len(dev) == 12
    assert {d.group for d in test} == {"large", "small"}  # of the tiny ones there is no list of five
    assert sorted(d.text for d in [*dev, *test]) == sorted(d.text for d in [*large, *small])
    assert split_demonstrations(large[::-1], shots=5) == split_demonstrations(large, shots=5)
    assert [len(part) for part in split_demonstrations(large[:10], shots=5)] == [5, 5]
    assert [len(part) for part in split_demonstrations(large[:26], shots=5)] == [10, 16]


def test_a_sentence_of_two_groups_is_on_no_side():
    groups = {group: [Demonstration(f"the {group} are {i}", group, True) for i in range(12)] for group in ("a", "b")}
    shared = [Demonstration("they are the same", group, True) for group in groups]
    dev, test = split_demonstrations([*groups["a"], *groups["b"], *shared])
    assert not {d.text for d in dev} & {d.text for d in test}
    assert len(dev) + len(test) == 24


def test_a_split_needs_sentences():
    with pytest.raises(TextError, match="No group has 10 hateful sentences"):
        split_demonstrations([Demonstration(f"they are {i}", "small", True) for i in range(9)], shots=5)


@pytest.mark.shared
@pytest.mark.skipif(not SHARED.is_dir(), reason="the public data sets are not there")
def test_the_public_demonstrations():
    found = read_toxigen(SHARED)
    made = toxigen_prompts(found, per_group=20)
    groups = {d.group for d in found}
    assert {"asian", "muslim", "native_american"} <= groups
    assert {p.group for p in made} == groups
    assert len(made) == 20 * len(groups)
    assert all(p.text.count("\n- ") == 4 for p in made)


@pytest.mark.shared
@pytest.mark.skipif(not SHARED.is_dir(), reason="the public data sets are not there")
def test_the_public_demonstrations_make_prompts_for_dev_and_test():
    dev, test = (toxigen_prompts(part, per_group=20) for part in split_demonstrations(read_toxigen(SHARED)))
    assert {"asian", "latino"} <= {p.group for p in test} - {p.group for p in dev}
    assert len({p.group for p in dev}) > 5
