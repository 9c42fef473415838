"""Presets: settings that stand where a spec has none of its own.

| preset | what it is |
|---|---|
| paper | Dong et al. 2024 (arXiv 2405.13578): min-norm map on truncated sentences, one pair of blocks at depth .75 |
| default | blocks, rows and estimator chosen by their effect on dev, doses by effect |
| strict | the same by selectivity, with every arm at one price in KL, 149 random directions and all test items |
"""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

_CHOSEN: dict[str, Any] = {
    "corpus": {
        "wrapped": 1300,
        "spread": 3000,
        "truncated": 1300,
        "plain": 0,
        "mixes": [["wrapped", "spread"], ["wrapped"], ["spread"], ["truncated"]],
    },
    "map": {"estimator": "auto"},
}

PRESETS: dict[str, dict[str, Any]] = {
    "paper": {
        "blocks": {"source": 0.75, "target": 0.75},
        "corpus": {"wrapped": 0, "truncated": 2000},
        "map": {"estimator": "paper", "center": "all", "rescale": "none"},
        "validate": {"arms": ["unsteered", "transplanted", "own"]},
    },
    "default": _CHOSEN,
    "strict": {
        **_CHOSEN,
        "validate": {
            "arms": [
                "unsteered",
                "transplanted",
                "own",
                "random",
                "shuffled_map",
                "wrong_concept",
                "opposite",
                "prompt",
                "paper",
            ],
            "effect": "selectivity",
            "select": "kl",
            "kl_budget": 0.1,
            "random_draws": 149,  # so that Holm over six concepts can reach .05
            "shuffled_draws": 24,
            "dev_per_label": 12,
            "test_per_label": None,
            "generic_texts": 12,
        },
    },
}


def with_preset(values: Mapping[str, Any]) -> dict[str, Any]:
    """A spec's values over those of its preset; an unknown preset is left for validation to refuse."""
    base = deepcopy(PRESETS.get(str(values.get("preset", "default")), {}))
    return _over(base, values)


def _over(base: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in values.items():
        inner = merged.get(key)
        if isinstance(value, Mapping) and isinstance(inner, Mapping):
            value = _over(inner, value)
        merged[key] = value
    return merged
