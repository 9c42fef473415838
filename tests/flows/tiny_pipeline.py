"""A pipeline of two tiny models on disk, with contrast sets and a corpus of its own, that runs in seconds."""

from pathlib import Path

import yaml

from tests.tiny import tiny_model, tiny_tokenizer

LABELS = {"calm": "the lake lies still", "hurry": "the train leaves now", "doubt": "the map may be wrong"}
PLACES = (
    "at home",
    "in town",
    "on the hill",
    "by the sea",
    "at school",
    "in the yard",
    "near here",
    "far off",
)
PEOPLE = ("she says", "he thinks", "we know", "they write", "you hear")
TEMPLATE = "Say: {text}\nThe mood is"


def write(folder: Path) -> Path:
    """Writes models, texts and a spec into a folder, and gives the spec's path."""
    texts = _concepts(folder / "moods")
    passages = [f"{who} that number {i} is {where} with the rest of them" for i, who, where in _triples(60)]
    (folder / "passages.txt").write_text("\n".join(passages), encoding="utf-8")
    for name, vocab, width in (("source", "bytes", 32), ("target", "pieces", 48)):
        # Trained on the labels, so that they do not all begin with the same byte.
        words = [TEMPLATE.format(text=text) + f" {label}" for label in LABELS for text in texts]
        tokenizer = tiny_tokenizer(vocab).train_new_from_iterator([*words, *passages], vocab_size=400)
        model = tiny_model(
            "llama",
            seed=width,
            hidden_size=width,
            layers=4,
            vocab_size=len(tokenizer),
            max_position_embeddings=1024,
        )
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    spec = {
        "name": "tiny",
        "source": "./source",
        "target": "./target",
        "concepts": [f"./moods/{label}.yaml" for label in LABELS],
        "blocks": {"source": 2, "target": 0.5},
        "corpus": {"name": "./passages.txt", "wrapped": 40, "spread": 0, "truncated": 30, "mixes": []},
        "map": {"lambda_select": "r2"},
        "validate": {
            "doses": [0.2, 0.5],
            "random_draws": 2,
            "dev_per_label": 2,
            "test_per_label": 3,
            "generic_texts": 4,
        },
        "compute": {"precision": "float32", "device": "cpu"},
    }
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(spec, sort_keys=False), encoding="utf-8")
    return path


def _concepts(folder: Path) -> list[str]:
    folder.mkdir(parents=True)
    every: list[str] = []
    for label, stem in LABELS.items():
        texts = [f"{stem} {where}, {who}" for where in PLACES for who in PEOPLE]
        every += texts
        write_mood(folder, label, texts)
    return every


def write_mood(folder: Path, label: str, texts: list[str]) -> None:
    """Writes a contrast set of the family "moods" into a folder."""
    contents = {
        "format_version": 1,
        "name": f"moods/{label}",
        "concept": label,
        "family": "moods",
        "kind": "family",
        "licence": "Apache-2.0",
        "template": TEMPLATE,
        "label": label,
        "positive": texts,
    }
    (folder / f"{label}.yaml").write_text(yaml.safe_dump(contents), encoding="utf-8")


def _triples(n: int) -> list[tuple[int, str, str]]:
    return [(i, PEOPLE[i % len(PEOPLE)], PLACES[i % len(PLACES)]) for i in range(n)]
