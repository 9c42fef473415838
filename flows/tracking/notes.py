"""What is noted of a run, as plain data that can wait on disk until there is an MLflow to tell it to."""

import base64
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import yaml

from registry import KINDS

_DIGEST = 32
"""Hexadecimal digits of a digest: MLflow keeps at most 36 characters of a data set's."""


@dataclass(frozen=True)
class Input:
    """A text set or model that a run was made from.

    Attributes:
        name: its name in the registry.
        digest: of its content.
        source: its reference in the registry, `kind:name@version`.
        context: its kind.
    """

    name: str
    digest: str
    source: str
    context: str


@dataclass(frozen=True)
class Note:
    """A run of MLflow and those below it.

    Attributes:
        name: what people see.
        started: in seconds since 1970.
        ended: likewise.
        tags: of the run.
        params: its settings.
        metrics: its numbers.
        files: its artifacts by name.
        inputs: what it was made from.
        below: runs of its own for each concept.
    """

    name: str
    started: float
    ended: float
    tags: Mapping[str, str]
    params: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    files: Mapping[str, bytes] = field(default_factory=dict)
    inputs: Sequence[Input] = ()
    below: Sequence["Note"] = ()

    def to_json(self) -> dict[str, Any]:
        """As plain JSON, files in base64."""
        return {
            **{key: getattr(self, key) for key in ("name", "started", "ended")},
            **{key: dict(getattr(self, key)) for key in ("tags", "params", "metrics")},
            "files": {name: base64.b64encode(data).decode() for name, data in self.files.items()},
            "inputs": [vars(i) for i in self.inputs],
            "below": [note.to_json() for note in self.below],
        }

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Self:
        """The inverse of `to_json`."""
        return cls(
            **{
                **found,
                "files": {name: base64.b64decode(data) for name, data in found["files"].items()},
                "inputs": tuple(Input(**i) for i in found["inputs"]),
                "below": tuple(cls.from_json(note) for note in found["below"]),
            }
        )


def note_of(
    document: Mapping[str, Any],
    *,
    started: float,
    ended: float,
    tags: Mapping[str, str] = {},
    files: Mapping[str, bytes] = {},
) -> Note:
    """What is noted of a pipeline's run: the whole of it, and below it each concept by itself.

    Args:
        document: the run's document; see `flows.results`.
        started: when it began, in seconds since 1970.
        ended: when it ended.
        tags: the run's ids elsewhere; the runs below have them too.
        files: further artifacts by name.
    """
    spec, versions = document["spec"], document["versions"]
    concepts = list(dict.fromkeys(row["concept"] for row in document["validations"] if _is_concept(row, document)))
    common = {**tags, "contrans.spec_hash": document["run"]["spec_hash"], "contrans.source": spec["source"]}
    common["contrans.target"] = spec["target"]
    texts = {"spec.yaml": yaml.safe_dump(spec, sort_keys=False), "results.json": json.dumps(document, indent=1)}
    return Note(
        name=document["run"]["id"],
        started=started,
        ended=ended,
        tags={**common, **_refs(versions)},
        params=dict(parameters(spec)),
        metrics=dict(metrics(document)),
        files={**{name: text.encode() for name, text in texts.items()}, **files},
        inputs=_inputs(versions, "text_set", "model"),
        below=[_of_concept(document, concept, started, ended, common) for concept in concepts],
    )


def parameters(spec: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """A spec as flat parameters: "validate.random_draws" and its value."""
    for key, value in spec.items():
        if isinstance(value, Mapping):
            yield from parameters(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def metrics(document: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """The summary, and the values of every arm and concept at the dose that was tested."""
    for name, triple in document["summary"].items():
        yield from _triple(triple, "summary", name)
    for arm, dose in document["doses"].items():
        yield _key("dose", arm), dose
    for name in ("match_rate", "heldout_r2", "survival", "lambda"):
        value = document.get(name, document["map"].get(name))
        if isinstance(value, (int, float)):
            yield _key("map", name), float(value)
    main = document["spec"]["validate"]["protocol"]
    for row in document["validations"]:
        if row["split"] != "dev" and row["value"] is not None:
            beside = () if row["protocol"] == main else (row["protocol"],)
            yield _key(*beside, row["arm"], row["metric"], row["concept"]), row["value"]
    for step, seconds in document["timings"].items():
        yield _key("seconds", step), seconds


def _of_concept(
    document: Mapping[str, Any], concept: str, started: float, ended: float, tags: Mapping[str, str]
) -> Note:
    spec = document["spec"]
    own = [v for v in document["versions"] if v["kind"] in ("vector", "transplant", "validation")]
    own = [v for v in own if v["name"].split("/")[0] == concept]
    found = dict(_triple(document["summary"].get(f"gain_recovered/{concept}"), "gain_recovered"))
    for row in document["validations"]:
        if row["concept"] == concept and row["split"] != "dev":
            beside = () if row["protocol"] == spec["validate"]["protocol"] else (row["protocol"],)
            found |= dict(_triple(row, *beside, row["arm"], row["metric"]))
    return Note(
        name=f"{concept} · {document['run']['id']}",
        started=started,
        ended=ended,
        tags={**tags, "contrans.concept": concept, **_refs(own)},
        params={"concept": concept, "source": spec["source"], "target": spec["target"]},
        metrics=found | {_key("dose", arm): dose for arm, dose in document["doses"].items()},
        inputs=_inputs(own, "vector", "transplant"),
    )


def _is_concept(row: Mapping[str, Any], document: Mapping[str, Any]) -> bool:
    return row["concept"] != "all" and row["protocol"] == document["spec"]["validate"]["protocol"]


def _triple(triple: Mapping[str, Any] | None, *name: str) -> Iterator[tuple[str, float]]:
    for key in ("value", "low", "high"):
        if triple and triple.get(key) is not None:
            yield _key(*name, *(() if key == "value" else (key,))), triple[key]


def _inputs(versions: Sequence[Mapping[str, Any]], *kinds: str) -> list[Input]:
    chosen = [v for v in versions if v["kind"] in kinds]
    return [Input(v["name"], v["digest"][:_DIGEST], f"{v['kind']}:{v['ref']}", v["kind"]) for v in chosen]


def _key(*parts: str) -> str:
    return "/".join(re.sub(r"[^\w.-]+", "_", part, flags=re.ASCII).strip("_") for part in parts)


def _refs(versions: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    by_kind = {kind: [v["ref"] for v in versions if v["kind"] == kind] for kind in KINDS}
    return {f"contrans.{kind}": ", ".join(refs) for kind, refs in by_kind.items() if refs}
