"""What is measured beside the main protocol, at the doses that dev chose: `validate.also`.

| name | what is measured | arms | asked of the target |
|---|---|---|---|
| perplexity | generic texts, rolling log-likelihood | unsteered, transplanted, own | a scoring per arm and concept |
| samples | free text after each prompt | unsteered, transplanted, own | a text per prompt, arm and concept |
| stability | long texts, window by window | unsteered, transplanted | a long text per prompt and concept |
| capability | tasks of lm-evaluation-harness | unsteered, transplanted | all items once, and once per concept |

The unsteered model is asked once for all concepts. Capability is dear: with six concepts every item is answered seven
times, so `validate.task_limit` and fewer concepts make it cheaper.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contrans.errors import SpecError
from contrans.hashing import digest
from flows.extra_work import (
    arms_beside,
    measure_capability,
    measure_perplexity,
    measure_stability,
    prompts_of,
    read_along,
    write_samples,
)
from flows.steps import Cost, tokens_of, writing
from flows.work import Work

if TYPE_CHECKING:
    from flows.steps import Step
    from flows.study import ModelFacts, Study

EXTRAS = ("perplexity", "samples", "stability", "capability")
"""Names of the steps, which are also their kinds."""
WITH_ROWS = ("perplexity", "capability")
"""Those that leave rows, as a protocol of their own."""
INPUTS = ("map vectors", "refine · target", "fit maps", "choose", "calibrate dose")
"""Steps that each of them needs."""

_AT_ONCE = 8  # texts that are written in one batch, as in `flows.extra_work`
_ITEMS, _ITEM_TOKENS = 1000, 400  # of a task, whose data no plan reads: such as four choices of 100 tokens each


@dataclass(frozen=True)
class Extra:
    """A step beside the main protocol.

    Attributes:
        name: one of `EXTRAS`.
        run: makes its output.
        settings: what its output depends on, besides its inputs.
        cost: what it asks of the machine.
    """

    name: str
    run: Work
    settings: dict[str, Any]
    cost: Cost


def extras(study: Study, target: ModelFacts, share_above: float) -> list[Extra]:
    """The steps that a spec asks for beside its protocol, in the order of `EXTRAS`.

    Args:
        study: the study.
        target: the model that is steered.
        share_above: share of its blocks that run for each shift when states below are kept.

    Raises:
        SpecError: tasks are asked for, but lm-evaluation-harness is not installed or their folder does not exist.
    """
    spec, v = study.spec, study.spec.validate_
    shared = {"target": target.fingerprint, "seed": spec.seed}
    arms, n_concepts, prompts = arms_beside(study), len(study.contrasts), prompts_of(study)
    n_prompts, read = len(prompts), tokens_of(prompts)

    def perplexity() -> Extra:
        texts = list(study.generic.texts)
        n, once = 1 + n_concepts * len(arms), tokens_of(texts)
        settings = {**shared, "texts": study.generic.hash, "arms": arms, "precision": spec.compute.precision}
        cost = Cost("target", n * len(texts), round((n + 1 / share_above) * once), share_above, n * once)
        return Extra("perplexity", measure_perplexity(study), settings, cost)

    def samples() -> Extra:
        n = 1 + n_concepts * len(arms)
        settings = {**shared, "prompts": prompts, "arms": arms, "new_tokens": v.new_tokens}
        cost = writing(n_prompts, read, v.new_tokens, times=n, at_once=_AT_ONCE)
        return Extra("samples", write_samples(study), settings, cost)

    def stability() -> Extra:
        written = writing(n_prompts, read, v.long_tokens, times=1 + n_concepts, at_once=_AT_ONCE)
        settings = {**shared, "prompts": prompts, "long_tokens": v.long_tokens, "along": read_along(study)}
        # each text is written, and then read by the unsteered model; its own are read along every concept
        reads, length = 2 * n_concepts, n_prompts * v.long_tokens
        cost = replace(
            written,
            texts=written.texts + reads * n_prompts,
            tokens=written.tokens + reads * (read + length),
            head_rows=written.head_rows + reads * length,
        )
        return Extra("stability", measure_stability(study), settings, cost)

    def capability() -> Extra:
        settings = {**shared, **_tasks(study), "precision": spec.compute.precision}
        items = (1 + n_concepts) * len(v.tasks) * (v.task_limit or _ITEMS)
        cost = Cost("target", items, items * _ITEM_TOKENS, 1.0, items * _ITEM_TOKENS)
        return Extra("capability", measure_capability(study), settings, cost)

    made: dict[str, Callable[[], Extra]] = {
        "perplexity": perplexity,
        "samples": samples,
        "stability": stability,
        "capability": capability,
    }
    return [made[name]() for name in EXTRAS if name in v.also]


def results_beside(steps: Mapping[str, Step], read: Callable[[str, str], Any]) -> dict[str, Any]:
    """What the steps of `EXTRAS` left, for the document and the registry.

    Args:
        steps: all steps of the pipeline.
        read: reads a JSON file of a step.

    Returns:
        `rows` and `effects` of those that are protocols, `samples` (rows) and `stability`, null if not asked for.
    """
    with_rows = {name: read(name, f"{name}.json") for name in WITH_ROWS if name in steps}
    return {
        "rows": [row for found in with_rows.values() for row in found["rows"]],
        "effects": {name: found["effect"] for name, found in with_rows.items()},
        "samples": read("samples", "samples.json")["rows"] if "samples" in steps else None,
        "stability": read("stability", "stability.json") if "stability" in steps else None,
    }


def _tasks(study: Study) -> dict[str, Any]:
    v = study.spec.validate_
    try:
        harness = version("lm_eval")
    except PackageNotFoundError:
        raise SpecError(
            "Capability tasks need lm-evaluation-harness, which is not installed; run `pip install contrans[harness]`."
        ) from None
    return {"tasks": v.tasks, "limit": v.task_limit, "files": _files_hash(v.task_dir), "harness": harness}


def _files_hash(folder: str | None) -> str | None:
    """Hash of the names and contents of task files and of data that lie beside them."""
    if folder is None:
        return None
    if not Path(folder).is_dir():
        raise SpecError(f"The folder of tasks {folder!r} does not exist; name one with task files (YAML) in task_dir.")
    files = sorted(p for p in Path(folder).rglob("*") if p.is_file() and "__pycache__" not in p.parts)
    return digest([[str(p.relative_to(folder)), hashlib.sha256(p.read_bytes()).hexdigest()] for p in files])
