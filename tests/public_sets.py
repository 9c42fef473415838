"""Writes contrast sets of our format from public texts: `python -m tests.public_sets DATA TO`.

This package was made with none of these texts, so they tell whether its choices hold on concepts that are not its own:
`contrans run emotions-strict --set 'concepts=["TO/emotion/*.yaml"]'`, or
`contrans run civility --set 'concepts=[TO/style.yaml]'`.

DATA holds copies of public files: `emotions/*.json` (github.com/andyzoujm/representation-engineering, folder
`data/emotions`, MIT), `text/tiny_shakespeare.txt` (public domain) beside `text/wikisplit_tune.tsv`
(github.com/google-research-datasets/wiki-split, CC BY-SA), and `toxigen_demonstrations/*.txt`
(github.com/microsoft/TOXIGEN, folder `demonstrations`, CDLA-Permissive-2.0).
"""

import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

WORDS = range(8, 31)
"""How long a text of a pair may be."""


def emotions(data: Path, into: Path) -> list[Path]:
    """Six sets, those that the paper used; a scenario that stands in several emotions is left out of all."""
    files = sorted((data / "emotions").glob("*.json"))
    scenarios = {file.stem: list(dict.fromkeys(json.loads(file.read_text()))) for file in files}
    every = [text for texts in scenarios.values() for text in texts]
    return [
        _written(
            into / "emotion" / f"{emotion}.yaml",
            concept=emotion,
            kind="family",
            family="public-emotion",
            licence="MIT",
            author="Zou et al. 2023, representation-engineering",
            description=f"Scenarios of {emotion}.",
            template="Scenario: {text}\nThe emotion of the above scenario is",
            label=emotion,
            positive=[text.strip() for text in texts if every.count(text) == 1],
        )
        for emotion, texts in scenarios.items()
    ]


def style(data: Path, into: Path, *, n: int = 150) -> list[Path]:
    """Speeches of Shakespeare's plays beside sentences of an encyclopedia."""
    speeches = [
        " ".join(speech.split("\n")[1:]) for speech in (data / "text/tiny_shakespeare.txt").read_text().split("\n\n")
    ]
    sentences = [
        re.sub(r" ([,.;:!?)'])", r"\1", line.split("\t")[0]).replace("( ", "(")
        for line in (data / "text/wikisplit_tune.tsv").read_text().splitlines()
        if '"' not in line and "''" not in line
    ]
    return [
        _pairs(
            into / "style.yaml",
            _every(speeches, n),
            _every(sentences, n),
            concept="archaism",
            licence="CC-BY-SA-4.0",
            author="William Shakespeare; Botha et al. 2018, WikiSplit",
            description="Verse and prose of the stage around 1600 beside sentences of an encyclopedia.",
            template="Text: {text}\nThe style of the above text is",
            label="old",
            negative_label="modern",
        )
    ]


def hate(data: Path, into: Path, *, n: int = 150) -> list[Path]:
    """Hateful and neutral sentences about minorities."""
    folder = data / "toxigen_demonstrations"
    hateful, neutral = (
        [line for file in sorted(folder.glob(f"{side}_*.txt")) for line in file.read_text().splitlines()]
        for side in ("hate", "neutral")
    )
    return [
        _pairs(
            into / "hate.yaml",
            _every(neutral, n),
            _every(hateful, n),
            concept="fairness",
            licence="CDLA-Permissive-2.0",
            author="Hartvigsen et al. 2022, ToxiGen",
            description="Neutral and hateful sentences about minorities.",
            template="Statement: {text}\nThe tone of the above statement is",
            label="neutral",
            negative_label="hateful",
        )
    ]


def _every(texts: Sequence[str], n: int) -> list[str]:
    """So many texts of a fit length, spread evenly over all there are."""
    fit = list(dict.fromkeys(t.strip() for t in texts if len(t.split()) in WORDS))
    return [fit[i * len(fit) // n] for i in range(n)] if len(fit) > n else fit


def _pairs(path: Path, positives: Sequence[str], negatives: Sequence[str], **content: Any) -> Path:
    pairs = [{"positive": p, "negative": n} for p, n in zip(positives, negatives, strict=False)]
    return _written(path, kind="pairs", pairs=pairs, **content)


def _written(path: Path, **content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    named = {"format_version": 1, "name": f"public/{path.stem}", **content}
    path.write_text(yaml.safe_dump(named, sort_keys=False, allow_unicode=True), encoding="utf-8")
    return path


if __name__ == "__main__":
    for write in (emotions, style, hate):
        write(Path(sys.argv[1]), Path(sys.argv[2]))
