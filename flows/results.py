"""The document that `contrans run --json` writes, and what it says in plain words.

| key | value |
|---|---|
| `spec` | the spec with every default filled in |
| `timings` | seconds that this run spent, by step; near 0 for a step that was done before |
| `versions` | what the run registered or came upon, as `Version.as_json` of the registry gives it |
| `validations` | rows: `concept`, `protocol`, `split`, `arm`, `metric`, `dose`, `value`, `low`, `high`, `n` |
| `summary` | `value`, `low`, `high` of each arm, of `gain_recovered`, `gain_recovered/CONCEPT`, `random_p/ARM`, … |
| `doses` | the dose that dev chose for each arm |
| `match_rate` | share of the source's tokens that end where a token of the target ends |
| `map` | `estimator`, `lambda`, `heldout_r2`, `survival` of the map behind the transplants |
| `choice` | blocks, rows and λ that were `chosen`; of all `tried` the effect and the random directions' on dev |
| `diagnostics` | per concept what the source's states say of its vector: `d_prime`, `auc`, `split_half_cosine`, … |
| `rows_fitted` | paired rows behind the map |
| `effects` | the metric that each protocol's effect is |
| `chance` | what guessing scores, by metric |
| `cross_effects` | what every concept put in does to every other's effect: `rows`, `doses`, …; null if not asked for |
| `samples` | what every arm wrote: `concept`, `prompt`, `arm`, `text`, `flaw`, `n_tokens`; null if not asked for |
| `stability` | effect and soundness of long texts: `rows` by window, `verdicts`, …; null if not asked for |
| `findings` | what a reader must know: `code`, `severity` ("failure", "warning", "note") and `sentence` |
| `steps` | names of the steps that this run `computed`, and that were `cached` |
| `run` | `id`, `spec_hash`, `flow_run_id`, `mlflow_run_id` (null without MLflow), `figure` (a path) |

`concept` is "all" for the mean over concepts; `split` is "dev", "test", or "generic" for text that has
nothing to do with the concept. `low` and `high` are null where there is no interval, `dose` where nothing was
shifted. Beside the spec's protocol there may be rows of `perplexity` and `capability`, all of them "test"; the
`concept` of a row of `capability` is its task. The summary is about the spec's protocol alone.

Of a spec with a `sweep` the document is another, and each point's own lies in the folder of its run:

| key | value |
|---|---|
| `spec` | what all points share, with every default filled in, and the `sweep` itself |
| `sweep` | `keys`, the swept settings, and `points`, in the order in which they ran |
| `run` | `id`, `folder`, and `figure` (a path; null where every point failed) |

A point has `values`, one by key; `summary`, `choice`, `findings` and `run` of its document; `effects`, the metric of
its protocol alone; `rows`, those of its validations on test that are about that effect of `unsteered`, `transplanted`,
`own` and `paper`; and `error`, why it failed, in a sentence. A point that failed has null or nothing for the others.

That of a spec with `sources` or `targets`:

| key | value |
|---|---|
| `spec` | what all cells share, with every default filled in, and the keys that make the matrix |
| `matrix` | `keys`, the swept settings if any, and `cells`, in the order in which the spec names them |
| `run` | `id`, `folder`, and `figure` (a path; null where every cell failed) |

A cell has `source`, `target` and `concepts`, and all that a point of a sweep has.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from contrans.validation.significance import DRAWN, LEVEL
from contrans.validation.wording import p_value
from flows.spec import PipelineSpec
from registry import Version

ROW = ("concept", "protocol", "split", "arm", "metric", "dose", "value", "low", "high", "n")
RESULTS = (
    "validations",
    "summary",
    "doses",
    "match_rate",
    "map",
    "choice",
    "diagnostics",
    "rows_fitted",
    "effects",
    "chance",
    "cross_effects",
    "samples",
    "stability",
    "findings",
)


def document(
    spec: PipelineSpec,
    *,
    timings: Mapping[str, float],
    computed: Iterable[str],
    cached: Iterable[str],
    versions: Iterable[Version],
    results: Mapping[str, Any],
    run: Mapping[str, Any],
) -> dict[str, Any]:
    """Puts the document together; see the top of this module.

    Args:
        spec: What was asked for.
        timings: Seconds by step.
        computed: Steps that this run did.
        cached: Steps that were done before.
        versions: What the registry holds of it.
        results: The numbers, with the keys `RESULTS`.
        run: Its ids and the path of its figure.
    """
    rows = [{key: row[key] for key in ROW} for row in results["validations"]]
    return {
        "spec": spec.canonical(),
        "timings": dict(timings),
        "versions": [version.as_json() for version in versions],
        **{key: results[key] for key in RESULTS if key != "validations"},
        "validations": rows,
        "steps": {"computed": list(computed), "cached": list(cached)},
        "run": dict(run),
    }


def arms_of(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """The arms that were tested, in the order of the rows."""
    return list(dict.fromkeys(row["arm"] for row in rows if row["split"] == "test"))


def find(
    rows: Iterable[Mapping[str, Any]], concept: str, arm: str, metric: str, *, split: str = "test"
) -> Mapping[str, Any] | None:
    """The row of one number, or None."""
    wanted = (concept, arm, metric, split)
    return next((r for r in rows if (r["concept"], r["arm"], r["metric"], r["split"]) == wanted), None)


def concepts_of(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The concepts that were tested, without "all"."""
    return list(dict.fromkeys(r["concept"] for r in rows if r["split"] == "test" and r["concept"] != "all"))


_SAID = {
    "logit_accuracy": "of the answers name the transplanted concept",
    "selectivity": "of the answers name the transplanted concept beyond the rate of mistakes",
    "mc1": "of the questions get their true answer",
    "non_toxic": "of the texts are fit to read and not toxic",
}


def verdict(summary: Mapping[str, Mapping[str, Any] | None], effect: str = "logit_accuracy") -> str:
    """What the numbers say of a protocol's effect, in a sentence or two."""
    base, moved = summary.get("unsteered"), summary.get("transplanted")
    if not base or not moved or base["value"] is None or moved["value"] is None:
        return "There is nothing to judge: the unsteered or the transplanted arm has no value."
    change = f"{_percent(moved)} {_SAID[effect]}, against {_percent(base)} unsteered"
    controls = [
        (name, arm)
        for name in ("random", "shuffled_map", "wrong_concept")
        if (arm := summary.get(name)) and arm["value"] is not None
    ]
    beaten = [name for name, arm in controls if _beats(summary, moved, name, arm)]
    if _low(moved) <= _high(base):
        return f"No effect is proven: {change}, and the intervals overlap."
    if len(beaten) < len(controls):
        rivals = " and ".join(
            f"{name} ({_percent(arm)}{_by_chance(summary, name)})" for name, arm in controls if name not in beaten
        )
        return f"The effect is not the concept's own: {change}, but the control {rivals} does as well."
    kept = "; ".join(f"{name} {_percent(arm)}" for name, arm in controls)
    said = f"The concept crosses over: {change}" + (f" (controls: {kept})." if kept else ".")
    gain = summary.get("gain_recovered")
    if gain and gain["value"] is not None:
        said += f" That is {_percent(gain)} of what the target's own vector gains"
        said += f" ({_percent(gain, 'low')} to {_percent(gain, 'high')})." if gain["low"] is not None else "."
    elif "own" in summary:
        said += " The target's own vector gains nothing significant, so no share of it can be given."
    return said


def _beats(summary: Mapping[str, Any], moved: Mapping[str, Any], name: str, control: Mapping[str, Any]) -> bool:
    """Whether the transplant does more than a control: by its p-value against many draws, else by intervals."""
    p = _against(summary, name)
    return _low(moved) > _high(control) if p is None else p < LEVEL


def _by_chance(summary: Mapping[str, Any], name: str) -> str:
    """How often a draw of a control does as well, since its mean does not tell."""
    p = _against(summary, name)
    return "" if p is None else f" in the mean, {p_value(p)}"


def _against(summary: Mapping[str, Any], name: str) -> float | None:
    p = summary.get(f"{DRAWN[name]}/transplanted") if name in DRAWN else None
    return None if p is None else p["value"]


def _percent(arm: Mapping[str, Any], key: str = "value") -> str:
    return f"{100 * arm[key]:.0f} %"


def _low(arm: Mapping[str, Any]) -> float:
    return arm["value"] if arm["low"] is None else arm["low"]


def _high(arm: Mapping[str, Any]) -> float:
    return arm["value"] if arm["high"] is None else arm["high"]
