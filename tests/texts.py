"""A small family of contrast sets, for tests whose tiny tokenizers make many tokens of every word."""

from pathlib import Path

import yaml

WORDS = {
    "calm": "the cat sat there",
    "haste": "run one mile",
    "mirth": "they think of lemons",
}


def write_family(folder: Path, *, n: int = 40) -> list[Path]:
    """Writes three contrast sets of one family and returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for concept, words in WORDS.items():
        path = folder / f"{concept}.yaml"
        path.write_text(
            yaml.safe_dump(
                {
                    "format_version": 1,
                    "name": f"mood/{concept}",
                    "concept": concept,
                    "family": "mood",
                    "kind": "family",
                    "licence": "Apache-2.0",
                    "template": "It: {text}\nso",
                    "positive": [f"{words} {i}" for i in range(n)],
                }
            )
        )
        paths.append(path)
    return paths
