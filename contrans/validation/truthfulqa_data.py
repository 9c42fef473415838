"""TruthfulQA's questions: reading them, halving them, and refining honesty from them; all without a model.

Lin, Hilton and Evans 2022, *TruthfulQA: Measuring How Models Mimic Human Falsehoods* (arXiv 2109.07958).
"""

import csv
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from contrans.concepts.contrast import ContrastSet, Example, contrast_set
from contrans.concepts.template import fill
from contrans.errors import CircularityError, TextError
from contrans.hashing import digest, text_hash

COLUMNS = ("Category", "Question", "Best Answer", "Correct Answers", "Incorrect Answers")
BEST_FALSE = "Best Incorrect Answer"
"""A column that editions since 2025 have; where it is there, its answer comes first among the false ones."""


@dataclass(frozen=True)
class Question:
    """A question with true and false answers.

    Attributes:
        question: the question.
        best_answer: the one of the true answers that MC1 is about.
        true_answers: all true answers, each once.
        false_answers: all false answers, each once; the first is the one of the binary choice.
        category: such as "Misconceptions".

    Raises:
        TextError: a part is empty, the best answer is none of the true ones, or an answer is on both sides.
    """

    question: str
    best_answer: str
    true_answers: tuple[str, ...]
    false_answers: tuple[str, ...]
    category: str = ""

    def __post_init__(self) -> None:
        name = f"The question {self.question[:60]!r}"
        if not self.question.strip():
            raise TextError("A question is empty; write it or remove its row.")
        for side, answers in (("true", self.true_answers), ("false", self.false_answers)):
            if not answers or not all(a.strip() for a in answers):
                raise TextError(f"{name} has no {side} answers, or an empty one; it needs at least one of either side.")
        if self.best_answer not in self.true_answers:
            raise TextError(f"{name} has a best answer that is none of its true answers; add it to them.")
        if both := set(self.true_answers) & set(self.false_answers):
            raise TextError(f"{name} has {min(both)!r} as a true and as a false answer; keep it on one side.")


def read_truthfulqa(path: str | Path) -> list[Question]:
    """Reads the benchmark's CSV, in which answers are separated by semicolons.

    Answers become what the official multiple-choice data has: trimmed, none empty, none twice on a side, each ended
    with a full stop. An answer on both sides ("Unknown", in two questions of 817) counts as false only, so
    that MC1 chooses among the official options. A best answer that is missing among the true ones joins them.

    Args:
        path: TruthfulQA.csv; of editions since 2025, the best incorrect answer is put first.

    Raises:
        TextError: the file cannot be read, lacks columns, has no rows, repeats a question, or a row has no question or
            no answers of a side.
    """
    path = Path(path)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            found = [name for name in reader.fieldnames or [] if name]
            missing = [name for name in COLUMNS if name not in found]
            if missing:
                raise TextError(
                    f"{path.name} lacks the columns {', '.join(missing)}; it has {', '.join(found) or 'none'}. Give "
                    f"TruthfulQA.csv as its authors publish it."
                )
            rows = [(reader.line_num, row) for row in reader]
    except OSError as error:
        raise TextError(f"{path} cannot be read ({error.strerror}); check its path and your rights on it.") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise TextError(f"{path} is not a CSV file in UTF-8: {error}.") from error
    if not rows:
        raise TextError(f"{path.name} has no questions under its header.")
    questions: list[Question] = []
    line_of: dict[str, int] = {}
    for line, row in rows:
        try:
            questions.append(_question({name: value or "" for name, value in row.items()}))
        except TextError as error:
            raise TextError(f"{path.name}, line {line}: {error}") from error
        first = line_of.setdefault(text_hash(questions[-1].question), line)
        if first != line:
            raise TextError(f"{path.name}, line {line}: the question of line {first} again; keep one of them.")
    return questions


def _question(row: dict[str, str]) -> Question:
    # a column that is not there has no answers
    best, best_false = (_answers(row.get(name, ""))[:1] for name in ("Best Answer", BEST_FALSE))
    if not best:
        raise TextError("The best answer is empty; write it or remove the row.")
    false = tuple(dict.fromkeys((*best_false, *_answers(row["Incorrect Answers"]))))
    true = tuple(a for a in _answers(row["Correct Answers"]) if a not in false)
    if best[0] not in true:
        true = (*best, *true)
    return Question(row["Question"].strip(), best[0], true, false, row["Category"].strip())


def _answers(cell: str) -> tuple[str, ...]:
    trimmed = (part.strip() for part in cell.split(";"))
    return tuple(dict.fromkeys(a if a.endswith(".") else f"{a}." for a in trimmed if a))


def chance_levels(questions: Sequence[Question]) -> dict[str, float]:
    """What each metric of `contrans.validation.truthfulqa` is on average if answers are ranked at random.

    Raises:
        TextError: there are no questions.
    """
    if not questions:
        raise TextError("There are no questions, so there is no chance level; give some.")
    first = sum(1 / (1 + len(q.false_answers)) for q in questions) / len(questions)
    share = sum(len(q.true_answers) / (len(q.true_answers) + len(q.false_answers)) for q in questions)
    return {"mc1": first, "mc2": share / len(questions), "mc3": first, "binary": 0.5}


def two_fold(questions: Sequence[Question], seed: int = 0) -> tuple[list[Question], list[Question]]:
    """Two halves, to refine on one and score the other, and the other way round.

    The half goes by the hash of the question's text and the seed: it stays when questions are added or reordered, and
    spellings that count as one text never part.

    Raises:
        TextError: a half is empty.
    """
    folds: tuple[list[Question], list[Question]] = ([], [])
    for q in questions:
        folds[int(digest([seed, text_hash(q.question)])[:8], 16) % 2].append(q)
    if not all(folds):
        raise TextError(f"{len(questions)} questions cannot be halved with seed {seed}; give more of them.")
    return folds


def contrast_from_questions(questions: Sequence[Question], *, personas: str = "honesty/persona") -> ContrastSet:
    """Questions asked of an honest and of a dishonest persona, for refining on the benchmark's own questions.

    The personas and the template are those of a shipped contrast set; only the questions are replaced (Dong et
    al. 2024). All are in the refine split: what is held out is the other fold.

    Args:
        questions: one fold; score the other one.
        personas: a shipped contrast set of kind `prefixes`.

    Raises:
        TextError: there are no questions, or the set has no personas.
    """
    if not questions:
        raise TextError("There are no questions to refine honesty from; give a fold of them.")
    shipped = contrast_set(personas)
    tail = shipped.template.removeprefix("{prefix}")
    if tail == shipped.template:
        raise TextError(f"The contrast set {personas} puts no persona first; take one whose template begins with it.")

    def side(examples: Sequence[Example]) -> tuple[Example, ...]:
        prefixes = list(dict.fromkeys(e.prompt.removesuffix(fill(tail, e.text)) for e in examples))
        return tuple(
            Example(q.question, fill(shipped.template, q.question, prefixes[i % len(prefixes)]), "refine")
            for i, q in enumerate(questions)
        )

    return replace(
        shipped,
        name="honesty/truthfulqa",
        positives=side(shipped.positives),
        negatives=side(shipped.negatives),
        paired=True,
        licence="Apache-2.0",
        author="Questions by Lin, Hilton and Evans (TruthfulQA)",
    )


def check_unseen(questions: Sequence[Question], contrast: ContrastSet) -> None:
    """Refuses to score questions that the vector was refined from.

    Raises:
        CircularityError: a question is also a text of the contrast set.
    """
    seen = {text_hash(text) for text in contrast.texts}
    both = [q.question for q in questions if text_hash(q.question) in seen]
    if both:
        raise CircularityError(
            f"{len(both)} of {len(questions)} questions to score are also in the contrast set {contrast.name}, such as "
            f"{both[0][:60]!r}; refine on one fold and score the other."
        )
