"""The same concepts extracted by ConTrans, repeng (PCA) and steering-vectors (mean), side by side: a Markdown table.

    CONTRANS_INTEROP_PYTHON=.venv-interop/bin/python python -m tests.interop.side_by_side [-o FILE]

Each package extracts every emotion from the same pairs of texts in the source model; its file is imported into a
registry of its own, carried by one and the same map into the target, put in at one and the same block, and scored by
the emotion protocol at equal KL to the unsteered model: only the extraction differs. Directions of the target's own
are the reference of the gain recovered.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from contrans.concepts import ConceptVector, ContrastSet, refine_states
from contrans.concepts.contrast import family_of
from contrans.maps import corpus, fit_map
from contrans.models import Model, load_model, resolve
from contrans.states import capture
from contrans.validation.arms import Directions
from contrans.validation.comparison import validate
from contrans.validation.emotion import EmotionProtocol
from contrans.validation.fluency import FluencyMeter
from contrans.validation.pricing import dose_at_kl, mean_kl
from contrans.validation.rows import gain_recovered
from contrans.validation.shares import ConceptHits
from registry import Registry
from registry.imported import import_vector
from tests.interop.other_python import run_there

SOURCE, TARGET = "pypi:smollm2-135m-instruct", "pypi:gemma-3-270m"
SOURCE_BLOCK, TARGET_BLOCK = 27, 14
KL = 0.1
"""Nats per token that every arm may cost on generic text."""
METER_TEXTS = 6
NAMES = {
    "transplanted": "ConTrans (mean difference)",
    "steering-vectors": "steering-vectors 0.12 (mean)",
    "repeng": "repeng 0.4 (`pca_diff`, its default)",
    "repeng, centred": "repeng 0.4 (`pca_center`)",
}
OTHERS = {
    "unsteered": "nothing (unsteered)",
    "random": "random directions",
    "own": "the target's own vectors",
}
RANDOM_DRAWS = 5
_FILES = {
    "steering-vectors": ("steering-vectors", "mean.safetensors"),
    "repeng": ("repeng", "pca.gguf"),
    "repeng, centred": ("repeng", "pca_center.gguf"),
}
"""Per way to extract, the format and the file."""


def as_older_transformers_read_it(reference: str, folder: Path) -> Path:
    """A folder `model` with the same weights, whose configuration has RoPE's base where transformers 4 looks for it."""
    source, model = resolve(reference).folder(), folder / "model"
    assert source is not None, f"load {reference} once, so that it is in the cache"
    model.mkdir(parents=True, exist_ok=True)
    for path in source.iterdir():
        if path.is_file() and path.name != "config.json" and not (model / path.name).exists():
            (model / path.name).symlink_to(path)
    config = json.loads((source / "config.json").read_text())
    config |= {"rope_theta": config["rope_parameters"]["rope_theta"], "rope_scaling": None}
    (model / "config.json").write_text(json.dumps(config))
    return model


def prompts(contrast: ContrastSet, pairs: int) -> tuple[list[str], list[str]]:
    """Pairs of texts of the refine split, which all ways to extract get."""
    part = contrast.split("refine")
    n = min(len(part.positives), len(part.negatives), pairs)
    # negatives come label by label: taken evenly, they are of all the other labels
    negatives = part.negatives[:: len(part.negatives) // n][:n]
    return [e.prompt for e in part.positives[:n]], [e.prompt for e in negatives]


class States:
    """States of one block at the last tokens of texts, each of which is read once however many concepts ask for it."""

    def __init__(self, model: Model, block: int, texts: Iterable[str]) -> None:
        listed = list(dict.fromkeys(texts))
        self.model, self.block = model, block
        self._rows = {text: i for i, text in enumerate(listed)}
        self._states = capture(model, listed, blocks=[block])[block]

    def of(self, texts: Iterable[str]) -> torch.Tensor:
        """Float32 [texts, d]."""
        return self._states[[self._rows[text] for text in texts]]

    def refined(self, concept: str, positive: Iterable[str], negative: Iterable[str]) -> ConceptVector:
        """Our mean difference."""
        sides = {self.block: (self.of(positive), self.of(negative))}
        return refine_states(sides, concept=concept, model=self.model.record)


def ours(source: Model, family: Sequence[ContrastSet], pairs: int) -> dict[str, ConceptVector]:
    """Our mean difference over the same pairs, by concept."""
    sides = {c.concept: prompts(c, pairs) for c in family}
    states = States(source, SOURCE_BLOCK, (text for both in sides.values() for side in both for text in side))
    return {concept: states.refined(concept, *both) for concept, both in sides.items()}


def own(target: Model, family: Sequence[ContrastSet]) -> dict[str, ConceptVector]:
    """What `refine` finds in the target itself, from all of the refine split, by concept."""
    parts = {c.concept: c.split("refine") for c in family}
    sides = {n: ([e.prompt for e in p.positives], [e.prompt for e in p.negatives]) for n, p in parts.items()}
    states = States(target, TARGET_BLOCK, (text for both in sides.values() for side in both for text in side))
    return {concept: states.refined(concept, *both) for concept, both in sides.items()}


def extract(source: Model, family: Sequence[ContrastSet], folder: Path, pairs: int) -> None:
    """Lets both packages extract every concept at the source block, in one process of the other Python.

    A concept whose files are in the folder already is not extracted again.
    """
    model = as_older_transformers_read_it(source.reference, folder)
    jobs = []
    for contrast in family:
        there = folder / contrast.concept
        if all((there / file).exists() for _, file in _FILES.values()):
            continue
        there.mkdir(exist_ok=True)
        if not (there / "model").exists():
            (there / "model").symlink_to(model)
        positive, negative = prompts(contrast, pairs)
        jobs.append(("extract", there, {"positive": positive, "negative": negative, "layers": [SOURCE_BLOCK]}))
    if jobs:
        run_there(jobs, folder)


def imported(source: Model, family: Sequence[ContrastSet], folder: Path) -> dict[str, dict[str, ConceptVector]]:
    """The packages' vectors by format and concept, as versions of a registry.

    The scales that an import measures say how long a transplant is; here all go in at one price, so a few texts do.
    """
    with tempfile.TemporaryDirectory() as home, Registry.open(Path(home) / "registry.db") as registry:
        return {
            name: {
                c.concept: import_vector(
                    registry,
                    folder / c.concept / file,
                    format=form,
                    model=source,
                    concept=c.concept,
                    measured_on=[e.prompt for e in c.split("refine").positives[:8]],
                ).vector
                for c in family
            }
            for name, (form, file) in _FILES.items()
        }


def table(vectors: Mapping[str, Mapping[str, ConceptVector]], found: Mapping[str, Any]) -> str:
    """The Markdown table: one row for each way to extract, the target's own directions and the unsteered model."""
    lines = [
        "| extracted by | cosine to ours | dose at KL .1 | logit accuracy [95 %] | gain recovered [95 %] |",
        "|---|---|---|---|---|",
    ]
    for arm in ["unsteered", "random", *NAMES, "own"]:
        name = OTHERS.get(arm) or NAMES[arm]
        accuracy = found["summary"][arm]
        cells = ["–", "–", f"{accuracy['value']:.3f} [{accuracy['low']:.3f}, {accuracy['high']:.3f}]", "–"]
        if arm in found["recovered"]:
            value, low, high = found["recovered"][arm]
            cells[3] = "–" if value is None else f"{value:.2f} [{low:.2f}, {high:.2f}]"
        if arm in vectors:
            reference = vectors["transplanted"]
            cosines = [
                float(torch.cosine_similarity(v.direction(SOURCE_BLOCK), reference[c].direction(SOURCE_BLOCK), dim=0))
                for c, v in vectors[arm].items()
            ]
            cells[0] = f"{sum(cosines) / len(cosines):.2f}"
        if arm in found["doses"]:
            cells[1] = f"{found['doses'][arm]:.3g}"
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def compare(folder: Path, *, per_label: int, pairs: int, n_texts: int) -> str:
    """Runs all of it and gives the table."""
    source, target = load_model(SOURCE), load_model(TARGET)
    family = family_of("emotion/anger")
    concepts = [c.concept for c in family]
    say("extracting by the packages")
    extract(source, family, folder, pairs)
    say("extracting by ConTrans, importing")
    vectors = {"transplanted": ours(source, family, pairs), **imported(source, family, folder)}
    say("fitting the map")
    texts = corpus("passages").take(n_texts).wrap(family[0].template)
    across = fit_map(
        source, target, texts, source_blocks=[SOURCE_BLOCK], target_blocks=[TARGET_BLOCK], judged_by=family
    )
    say("the target's own vectors")
    reference = own(target, family)
    by_arm = {
        arm: {c: across.map_direction(v).direction(TARGET_BLOCK) for c, v in of.items()} for arm, of in vectors.items()
    }
    by_arm["own"] = {c: v.direction(TARGET_BLOCK) for c, v in reference.items()}
    scale = sum(v.residual_norm[TARGET_BLOCK] for v in reference.values()) / len(reference)
    directions = Directions(by_arm, scale)
    arms = [*by_arm, "random"]
    meter = FluencyMeter(target, TARGET_BLOCK, corpus("passages").take(METER_TEXTS, start=n_texts).texts)
    doses = {}
    for arm in arms:
        say(f"dose of {arm}")
        doses[arm] = dose_at_kl(partial(mean_kl, meter, directions, arm), KL, start=0.2, tolerance=0.05)
    say("scoring the test scenarios")
    test = EmotionProtocol(target, family, block=TARGET_BLOCK, split="test", per_label=per_label)
    kept: dict[str, ConceptHits] = {}
    _, summary = validate(
        test,
        directions,
        meter,
        arms=["unsteered", *arms],
        doses=doses,
        random_draws=RANDOM_DRAWS,
        keep=kept.update,
    )
    recovered = {
        arm: gain_recovered({**kept, "transplanted": kept[arm]}, test.effect, concepts, test.n_items, 0)
        for arm in (*vectors, "random")
    }
    say("done")
    return table(vectors, {"summary": summary, "doses": doses, "recovered": recovered})


def say(what: str) -> None:
    """Says on standard error how far it is."""
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {what}\n")


def main() -> None:
    """Prints the table, or writes it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--per-label", type=int, default=16, help="test scenarios of each emotion")
    parser.add_argument("--pairs", type=int, default=48, help="pairs of texts that every concept is extracted from")
    parser.add_argument("--texts", type=int, default=1300, help="texts that the map is fitted on")
    parser.add_argument("--folder", type=Path, help="keep the packages' files there, and use those that are there")
    parser.add_argument("-o", "--out", type=Path, help="write the table there")
    typed = parser.parse_args()
    with tempfile.TemporaryDirectory() as passing:
        folder = typed.folder or Path(passing)
        made = compare(folder, per_label=typed.per_label, pairs=typed.pairs, n_texts=typed.texts)
    if typed.out is not None:
        typed.out.write_text(made)
    sys.stdout.write(made)


if __name__ == "__main__":
    main()
