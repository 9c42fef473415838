"""A protocol's results as tables of strings."""

from collections.abc import Iterator, Mapping
from typing import Any

from contrans.validation.claims import CONTROLS
from contrans.validation.curves import area_under_curve, interpolate_at
from contrans.validation.grids import Grid
from contrans.validation.row_table import COSTS, MEAN, RowTable
from contrans.validation.shares import ACCURACY, SELECTIVITY
from contrans.validation.significance import DRAWN, Comparison, compare, comparisons
from contrans.validation.wording import listed, p_value, percent, shown, spoken

_BUDGETS = (0.1, 0.3, 1.0)  # nats per token
_MOST_GRIDS = 4  # of what has no mean; more are one table
_WHAT = {"capability": "task"}
"""What a protocol is scored on, where that is no concept."""
_CARRIERS = ("transplanted", "own")
_COST_NAMES = {"kl": "KL", "perplexity_ratio": "perplexity ×"}


def arms_grid(table: RowTable, concept: str) -> Grid:
    """Arms × metrics with intervals, what each arm costs, and whether its effect is more than the unsteered model's.

    Args:
        table: the rows.
        concept: whose rows; "all" for the mean over concepts.
    """
    arms = table.arms()
    metrics = [m for m in table.metrics()[1:] if any(table.find(concept, arm, m) for arm in arms)]
    costs = [c for c in COSTS if any(_cost(table, concept, arm, c) for arm in arms)]
    compared = any(arm != "unsteered" for arm in arms) and "unsteered" in arms
    recovered = any(table.find(concept, arm, "gain_recovered") for arm in arms)
    columns = ["arm", "dose", spoken(table.effect), *["against unsteered"] * compared, *["gain recovered"] * recovered]
    columns += [*map(spoken, metrics), *(_COST_NAMES[c] for c in costs)]
    rows = []
    for arm in arms:
        effect = table.find(concept, arm, table.effect)
        dose = None if effect is None else effect["dose"]
        cells = [spoken(arm), "–" if dose is None else f"{dose:g}", _cell(effect)]
        cells += [_against(table, concept, arm)] * compared
        cells += [_cell(table.find(concept, arm, "gain_recovered"))] * recovered
        cells += [_cell(table.find(concept, arm, metric)) for metric in metrics]
        cells += [_cell(_cost(table, concept, arm, cost)) for cost in costs]
        rows.append(tuple(cells))
    about = "mean over concepts" if concept == MEAN else concept
    bold = frozenset(i for i, arm in enumerate(arms) if arm == "transplanted")
    return Grid(f"{spoken(table.protocol)}, {about}, test items", tuple(columns), tuple(rows), bold)


def concepts_grid(table: RowTable) -> Grid | None:
    """The effect by concept, each transplant against the unsteered model with Holm's p-values; None for one concept."""
    concepts, arms = table.concepts(), table.arms()
    if len(concepts) < 2:
        return None
    references = [a for a in ("unsteered", *DRAWN) if _comparable(table, a)]
    recovered = any(table.find(c, "transplanted", "gain_recovered") for c in concepts)
    what = _WHAT.get(table.protocol, "concept")
    columns = [what, *map(spoken, arms), *["gain recovered"] * recovered]
    columns += [f"against {spoken(a)}" for a in references]
    rows = []
    for concept in concepts:
        cells = [concept, *(_cell(table.find(concept, arm, table.effect), interval=False) for arm in arms)]
        cells += [_cell(table.find(concept, "transplanted", "gain_recovered"))] * recovered
        found = [compare(table, "transplanted", concept, against=a) for a in references]
        rows.append((*cells, *("–" if c is None else c.words for c in found)))
    return Grid(
        f"{spoken(table.effect)} by {what}, and the transplant against others (p after Holm)",
        tuple(columns),
        tuple(rows),
    )


def controls_grid(table: RowTable, concept: str) -> Grid | None:
    """Do the controls do nothing? What each moves against the unsteered model, and the vectors' p-values against it.

    A control that raises the effect and not the selectivity disturbs the model, and carries no concept. "Raised for"
    names the concepts whose gain (of selectivity, where there is one) lies above 0 by its interval; "pass alone" is the
    share of draws that would be significant by themselves.

    Args:
        table: the rows.
        concept: whose rows; "all" for the mean over concepts.

    Returns:
        None where no control has a gain.
    """
    controls = [arm for arm in CONTROLS if table.find(concept, arm, "gain")]
    if not controls:
        return None
    gains = {"gain": table.effect, **{f"{metric}_gain": metric for metric in (ACCURACY, SELECTIVITY)}}
    gains = {m: name for m, name in gains.items() if any(table.find(concept, arm, m) for arm in controls)}
    selective = next((m for m, name in gains.items() if name == SELECTIVITY), "gain")
    several = table.concepts() if concept == MEAN and len(table.concepts()) > 1 else []
    alarms = {arm: row for arm in controls if (row := table.find(concept, arm, "false_alarms"))}
    against = {(c, a): row for c, p in DRAWN.items() for a in _CARRIERS if (row := table.find(concept, a, p))}
    n_draws = {control: row["n"] for (control, _), row in against.items()} | {c: row["n"] for c, row in alarms.items()}
    tested = [arm for arm in _CARRIERS if any(arm == carrier for _, carrier in against)]
    columns = ["control", *(f"gain of {spoken(name)}" for name in gains.values()), *["raised for"] * bool(several)]
    columns += [*["draws"] * bool(n_draws), *["pass alone"] * bool(alarms), *(f"{arm} against it" for arm in tested)]
    rows = []
    for control in controls:
        cells = [spoken(control), *(_cell(table.find(concept, control, metric)) for metric in gains)]
        if several:
            of = [table.find(c, control, selective) for c in several]
            cells.append(listed([r["concept"] for r in of if r and (r["low"] or 0) > 0]) or "none")
        cells += [str(n_draws.get(control, "–"))] * bool(n_draws)
        cells += [percent(alarms[control]["value"]) if control in alarms else "–"] * bool(alarms)
        found = [against.get((control, arm)) for arm in tested]
        rows.append((*cells, *("–" if r is None else p_value(r["value"]) for r in found)))
    about = "mean over concepts" if concept == MEAN else f"{concept}{' (p before Holm)' * bool(tested)}"
    return Grid(f"what controls move against unsteered, {about}, test items", tuple(columns), tuple(rows))


def curve_summary(table: RowTable, concept: str = MEAN) -> list[dict[str, Any]]:
    """Every arm's effect at equal KLs, and its mean effect up to the largest KL that all curves reach.

    The mean effect is the area under the effect-against-KL curve divided by its width.

    Returns:
        Per arm `arm`, `kl_max`, `mean_effect`, and `at`: pairs of `kl` and `effect`, None out of its reach. Empty
        without curves, or where the unsteered model is not on dev.
    """
    base = table.find(concept, "unsteered", table.effect, split="dev")
    curves = {
        arm: points
        for arm in table.arms("dev")
        if (points := [p for p in table.curve_by_kl(arm, concept=concept) if p[0] > 0])
    }
    kl_max = min((max(kl for _, kl, _ in points) for points in curves.values()), default=0.0)
    if base is None or kl_max <= 0:
        return []
    out = []
    for arm, points in curves.items():
        kl, effect = [p[1] for p in points], [p[2] for p in points]
        area = float(area_under_curve(kl, effect, kl_max, base=base["value"]))
        at = [
            {"kl": b, "effect": float(interpolate_at(kl, effect, b, base=base["value"])) if b <= max(kl) else None}
            for b in _BUDGETS
        ]
        out.append({"arm": arm, "kl_max": kl_max, "mean_effect": area / kl_max, "at": at})
    return out


def curves_grid(table: RowTable, concept: str = MEAN) -> Grid | None:
    """Arms at equal prices: mean effect over KL, and the effect at some KLs; None without curves."""
    found = curve_summary(table, concept)
    if not found:
        return None
    reached = [i for i in range(len(_BUDGETS)) if any(arm["at"][i]["effect"] is not None for arm in found)]
    columns = ("arm", f"mean up to KL {found[0]['kl_max']:.2g}", *(f"at KL {_BUDGETS[i]:g}" for i in reached))
    rows = [
        (spoken(arm["arm"]), shown(arm["mean_effect"]), *(shown(arm["at"][i]["effect"]) for i in reached))
        for arm in found
    ]
    bold = frozenset(i for i, arm in enumerate(found) if arm["arm"] == "transplanted")
    return Grid(f"{spoken(table.effect)} at equal KL, dev items", columns, tuple(rows), bold)


def grids_about(table: RowTable, concept: str) -> Iterator[Grid]:
    """What the arms do to one concept, or to the mean over all, and what the controls do."""
    yield arms_grid(table, concept)
    if (controls := controls_grid(table, concept)) is not None:
        yield controls


def grids_of(table: RowTable) -> Iterator[Grid]:
    """All tables of a protocol."""
    for concept in table.headlines() if len(table.headlines()) <= _MOST_GRIDS else ():
        yield from grids_about(table, concept)
    for grid in (concepts_grid(table), *(curves_grid(table, concept) for concept in table.headlines())):
        if grid is not None:
            yield grid


def _cell(row: Mapping[str, Any] | None, *, interval: bool = True) -> str:
    if row is None:
        return "–"
    return shown(row["value"], row["low"], row["high"]) if interval else shown(row["value"])


def _cost(table: RowTable, concept: str, arm: str, metric: str) -> Mapping[str, Any] | None:
    effect = table.find(concept, arm, table.effect)
    return None if effect is None else table.cost(arm, effect["dose"], concept=concept, metric=metric)


def _against(table: RowTable, concept: str, arm: str) -> str:
    if arm == "unsteered":
        return "–"
    found = compare(table, arm, concept)
    if found is None:
        return "–"
    tested = [c for c in comparisons(table, arm) if c.concept != MEAN and c.p_holm is not None]
    if concept != MEAN or not tested:
        return found.words
    lower = bool(found.significant) and not found.higher
    alike = sum(bool(c.significant) and c.higher != lower for c in tested)
    return f"{found.words} ({alike} of {len(tested)} concepts)"


def _comparable(table: RowTable, against: str) -> bool:
    found: list[Comparison] = comparisons(table, "transplanted", against=against) if against in table.arms() else []
    # few shuffled maps have no p-value, and the intervals of their mean say little
    return any(c.significant is not None and (against != "shuffled_map" or c.p is not None) for c in found)
