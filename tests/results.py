"""Rows of results as a run writes them, with effects that are known."""

from typing import Any

import numpy as np

from contrans.validation.statistics import wilson

CONCEPTS = ("anger", "fear", "sadness")
DOSES = (0.05, 0.1, 0.2, 0.3, 0.5)
STRENGTH = {"transplanted": 1.0, "own": 1.4, "paper": 0.7, "opposite": -1.0, "shuffled_map": -0.2, "random": 0.15}
PRICE = {"transplanted": 14.0, "own": 13.0, "paper": 17.0, "opposite": 15.0, "shuffled_map": 13.0, "random": 300.0}


def row(concept: str, arm: str, metric: str, value: float, **more: Any) -> dict[str, Any]:
    """One row; without `low` and `high` it has no interval."""
    found = {"protocol": "emotion", "split": "test", "dose": None, "low": None, "high": None, "n": 150}
    return {"concept": concept, "arm": arm, "metric": metric, "value": value, **found, **more}


def share(concept: str, arm: str, metric: str, value: float, n: int = 150, **more: Any) -> dict[str, Any]:
    """A row of a share with Wilson's interval."""
    found = wilson(round(value * n), n)
    return row(concept, arm, metric, found.value, low=found.low, high=found.high, n=n, **more)


def effect(arm: str, dose: float) -> float:
    """What an arm does at a dose: .1 without it, towards 1 or 0 with it."""
    x = STRENGTH.get(arm, 0.0) * 14 * dose - 2.2
    return float(1 / (1 + np.exp(-x)))


def kl(arm: str, dose: float) -> float:
    """What an arm costs at a dose."""
    return PRICE[arm] * dose**2


def emotion_rows(*, p: float = 1e-4, test_dose: float = 0.2) -> list[dict[str, Any]]:
    """Dev curves with KL and the test of every arm of an emotion run, every concept alike.

    `p` is the transplant's p-value for each concept against the unsteered model.
    """
    rows = []
    for concept in (*CONCEPTS, "all"):
        n = 450 if concept == "all" else 150
        for metric, factor in (("logit_accuracy", 1.0), ("token_accuracy", 0.6)):
            rows.append(share(concept, "unsteered", metric, factor * 0.1, n, split="dev"))
            rows.append(share(concept, "unsteered", metric, factor * 0.1, n))
            for arm in STRENGTH:
                for dose in DOSES:
                    rows.append(share(concept, arm, metric, factor * effect(arm, dose), n, split="dev", dose=dose))
                rows.append(share(concept, arm, metric, factor * effect(arm, test_dose), n, dose=test_dose))
    for arm in STRENGTH:
        for dose in DOSES:
            rows.append(row("all", arm, "kl", kl(arm, dose), split="dev", dose=dose))
        cost = kl(arm, test_dose)
        more = {"split": "generic", "dose": test_dose, "n": 5000}
        rows.append(row("all", arm, "kl", cost, low=0.9 * cost, high=1.1 * cost, **more))
        rows.append(row("all", arm, "perplexity_ratio", float(np.exp(cost)), **more))
        if arm != "random":
            tested = p if arm == "transplanted" else 1e-4
            rows += [row(c, arm, "mcnemar_p", tested, dose=test_dose) for c in CONCEPTS]
            rows += [row(c, arm, "mcnemar_p_holm", min(1, 3 * tested), dose=test_dose) for c in CONCEPTS]
    gain = (effect("transplanted", test_dose) - 0.1) / (effect("own", test_dose) - 0.1)
    rows.append(row("all", "transplanted", "gain_recovered", gain, low=gain - 0.05, high=gain + 0.05, dose=test_dose))
    return rows


def document(rows: list[dict[str, Any]] | None = None, **more: Any) -> dict[str, Any]:
    """A run's document in which all is well, but for what `more` changes."""
    return {
        "spec": {"source": "small-instruct", "target": "large-base"},
        "validations": emotion_rows() if rows is None else rows,
        "summary": {},
        "match_rate": 0.93,
        "map": {"estimator": "ridge", "lambda": 1.0, "heldout_r2": 0.5, "survival": 0.8},
        **more,
    }
