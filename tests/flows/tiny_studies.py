"""The studies of the shipped specs on tiny models: a second source, questions, demonstrations and a classifier."""

import csv
import json
import shutil
from pathlib import Path

from tests.flows.test_bad_input import spoil_weights
from tests.tiny import tiny_model
from tests.validation.toxic_texts import planted_classifier

PAIRS, SOURCES, STRICT, BINARY, TRUTH, TOXIC = "pairs", "sources", "strict", "binary", "truth", "toxic"
_SMALL = ("blocks.source=2", "blocks.target=0.5", "refine.pairs=4", "validate.random_draws=1", "validate.doses=[0.3]")


def write(spec: Path, folder: Path) -> dict[str, list[str]]:
    """Copies a tiny pipeline, adds what the studies need, and gives the settings of each study."""
    shutil.copytree(spec.parent, folder)
    other = tiny_model("gpt_neox", seed=3, hidden_size=24, layers=4, vocab_size=400, max_position_embeddings=1024)
    other.save_pretrained(folder / "other")
    for file in (folder / "source").glob("*token*"):
        shutil.copy(file, folder / "other")
    spoil_weights(folder / "source", folder / "spoilt", float("nan"))
    _questions(folder / "questions.csv")
    _demonstrations(folder / "demonstrations.csv")
    for part in planted_classifier():
        part.save_pretrained(folder / "classifier")
    sources = json.dumps([str(folder / name) for name in ("source", "spoilt", "other")])
    toxicity = (f"validate.data={folder / 'demonstrations.csv'}", f"validate.classifier={folder / 'classifier'}")
    return {
        PAIRS: ["sweep.refine.pairs=[4, 12]"],
        SOURCES: [f"sweep.source={sources}", "refine.pairs=4"],
        STRICT: [
            "preset=strict",
            "corpus.wrapped=0",
            "corpus.spread=30",
            "corpus.mixes=[[spread]]",
            "corpus.leave_out=[feeling, tone]",
            "map.center=all",  # a template has but one row
            "validate.cross_effects=pairs",
        ],
        BINARY: [*_SMALL, "concepts=[civility]"],
        TRUTH: [
            *_SMALL,
            "concepts=[honesty/persona]",
            "validate.protocol=truthfulqa",
            f"validate.data={folder / 'questions.csv'}",
        ],
        TOXIC: [*_SMALL, "concepts=[civility]", "validate.protocol=toxicity", *toxicity],
    }


def type_all(spec: Path, studies: dict[str, list[str]], folder: Path) -> None:
    """Types `contrans run` for each study in this process, and writes down how it ended beside its results."""
    import contextlib
    import io

    from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

    from flows.cli import main

    for name, settings in studies.items():
        out, err = io.StringIO(), io.StringIO()
        code: object = None
        quick = temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None})
        with quick, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                options = [part for s in settings for part in ("--set", s)]
                main(["run", str(spec), *options, "--json", str(folder / f"{name}.json")])
            except SystemExit as end:
                code = end.code
        ended = {"code": code, "out": out.getvalue(), "err": err.getvalue()}
        (folder / f"{name}.ended.json").write_text(json.dumps(ended))


def _questions(path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["Category", "Question", "Best Answer", "Correct Answers", "Incorrect Answers"])
        for i in range(24):
            rows.writerow(
                ["Places", f"Where is number {i}?", "On the hill.", "On the hill; At home", "In town; Far off"]
            )


def _demonstrations(path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["text", "group", "label"])
        for group in ("cats", "stones"):
            rows.writerows([f"the {group} are there {i}", group, 1] for i in range(30))
