"""Writes the scenarios that the paper used as contrast sets of our format: `python -m tests.public_emotions FROM TO`.

They come from github.com/andyzoujm/representation-engineering, folder `data/emotions` (MIT licence): six JSON lists of
some 200 sentences, none of which this package was made with. So they tell whether its choices hold on texts that are
not its own: `contrans run emotions-strict --set 'concepts=["TO/*"]'`.
"""

import json
import sys
from pathlib import Path

import yaml

TEMPLATE = "Scenario: {text}\nThe emotion of the above scenario is"


def write_sets(source: Path, into: Path) -> list[Path]:
    """Writes a YAML file for every JSON file; a scenario that stands in several emotions is left out of all.

    Args:
        source: the folder with `anger.json` and the others.
        into: where the contrast sets go.
    """
    scenarios = {file.stem: list(dict.fromkeys(json.loads(file.read_text()))) for file in sorted(source.glob("*.json"))}
    every = [text for texts in scenarios.values() for text in texts]
    into.mkdir(parents=True, exist_ok=True)
    written = []
    for emotion, texts in scenarios.items():
        content = {
            "format_version": 1,
            "name": f"public/{emotion}",
            "concept": emotion,
            "family": into.name,
            "kind": "family",
            "licence": "MIT",
            "author": "Zou et al. 2023, representation-engineering",
            "description": f"Scenarios of {emotion}.",
            "template": TEMPLATE,
            "label": emotion,
            "positive": [text.strip() for text in texts if every.count(text) == 1],
        }
        written.append(into / f"{emotion}.yaml")
        written[-1].write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True), encoding="utf-8")
    return written


if __name__ == "__main__":
    write_sets(Path(sys.argv[1]), Path(sys.argv[2]))
