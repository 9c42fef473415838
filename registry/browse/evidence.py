"""What a validation found, ready to be shown: tables, charts for each arm, warnings in words, samples side by side."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from markupsafe import Markup

from contrans.errors import ArtifactError
from contrans.report.drawing import steered_arms
from contrans.report.evidence import Evidence
from contrans.report.grids import grids_about, grids_of
from contrans.validation.finding import Finding
from contrans.validation.grids import Grid
from contrans.validation.row_table import MEAN, RowTable
from contrans.validation.wording import shown, spoken
from registry.browse.charts import Series, arm_class, line_chart
from registry.browse.facts import vector_header
from registry.browse.reading import Reader
from registry.records import Version

_MOST_SAMPLES = 12  # prompts of one concept
_DOSE = "dose (shift ÷ median norm of the residual stream)"
_COST = "KL to the unsteered model on generic text (nats per token)"


@dataclass(frozen=True)
class Sample:
    """What the arms wrote after one prompt: (arm, text, flaw) each."""

    prompt: str
    texts: tuple[tuple[str, str, str], ...]


@dataclass(frozen=True)
class Panel:
    """One protocol's part of a page.

    Attributes:
        validation: The version that holds the numbers.
        protocol: In words.
        headline: The main number in a sentence, or "".
        grids: Tables, with a caption each.
        charts: SVG.
        arms: Arms in the charts, as (class, words).
        findings: What must be known, failures first.
        power: What so many items can see, or "".
        samples: Texts side by side.
    """

    validation: Version
    protocol: str
    headline: str
    grids: tuple[Grid, ...]
    charts: tuple[Markup, ...]
    arms: tuple[tuple[str, str], ...]
    findings: tuple[Finding, ...]
    power: str
    samples: tuple[Sample, ...]


def panels(registry: Reader, validation: Version, transplant: Version | None) -> list[Panel]:
    """The panels of a validation, its own protocol first.

    Args:
        registry: Where it is.
        validation: The validation.
        transplant: What it judges, for what is known of its vector and map; None if that is not known.
    """
    rows = [asdict(result) for result in registry.results(validation)]
    concept = str(validation.manifest.get("concept") or _only([r["concept"] for r in rows]))
    document = _document(registry, validation, transplant, rows, concept)
    main = validation.manifest.get("protocol")
    protocols = sorted(dict.fromkeys(r["protocol"] for r in rows), key=lambda p: p != main)
    found = []
    for protocol in protocols:
        try:
            evidence = Evidence.of_document(document, protocol=protocol)
        except ArtifactError:
            continue  # rows of costs alone have no effect to show
        found.append(_panel(validation, evidence, concept))
    return found


def headline(table: RowTable, concept: str) -> str:
    """Gain recovered, or else the effect of the transplant beside that of the unsteered model, in a sentence."""
    about = _about(table, concept)
    gain = table.find(about, "transplanted", "gain_recovered")
    moved, base = table.find(about, "transplanted", table.effect), table.find(about, "unsteered", table.effect)
    parts = []
    if gain is not None and gain["value"] is not None:
        parts.append(f"It recovers {_interval(gain)} of the gain of the target's own vector.")
    if moved is not None and base is not None:
        effect = spoken(table.effect)
        parts.append(f"The {effect} goes from {_interval(base)} unsteered to {_interval(moved)} transplanted.")
        cost = table.cost("transplanted", moved["dose"], concept=about)
        if cost is not None:
            parts.append(f"On generic text that costs a KL of {_interval(cost)} nats per token.")
    return " ".join(parts)


def _panel(validation: Version, evidence: Evidence, concept: str) -> Panel:
    table = evidence.results
    about = _about(table, concept)
    arms = steered_arms([*table.arms("dev"), *table.arms()])
    base = table.find(about, "unsteered", table.effect)
    height = None if base is None else base["value"]
    by_dose = [Series(arm, *_against_dose(table, about, arm)) for arm in arms]
    by_kl = [Series(arm, *_against_kl(table, about, arm)) for arm in arms]
    effect = spoken(table.effect)
    whom = "the mean over concepts" if about == MEAN else about
    of, lines = f"{effect} of {whom}", "a line for each arm"
    charts = (
        line_chart(f"{of} against dose, {lines}", by_dose, x_label=_DOSE, y_label=effect, base=height),
        line_chart(f"{of} against KL, {lines}", by_kl, x_label=_COST, y_label=effect, base=height, kl=True),
    )
    drawn = [s.arm for s in (*by_dose, *by_kl) if s.curve or s.marks]
    return Panel(
        validation=validation,
        protocol=spoken(table.protocol),
        headline=headline(table, concept),
        grids=(*(grids_about(table, about) if about not in table.headlines() else ()), *grids_of(table)),
        charts=tuple(chart for chart in charts if chart),
        arms=tuple((arm_class(arm), spoken(arm)) for arm in dict.fromkeys(drawn)),
        findings=evidence.findings,
        power=evidence.power,
        samples=_side_by_side(evidence.samples, concept),
    )


def _about(table: RowTable, concept: str) -> str:
    return concept if table.find(concept, "transplanted", table.effect) else (table.headlines() or [concept])[0]


def _against_dose(table: RowTable, concept: str, arm: str) -> tuple[list[Any], list[Any]]:
    curve = [(row["dose"], row["value"]) for row in table.curve(arm, concept=concept) if row["dose"] is not None]
    row = table.find(concept, arm, table.effect)
    marks = [] if row is None or row["dose"] is None else [(row["dose"], row["value"], row["low"], row["high"])]
    return _defined(curve), _defined(marks)


def _against_kl(table: RowTable, concept: str, arm: str) -> tuple[list[Any], list[Any]]:
    curve = [(kl, value) for _, kl, value in table.curve_by_kl(arm, concept=concept)]
    row = table.find(concept, arm, table.effect)
    cost = None if row is None else table.cost(arm, row["dose"], concept=concept)
    if row is None or cost is None:
        return _defined(sorted(curve)), []
    return _defined(sorted(curve)), _defined([(cost["value"], row["value"], row["low"], row["high"])])


def _defined(points: Sequence[Any]) -> list[Any]:
    return [point for point in points if point[0] is not None and point[1] is not None]


def _document(
    registry: Reader, validation: Version, transplant: Version | None, rows: list[dict[str, Any]], concept: str
) -> dict[str, Any]:
    header = {} if transplant is None else vector_header(registry, transplant)
    provenance = _object(header, "provenance")
    source = _object(_object(provenance, "mapped_from"), "model")
    fitted = next(iter(_object(provenance, "map").values()), {})
    diagnostics = next(iter(_object(_object(provenance, "refined"), "diagnostics").values()), {})
    survival = next(iter(_object(provenance, "survival").values()), None)
    summary = _object(validation.manifest, "summary")
    gain = summary.get("gain_recovered_of_concept")
    return {
        "spec": {
            "source": str(source.get("name", "")),
            "target": str(_object(header, "model").get("name", "")),
            "validate": {"protocol": validation.manifest.get("protocol")},
        },
        "validations": [row for row in rows if row["value"] is not None],
        "summary": {f"gain_recovered/{concept}": gain} if isinstance(gain, Mapping) else {},
        "diagnostics": {concept: diagnostics} if isinstance(diagnostics, Mapping) and diagnostics else {},
        "map": {**fitted, **({} if survival is None else {"survival": {concept: survival}})},
        "rows_fitted": fitted.get("n"),
        "source_width": source.get("hidden_size"),
        "samples": _samples(registry, validation),
    }


def _object(value: Mapping[str, Any], key: str) -> dict[str, Any]:
    found = value.get(key)
    return dict(found) if isinstance(found, Mapping) else {}


def _samples(registry: Reader, validation: Version) -> list[Mapping[str, Any]]:
    if "samples.json" not in registry.files(validation):
        return []
    try:
        rows = json.loads(registry.read(validation, "samples.json"))["rows"]
    except (ValueError, KeyError, TypeError):
        return []
    return [row for row in rows if isinstance(row, Mapping) and {"prompt", "arm", "text"} <= row.keys()]


def _side_by_side(samples: Sequence[Mapping[str, Any]], concept: str) -> tuple[Sample, ...]:
    by_prompt: dict[str, dict[str, tuple[str, str, str]]] = {}
    for row in samples:
        if row.get("concept") in (concept, "", None):
            texts = by_prompt.setdefault(str(row["prompt"]), {})
            texts[str(row["arm"])] = (spoken(str(row["arm"])), str(row["text"]), str(row.get("flaw") or ""))
    return tuple(Sample(prompt, tuple(texts.values())) for prompt, texts in list(by_prompt.items())[:_MOST_SAMPLES])


def _only(concepts: Sequence[str]) -> str:
    named = [c for c in dict.fromkeys(concepts) if c != MEAN]
    return named[0] if len(named) == 1 else MEAN


def _interval(row: Mapping[str, Any]) -> str:
    return shown(row["value"], row["low"], row["high"])
