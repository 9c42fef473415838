"""TruthfulQA's questions: how the file is read, what is refused, and folds that share no question."""

import csv
from pathlib import Path

import numpy as np
import pytest

from contrans.concepts import contrast_set
from contrans.errors import TextError
from contrans.hashing import text_hash
from contrans.validation.truthfulqa_data import (
    Question,
    chance_levels,
    check_unseen,
    contrast_from_questions,
    read_truthfulqa,
    two_fold,
)

DATA = Path(__file__).parents[3] / "shared" / "data"
HEADER = ["Type", "Category", "Question", "Best Answer", "Correct Answers", "Incorrect Answers", "Source"]
ROW = ["Adversarial", "Law", "Who may vote? ", "Adults", "Adults; Citizens who are adults.;", "All; Cats; ;Cats", "x"]


def write(path: Path, *rows: list[str], header: list[str] = HEADER) -> Path:
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def test_reading(tmp_path):
    twice = ["", "", "Why?", "Best", "Good;Unknown;Good", "Unknown; Bad", ""]
    first, second = read_truthfulqa(write(tmp_path / "t.csv", ROW, twice))
    assert first == Question(
        "Who may vote?", "Adults.", ("Adults.", "Citizens who are adults."), ("All.", "Cats."), "Law"
    )
    # on both sides: false; the best answer missing among the true ones: added
    assert (second.true_answers, second.false_answers) == (("Best.", "Good."), ("Unknown.", "Bad."))


def test_the_best_incorrect_answer_of_later_editions_comes_first(tmp_path):
    (q,) = read_truthfulqa(write(tmp_path / "t.csv", [*ROW, "Cats"], header=[*HEADER, "Best Incorrect Answer"]))
    assert q.false_answers == ("Cats.", "All.")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "no questions under its header"),
        ([ROW, [*ROW[:2], "who  may VOTE?", *ROW[3:]]], "line 3: the question of line 2 again"),
        ([[*ROW[:2], " ", *ROW[3:]]], "line 2: A question is empty"),
        ([[*ROW[:3], "", *ROW[4:]]], "line 2: The best answer is empty"),
        ([[*ROW[:5], " ; ", ""]], "'Who may vote\\?' has no false answers"),
        ([[*ROW[:5]]], "has no false answers"),
        ([[*ROW[:5], "Adults; Cats", ""]], "'Adults.' as a true and as a false answer"),
        ([[*ROW[:3], 'The "best', *ROW[4:]]], None),
    ],
)
def test_bad_rows(tmp_path, rows, message):
    path = write(tmp_path / "t.csv", *rows)
    if message is None:
        assert read_truthfulqa(path)[0].best_answer == 'The "best.'
        return
    with pytest.raises(TextError, match=message):
        read_truthfulqa(path)


def test_bad_files(tmp_path):
    with pytest.raises(TextError, match=r"lacks the columns Best Answer, Incorrect Answers; it has Category, Question"):
        read_truthfulqa(write(tmp_path / "t.csv", header=["Category", "Question", "Correct Answers"]))
    (tmp_path / "t.csv").write_text("")
    with pytest.raises(TextError, match="it has none"):
        read_truthfulqa(tmp_path / "t.csv")
    (tmp_path / "t.csv").write_bytes(b"\xff\xfe\x00Q")
    with pytest.raises(TextError, match="not a CSV file in UTF-8"):
        read_truthfulqa(tmp_path / "t.csv")
    with pytest.raises(TextError, match=r"cannot be read \(No such file"):
        read_truthfulqa(tmp_path / "none.csv")


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (("q", "a", (), ("b",)), "no true answers"),
        (("q", "a", ("a", " "), ("b",)), "an empty one"),
        (("q", "c", ("a",), ("b",)), "none of its true answers"),
        (("q", "a", ("a",), ("a", "b")), "as a true and as a false answer"),
    ],
)
def test_bad_questions(parts, message):
    with pytest.raises(TextError, match=message):
        Question(*parts)


def many(n: int) -> list[Question]:
    return [Question(f"Why {i}?", "A", ("A",), ("B",)) for i in range(n)]


def test_folds_are_disjoint_and_stay():
    questions = many(200)
    halves = two_fold(questions, seed=1)
    first, second = ({text_hash(q.question) for q in half} for half in halves)
    assert first | second == {text_hash(q.question) for q in questions}
    assert not first & second
    assert 70 < len(first) < 130
    fewer = two_fold(questions[:150][::-1], seed=1)
    assert [q for q in halves[0] if q in fewer[1]] == [q for q in halves[1] if q in fewer[0]] == []
    shouted = [Question(q.question.upper(), "A", ("A",), ("B",)) for q in questions]
    assert [q.question for q in two_fold(shouted, seed=1)[0]] == [q.question.upper() for q in halves[0]]
    assert two_fold(questions, seed=2) != halves
    with pytest.raises(TextError, match="1 questions cannot be halved"):
        two_fold(questions[:1])


@pytest.mark.shared
@pytest.mark.skipif(not DATA.is_dir(), reason="the public data sets are not at ../shared/data")
def test_the_real_questions():
    questions = read_truthfulqa(DATA / "truthfulqa" / "TruthfulQA.csv")
    assert len(questions) == 817
    assert len({q.category for q in questions}) == 38
    answers = [(len(q.true_answers), len(q.false_answers)) for q in questions]
    assert np.sum(answers, axis=0).tolist() == [2585, 3297]
    assert all(q.best_answer in q.true_answers and q.false_answers for q in questions)
    assert all(a.endswith(".") for q in questions for a in (*q.true_answers, *q.false_answers))
    # the level that Dong et al. print
    assert chance_levels(questions)["mc1"] == pytest.approx(0.226, abs=5e-4)
    halves = two_fold(questions)
    assert min(map(len, halves)) > 370
    check_unseen(halves[1], contrast_from_questions(halves[0]))
    # what is out of distribution shares no question
    check_unseen(questions, contrast_set("honesty/persona"))
    check_unseen(questions, contrast_set("honesty/statements"))
