"""What is noted of a re-validation: the night, and below it each transplant with what became of its effect."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from flows.tracking.notes import Note

_NUMBERS = ("before", "after", "change", "low", "high", "p", "p_holm", "n")
"""Of a drift, see `contrans.validation.drift.Change`."""


def note_of_night(
    night: str,
    scored: Sequence[Mapping[str, Any]],
    *,
    started: float,
    ended: float,
    run_id: str,
    flow_run_id: str,
) -> Note:
    """What is noted of a night.

    Args:
        night: its date.
        scored: what became of each transplant, as the flow `revalidate` gives it.
        started: when it began, in seconds since 1970.
        ended: when it ended.
        run_id: the registry's run, by whose name it goes.
        flow_run_id: the flow run that scored.
    """
    common = {"contrans.run_id": run_id, "contrans.night": night, "prefect.flow_run_id": flow_run_id}
    regressed = [one["transplant"] for one in scored if (one["drift"] or {}).get("verdict") == "worse"]
    return Note(
        name=run_id,
        started=started,
        ended=ended,
        tags={**common, "contrans.regressed": ", ".join(regressed)},
        params={"night": night},
        metrics={"scored": float(len(scored)), "regressed": float(len(regressed))},
        files={"scored.json": json.dumps(list(scored), indent=1).encode()},
        below=[_of_transplant(one, run_id, common, started, ended) for one in scored],
    )


def _of_transplant(one: Mapping[str, Any], name: str, common: Mapping[str, str], started: float, ended: float) -> Note:
    drift: Mapping[str, Any] = one["drift"] or {}
    summary = {key: found["value"] for key, found in one["summary"].items() if found and found["value"] is not None}
    tags = {
        **common,
        # "contrans.transplant" is that of the run which made it
        "contrans.revalidated": one["transplant"],
        "contrans.validation": one["validation"],
        "contrans.verdict": drift.get("verdict", "not comparable"),
    }
    return Note(
        name=f"{one['transplant']} · {name}",
        started=started,
        ended=ended,
        tags=tags,
        params={key: str(one[key]) for key in ("transplant", "baseline", "validation", "changed")},
        metrics={**summary, **{f"drift/{key}": float(drift[key]) for key in _NUMBERS if key in drift}},
    )
