"""What a reader of a run must know: every failure signature that its numbers show, in words.

The functions that judge single numbers stand in `contrans.validation.signatures` and `contrans.validation.claims`.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from contrans.validation.claims import (
    CONTROLS,
    below_chance,
    control_does_as_well,
    control_moves,
    not_significant,
    own_gains_nothing,
    side_effect,
    wrong_way,
)
from contrans.validation.finding import Finding, Severity
from contrans.validation.row_table import MEAN, SIDE_EFFECT_PROTOCOLS, RowTable
from contrans.validation.shares import ACCURACY, SELECTIVITY
from contrans.validation.signatures import (
    concept_absent,
    corpus_does_not_cover,
    degenerate_text,
    dose_at_edge,
    rows_near_dimension,
    tokenizers_unlike,
    unsafe_safety,
)
from contrans.validation.significance import DRAWN, Comparison, compare, comparisons
from contrans.validation.wording import p_value, shown, spoken

__all__ = [
    "Finding",
    "Severity",
    "below_chance",
    "concept_absent",
    "control_does_as_well",
    "control_moves",
    "corpus_does_not_cover",
    "degenerate_text",
    "dose_at_edge",
    "findings_of",
    "item_count",
    "not_significant",
    "own_gains_nothing",
    "rows_near_dimension",
    "side_effect",
    "table_findings",
    "tokenizers_unlike",
    "unsafe_safety",
    "wrong_way",
]

_ORDER: dict[str, int] = {"failure": 0, "warning": 1, "note": 2}
_CALIBRATED = ("transplanted", "own", "paper")


def findings_of(document: Mapping[str, Any]) -> list[Finding]:
    """All findings of a run's document, failures first.

    Keys that are not there are not judged: `diagnostics` (per concept `d_prime`, `split_half_cosine`), `match_rate`,
    `map` (`estimator`, `survival` as one number or per concept), `rows_fitted`, `source_width`, `validations` (rows of
    any protocols, see `contrans.validation.rows.Row`), `summary` (`gain_recovered`, `gain_recovered/CONCEPT`),
    `effects` (the effect per protocol) and `chance` (what guessing scores, per metric).

    Args:
        document: what a run found, as `contrans run --json` writes it.

    Raises:
        ArtifactError: rows are not as a run writes them.
    """
    found = list(_of_the_map(document))
    rows = list(document.get("validations", ()))
    effects = document.get("effects") or {}
    protocols = list(dict.fromkeys(row["protocol"] for row in rows))
    for protocol in protocols:
        table = RowTable.of(rows, protocol=protocol, effect=effects.get(protocol))
        # the summary speaks of one protocol; of several it cannot be told of which
        summary = document.get("summary") if len(protocols) == 1 else None
        found += table_findings(table, summary=summary or {}, chance=document.get("chance") or {})
    return sorted(dict.fromkeys(found), key=lambda f: _ORDER[f.severity])


def table_findings(
    table: RowTable, *, summary: Mapping[str, Any] = {}, chance: Mapping[str, float] = {}
) -> list[Finding]:
    """The findings of one protocol, failures first.

    Args:
        table: its rows.
        summary: `gain_recovered` and `gain_recovered/CONCEPT`, None where the own vector gains nothing significant.
        chance: what guessing scores, per metric.
    """
    judge = _side_effects if table.protocol in SIDE_EFFECT_PROTOCOLS else _of_the_effect
    found = [*judge(table), *_of_own(table, summary), *_of_the_dose(table), *_of_the_text(table)]
    for metric, guess in chance.items():
        for concept in table.headlines():
            row = table.find(concept, "unsteered", metric)
            if row is not None and row["high"] is not None:
                found.append(below_chance(metric, row["high"], guess))
    return sorted(dict.fromkeys(f for f in found if f), key=lambda f: _ORDER[f.severity])


def _of_the_map(document: Mapping[str, Any]) -> Iterator[Finding]:
    found: list[Finding | None] = []
    for concept, measured in (document.get("diagnostics") or {}).items():
        if "d_prime" in measured:
            found.append(concept_absent(concept, measured["d_prime"], measured.get("split_half_cosine")))
    fitted = document.get("map") or {}
    survival = fitted.get("survival")
    if isinstance(survival, Mapping):
        found += [corpus_does_not_cover(value, concept) for concept, value in survival.items()]
    elif survival is not None:
        found.append(corpus_does_not_cover(survival))
    if document.get("match_rate") is not None:
        found.append(tokenizers_unlike(document["match_rate"]))
    if document.get("rows_fitted") and document.get("source_width"):
        estimator = fitted.get("estimator", "ridge")
        found.append(rows_near_dimension(document["rows_fitted"], document["source_width"], estimator))
    return (f for f in found if f)


def _of_the_effect(table: RowTable) -> Iterator[Finding | None]:
    compared = comparisons(table, "transplanted")
    yield not_significant(table.effect, [_case(c) for c in compared if c.significant is False], item_count(table))
    yield wrong_way(table.effect, [_case(c) for c in compared if c.significant and not c.higher])
    # where the transplant itself does nothing, its controls have nothing to equal
    for concept in (c.concept for c in compared if c.higher and c.concept in table.headlines()):
        moved = table.find(concept, "transplanted", table.effect)
        controls = [row for arm in CONTROLS if (row := table.find(concept, arm, table.effect))]
        if moved is not None:
            rivals = [(row["arm"], said) for row in controls if (said := _rivals(table, concept, moved, row))]
            yield control_does_as_well(_low(moved), [f"{spoken(arm)} ({said})" for arm, said in rivals])
            for row in controls:
                if row["arm"] not in dict(rivals):
                    yield _what_a_control_moves(table, concept, row["arm"])


def _what_a_control_moves(table: RowTable, concept: str, arm: str) -> Finding | None:
    gain = table.find(concept, arm, "gain")
    if gain is None or gain["low"] is None or gain["low"] <= 0:
        return None
    # where the selectivity is the effect, this one is not there, and all of the gain counts
    alarms, selective = (table.find(concept, arm, metric) for metric in ("false_alarms", "selectivity_gain"))
    share = alarms["value"] if alarms else None
    if selective is None:
        return control_moves(table.effect, arm, _words(gain), alarms=share)
    moved = {"selective": _low(selective) > 0, "selectivity": _words(selective)}
    return control_moves(table.effect, arm, _words(gain), alarms=share, **moved)


def _words(row: Mapping[str, Any]) -> str:
    return shown(row["value"], row["low"], row["high"])


def _rivals(table: RowTable, concept: str, moved: Mapping[str, Any], row: Mapping[str, Any]) -> str:
    """What a control does, in words, if that is as much as the transplant; else nothing.

    Of one drawn many times the p-value tells it, which knows the draws' spread, if there is one.
    """
    by_p = compare(table, "transplanted", concept, against=row["arm"]) if row["arm"] in DRAWN else None
    if by_p is None or by_p.p is None:
        return shown(row["value"]) if _high(row) >= _low(moved) else ""
    return "" if by_p.higher else f"{shown(row['value'])} in the mean, {p_value(by_p.p)}"


def _side_effects(table: RowTable) -> Iterator[Finding | None]:
    worse = []
    for c in comparisons(table, "transplanted"):
        if c.concept in table.headlines() and c.significant and not c.higher:
            before, after = (table.find(c.concept, arm, table.effect) for arm in ("unsteered", "transplanted"))
            values = f"from {shown(before['value'])} to {shown(after['value'])}" if before and after else c.words
            about = "" if c.concept == MEAN else f" of {c.concept}"
            worse.append(f"{spoken(table.effect)}{about} goes {values}")
    yield side_effect(table.protocol, worse)


def _of_own(table: RowTable, summary: Mapping[str, Any]) -> Iterator[Finding | None]:
    if table.protocol in SIDE_EFFECT_PROTOCOLS or "own" not in table.arms():
        return
    nothing = []
    for c in comparisons(table, "own"):
        gain = summary.get("gain_recovered" if c.concept == MEAN else f"gain_recovered/{c.concept}")
        known = gain is not None
        if (known and gain["value"] is None) or (not known and c.significant is not None and not c.higher):
            nothing.append(_name(c.concept))
    yield own_gains_nothing(nothing)


def _of_the_dose(table: RowTable) -> Iterator[Finding | None]:
    for arm in _CALIBRATED:
        for concept in table.headlines():
            row = table.find(concept, arm, table.effect)
            candidates = [r["dose"] for r in table.curve(arm, concept=concept) if r["dose"] is not None]
            if row is not None and row["dose"] is not None and candidates:
                yield dose_at_edge(arm, row["dose"], candidates)


def _of_the_text(table: RowTable) -> Iterator[Finding | None]:
    for arm in (a for a in table.arms() if a != "unsteered"):
        for concept in table.headlines():

            def value(metric: str, arm: str = arm, concept: str = concept) -> float | None:
                row = table.find(concept, arm, metric)
                return None if row is None else row["value"]

            effect = table.find(concept, arm, table.effect)
            cost = table.cost(arm, effect["dose"], concept=concept, metric="perplexity_ratio") if effect else None
            yield degenerate_text(
                arm,
                perplexity_ratio=cost["value"] if cost else None,
                distinct_2=value("distinct_2"),
                base_distinct_2=value("distinct_2", "unsteered"),
                repetition=value("repetition"),
                degenerate=value("degenerate"),
            )
            yield unsafe_safety(arm, empty=value("empty") or 0.0, copied=value("copied") or 0.0)


def item_count(table: RowTable) -> int | None:
    """Fewest items behind an effect of the transplant, for `power_note`; None where the effect is no share.

    A mean over concepts counts an item once per concept, so concepts are counted one by one where there are any. Of the
    selectivity the scenarios of others count, whose share it is but for the few of the concept's own.
    """
    effect = ACCURACY if table.effect == SELECTIVITY else table.effect
    rows = [row for c in table.concepts() or [MEAN] if (row := table.find(c, "transplanted", effect))]
    ends = [end for row in rows for end in (row["value"], row["low"], row["high"]) if end is not None]
    share = all(0 <= end <= 1 for end in ends) and table.protocol not in SIDE_EFFECT_PROTOCOLS
    return min((row["n"] for row in rows), default=None) if share else None


def _case(comparison: Comparison) -> str:
    found = "by its interval" if comparison.p_holm is None else p_value(comparison.p_holm)
    return f"{_name(comparison.concept)} ({found})"


def _name(concept: str) -> str:
    return "the mean over concepts" if concept == MEAN else concept


def _low(row: Mapping[str, Any]) -> float:
    return row["value"] if row["low"] is None else row["low"]


def _high(row: Mapping[str, Any]) -> float:
    return row["value"] if row["high"] is None else row["high"]
