"""Toxigen's items: sentences about groups of people, and prompts that list some of them.

Hartvigsen et al. 2022, arXiv 2203.09509.
"""

import csv
import math
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from contrans.errors import SpecError, TextError
from contrans.hashing import text_hash

COLUMNS = ("text", "group", "label")
LABELS = {
    **dict.fromkeys(("1", "1.0", "true", "hate", "hateful", "toxic"), True),
    **dict.fromkeys(("0", "0.0", "false", "neutral", "benign", "non-toxic", "nontoxic"), False),
}

_DEV_SHARE = 0.4


@dataclass(frozen=True)
class Demonstration:
    """A sentence about a group of people.

    Attributes:
        text: the sentence.
        group: whom it is about.
        hateful: whether it is hateful or neutral.
    """

    text: str
    group: str
    hateful: bool


@dataclass(frozen=True)
class ToxigenPrompt:
    """Demonstrations as a list, whose next item the model writes.

    Attributes:
        text: the prompt.
        group: whom it is about.
    """

    text: str
    group: str


def read_toxigen(path: str | Path) -> list[Demonstration]:
    """Reads Toxigen's demonstrations.

    Args:
        path: a folder of `hate_<group>*.txt` and `neutral_<group>*.txt` with one sentence a line, or a CSV with the
            columns text, group and label (1 or hate, 0 or neutral).

    Returns:
        Every sentence once per group and label, in the order of the files.

    Raises:
        TextError: there is nothing of the kind, it is not UTF-8, a column is missing, or a row is incomplete.
    """
    path = Path(path)
    try:
        found = _from_folder(path) if path.is_dir() else _from_csv(path)
    except FileNotFoundError as error:
        raise TextError(f"There is no {path}; name Toxigen's folder of demonstrations or a CSV.") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise TextError(f"{path} is no UTF-8 text or no CSV ({error}); convert it.") from error
    once: dict[tuple[str, bool, str], Demonstration] = {}
    for d in found:
        once.setdefault((d.group, d.hateful, text_hash(d.text)), d)
    return list(once.values())


def _from_folder(folder: Path) -> list[Demonstration]:
    found = []
    for file in sorted(folder.glob("*.txt")):
        name = re.fullmatch(r"(hate|neutral)_(.+?)(?:_sentences)?", file.stem)
        if name is not None:
            lines = (" ".join(line.split()) for line in file.read_text(encoding="utf-8").splitlines())
            found += [Demonstration(line, name[2], name[1] == "hate") for line in lines if line]
    if not found:
        raise TextError(
            f"{folder} holds no sentences in files such as hate_<group>.txt or neutral_<group>.txt; name Toxigen's "
            f"folder of demonstrations."
        )
    return found


def _from_csv(path: Path) -> list[Demonstration]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        names = list(reader.fieldnames or [])
        missing = [c for c in COLUMNS if c not in names]
        if missing:
            raise TextError(
                f"{path} lacks the column {' and '.join(missing)}: it has {', '.join(names) or 'none'}, but text, "
                f"group and label are needed; rename its columns."
            )
        found = []
        for row in reader:
            text, group, label = ((row[c] or "").strip() for c in COLUMNS)
            if not text or not group or label.lower() not in LABELS:
                raise TextError(
                    f"Line {reader.line_num} of {path} has text {text[:30]!r}, group {group!r} and label {label!r}; "
                    f"give a text, a group, and 1 or hate, 0 or neutral as its label."
                )
            found.append(Demonstration(" ".join(text.split()), group, LABELS[label.lower()]))
    if not found:
        raise TextError(f"{path} has no rows below its header; give at least a few sentences for each group.")
    return found


def split_demonstrations(
    demonstrations: Sequence[Demonstration], *, shots: int = 5, hateful: bool = True
) -> tuple[list[Demonstration], list[Demonstration]]:
    """Sentences for dev and for test, none in both: two fifths of a group are dev's.

    A group whose sentences do not make prompts for both is tested alone; one that makes none at all is left out, and so
    is a sentence of several groups, which would stand on both sides.

    Args:
        demonstrations: the sentences.
        shots: sentences in a prompt.
        hateful: whether the hateful or the neutral ones are wanted.

    Raises:
        TextError: no group has enough sentences for both.
    """
    wanted = [d for d in demonstrations if d.hateful == hateful]
    stands_in: dict[str, set[str]] = {}
    for d in wanted:
        stands_in.setdefault(text_hash(d.text), set()).add(d.group)
    groups: dict[str, dict[str, Demonstration]] = {}
    for d in wanted:
        if len(stands_in[text_hash(d.text)]) == 1:
            groups.setdefault(d.group, {})[text_hash(d.text)] = d
    dev: list[Demonstration] = []
    test: list[Demonstration] = []
    for group in sorted(groups):
        sentences = sorted(groups[group].values(), key=lambda d: text_hash(d.text))
        n = len(sentences)
        of_dev = min(max(round(_DEV_SHARE * n), shots), n - shots) if n >= 2 * shots else 0
        dev += sentences[:of_dev]
        test += sentences[of_dev:] if n >= shots else []
    if not dev:
        kind = "hateful" if hateful else "neutral"
        raise TextError(f"No group has {2 * shots} {kind} sentences, so that dev and test had prompts; add some.")
    return dev, test


def toxigen_prompts(
    demonstrations: Sequence[Demonstration],
    *,
    per_group: int = 200,
    shots: int = 5,
    hateful: bool = True,
    seed: int = 0,
) -> list[ToxigenPrompt]:
    r"""Lists of `shots` demonstrations of one group, `- sentence\n- sentence\n-`, all different.

    Args:
        demonstrations: the sentences.
        per_group: prompts a group; fewer where there are not so many different lists.
        shots: sentences in a prompt.
        hateful: whether hateful or neutral sentences are listed.
        seed: of which sentences stand where; a group's prompts depend on nothing but it and the group's sentences.

    Raises:
        TextError: a group has fewer than `shots` sentences, or there is no group.
        SpecError: a number is below 1.
    """
    if per_group < 1 or shots < 1:
        raise SpecError(f"per_group={per_group} and shots={shots} make no prompts; both must be at least 1.")
    kind = "hateful" if hateful else "neutral"
    groups: dict[str, list[str]] = {}
    for d in demonstrations:
        if d.hateful == hateful:
            groups.setdefault(d.group, []).append(d.text)
    if not groups:
        raise TextError(f"There are no {kind} sentences among {len(demonstrations)} demonstrations; read others.")
    prompts = []
    for group in sorted(groups):
        texts = sorted(set(groups[group]), key=text_hash)
        if len(texts) < shots:
            raise TextError(
                f"The group {group!r} has {len(texts)} {kind} sentences, fewer than the {shots} of a prompt; lower "
                f"shots or add sentences."
            )
        rng = random.Random(f"{seed}/{group}")
        lists: dict[tuple[str, ...], None] = {}
        while len(lists) < min(per_group, math.perm(len(texts), shots)):
            lists[tuple(rng.sample(texts, shots))] = None
        prompts += [ToxigenPrompt("".join(f"- {t}\n" for t in chosen) + "-", group) for chosen in lists]
    return prompts
