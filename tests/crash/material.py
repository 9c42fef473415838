"""A matrix of tiny models on disk: as many sources, targets and concepts as wanted, with a corpus and a spec."""

from pathlib import Path
from typing import Any

import yaml

from tests.flows.tiny_pipeline import TEMPLATE, write_mood
from tests.tiny import tiny_model, tiny_tokenizer

_WORDS = ("calm", "hurry", "doubt", "trust", "pride", "shame", "hope", "dread", "warmth", "grief", "wonder", "boredom")
_PLACES = ("at home", "in town", "on the hill", "by the sea", "at school", "in the yard", "near here", "far off")
_PEOPLE = ("she says", "he thinks", "we know", "they write", "you hear")
_ARCHITECTURES = ("llama", "gpt_neox", "qwen2", "olmo2")


def write_matrix(
    folder: Path, *, sources: int, targets: int, concepts: int, draws: int = 1, items: int = 1, **settings: Any
) -> Path:
    """Writes models, texts and the spec of a matrix, and gives the spec's path.

    Args:
        folder: where; it is made.
        sources: number of sources.
        targets: number of targets, none of which is a source.
        concepts: number of concepts, of one family.
        draws: random vectors that are compared with each transplant.
        items: of each concept on which both are tested.
        settings: further keys of the spec.
    """
    folder.mkdir(parents=True, exist_ok=True)
    labels = [_label(i) for i in range(concepts)]
    texts = [text for label in labels for text in _concept(folder / "moods", label)]
    passages = [f"{_PEOPLE[i % 5]} that number {i} is {_PLACES[i % 8]} with the rest of them" for i in range(60)]
    (folder / "passages.txt").write_text("\n".join(passages), encoding="utf-8")
    read = [*(TEMPLATE.format(text=text) for text in texts), *(f"is {label}" for label in labels), *passages]
    tokenizers = [tiny_tokenizer(v).train_new_from_iterator(read, vocab_size=400) for v in ("bytes", "pieces")]
    models = [*(("source", i) for i in range(sources)), *(("target", i) for i in range(targets))]
    for number, (side, i) in enumerate(models):
        tokenizer = tokenizers[side == "target"]
        model = tiny_model(
            _ARCHITECTURES[i % len(_ARCHITECTURES)],
            seed=number,
            hidden_size=32 if side == "source" else 48,
            layers=4,
            vocab_size=len(tokenizer),
            max_position_embeddings=1024,
        )
        model.save_pretrained(folder / f"{side}-{i}")
        tokenizer.save_pretrained(folder / f"{side}-{i}")
    spec = {
        "name": "tiny-matrix",
        "sources": [f"./source-{i}" for i in range(sources)],
        "targets": [f"./target-{i}" for i in range(targets)],
        "concepts": [f"./moods/{label}.yaml" for label in labels],
        "blocks": {"source": 2, "target": 0.5},
        "corpus": {"name": "./passages.txt", "wrapped": 40, "spread": 0, "truncated": 0, "mixes": []},
        "map": {"estimator": "ridge"},
        "validate": {
            "arms": ["unsteered", "transplanted", "own", *(["random"] if draws > 1 else [])],
            "doses": [0.3],
            "random_draws": draws,
            "dev_per_label": 1,
            "test_per_label": items,
            "generic_texts": 2,
        },
        "compute": {"precision": "float32", "device": "cpu"},
        **settings,
    }
    path = folder / "matrix.yaml"
    path.write_text(yaml.safe_dump(spec, sort_keys=False), encoding="utf-8")
    return path


def _label(number: int) -> str:
    round_, word = divmod(number, len(_WORDS))
    return _WORDS[word] + ("" if not round_ else str(round_))


def _concept(folder: Path, label: str) -> list[str]:
    folder.mkdir(parents=True, exist_ok=True)
    texts = [f"there is {label} {where}, {who}" for where in _PLACES for who in _PEOPLE]
    write_mood(folder, label, texts)
    return texts
