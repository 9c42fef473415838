"""What can a model still do? Tasks of lm-evaluation-harness (Gao et al. 2024, doi:10.5281/zenodo.12608602).

Both runs of a comparison see the same items with the same few-shot examples, so that a change is judged item by item.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from contrans.concepts.vector import ConceptVector
from contrans.errors import SpecError
from contrans.models import Model
from contrans.transplants import Transplant, transplant
from contrans.validation.harness import harness_model, load_tasks, run_tasks, undisturbed
from contrans.validation.resampling import cluster_bootstrap
from contrans.validation.statistics import mcnemar

Progress = Callable[[int], None]
"""Called with the number of tokens that go through the model."""

BOOTSTRAPS = 1000
"""Resamples behind the standard errors that have no formula (F1, BLEU, …)."""


@dataclass(frozen=True)
class CapabilityRow:
    """One metric of one task.

    Attributes:
        task: the task's or group's name.
        metric: such as "acc"; with the harness's filter behind a slash if it has one, "exact_match/strict-match".
        value: over all items.
        stderr: its standard error, where the harness knows one.
        n: items behind it.
        items: the metric of each item by what was asked; empty where the harness keeps no number per item.
        higher_is_better: whether more of it is better; taken for granted where the harness does not say.
    """

    task: str
    metric: str
    value: float
    stderr: float | None
    n: int
    items: Mapping[str, float] = field(default_factory=dict, repr=False)
    higher_is_better: bool = True

    @property
    def is_mean(self) -> bool:
        """Whether the value is the mean over its items."""
        return bool(self.items) and _is_mean(np.array(list(self.items.values())), self.value)


@dataclass(frozen=True)
class CapabilityChange:
    """What a transplant did to one metric of one task, on the same items.

    Attributes:
        task: the task's or group's name.
        metric: as in `CapabilityRow`.
        unsteered: the metric without the transplant.
        steered: the metric with it.
        low: lower end of the 95 % interval of steered − unsteered, by paired bootstrap over items; None where the
            metric is no mean over items.
        high: upper end.
        p_value: exact McNemar; None where an item is not just right or wrong.
        n: items.
    """

    task: str
    metric: str
    unsteered: float
    steered: float
    low: float | None
    high: float | None
    p_value: float | None
    n: int


def capability(
    model: Model,
    tasks: str | Sequence[str],
    *,
    vector: ConceptVector | None = None,
    dose: float = 0.2,
    block: int | None = None,
    shifts: Mapping[int, torch.Tensor] | None = None,
    limit: float | None = None,
    task_dir: str | Path | None = None,
    num_fewshot: int | None = None,
    chat_template: bool = False,
    run_code: bool = False,
    precision: str = "float32",
    batch_size: int | str = 1,
    progress: Progress | None = None,
) -> list[CapabilityRow]:
    """Runs tasks of lm-evaluation-harness on a model that is in memory, as it is or steered.

    Called inside a `with contrans.transplant(...)`, too, it measures the steered model.

    Args:
        model: the model.
        tasks: names of tasks, groups or tags, such as "arc_easy" or "mmlu".
        vector: a concept vector in this model's space to transplant meanwhile.
        dose: of the vector.
        block: of the vector, if it has several.
        shifts: instead of a vector, per block what is added to its output [d].
        limit: items of each task at most; below 1, a share of them.
        task_dir: a folder with task files (YAML) of your own, searched before those that come with the harness; needed
            where the data are local. Functions that a task file names are run.
        num_fewshot: worked examples before each item; None for what each task says.
        chat_template: whether prompts are put into the model's chat template.
        run_code: whether tasks may run code that the model writes, on this machine.
        precision: "float32", "bfloat16" or "auto" products; log-probabilities are float32 either way.
        batch_size: prompts at once; "auto" finds the largest that fits.
        progress: called for every forward pass with its tokens, padding included; the harness's own progress bars are
            then not shown.

    Returns:
        Rows for every metric of every task and group.

    Raises:
        SpecError: the harness is not installed, a task is not known or not allowed, or both a vector and shifts are
            given.
        TextError: the data of a task cannot be read.
        ModelError: the model has no language-model head.
    """
    if limit is not None and not limit > 0:
        raise SpecError(f"A limit of {limit} leaves no items; give a number above 0.")
    steering = _steering(model, vector, dose, block, shifts)
    with undisturbed(model.device), nullcontext() if progress is None else _told(model, progress):
        harness = harness_model(model, precision=precision, batch_size=batch_size)
        chosen = load_tasks([tasks] if isinstance(tasks, str) else tasks, task_dir, run_code=run_code)
        with steering:
            results = run_tasks(
                harness,
                chosen,
                num_fewshot=num_fewshot,
                limit=limit,
                bootstrap_iters=BOOTSTRAPS,
                apply_chat_template=chat_template,
                confirm_run_unsafe_code=run_code,
            )
    return _rows(results)


def capability_changes(
    unsteered: Sequence[CapabilityRow], steered: Sequence[CapabilityRow], *, seed: int = 0
) -> list[CapabilityChange]:
    """Compares two runs of `capability` item by item.

    Args:
        unsteered: rows of the model as it is.
        steered: rows of the same tasks, with the same settings, under a transplant.
        seed: of the bootstrap.

    Raises:
        SpecError: a task was not run on the same items both times.
    """
    changes = []
    for row in unsteered:
        other = counterpart(row, steered)
        low = high = p = None
        x = np.array(list(row.items.values()))
        y = np.array([other.items[name] for name in row.items])
        if row.is_mean and other.is_mean:
            low, high = cluster_bootstrap(lambda w, d=y - x: (w @ d) / w.sum(1), len(x), seed=seed)
        if len(x) and set(np.unique([x, y])) <= {0.0, 1.0}:
            p = mcnemar(x == 1, y == 1)
        changes.append(CapabilityChange(row.task, row.metric, row.value, other.value, low, high, p, row.n))
    return changes


def counterpart(row: CapabilityRow, others: Sequence[CapabilityRow]) -> CapabilityRow:
    """The row of another run that is about the same metric of the same task.

    Raises:
        SpecError: the task was not run on the same items both times.
    """
    other = next((o for o in others if (o.task, o.metric) == (row.task, row.metric)), None)
    if other is None or other.items.keys() != row.items.keys() or other.n != row.n:
        raise SpecError(
            f"{row.task} was not run on the same items both times; run it with the same limit, few-shot examples and "
            f"data."
        )
    return other


def _is_mean(items: np.ndarray, value: float) -> bool:
    return math.isclose(items.mean(), value, rel_tol=1e-6, abs_tol=1e-9)


def _steering(
    model: Model,
    vector: ConceptVector | None,
    dose: float,
    block: int | None,
    shifts: Mapping[int, torch.Tensor] | None,
) -> AbstractContextManager[Any]:
    if vector is not None and shifts is not None:
        raise SpecError("Give a vector or shifts, not both; to add several, put them into one mapping of shifts.")
    if vector is not None:
        return transplant(model, vector, dose=dose, block=block)
    return Transplant(model, shifts) if shifts else nullcontext()


@contextmanager
def _told(model: Model, progress: Progress) -> Iterator[None]:
    """Tells of every forward pass, and keeps the bars of the harness and of its data library to themselves."""

    def tell(_module: Any, args: tuple[Any, ...], inputs: dict[str, Any]) -> None:
        ids = inputs.get("input_ids", args[0] if args else None)
        if ids is not None:
            progress(ids.numel())

    bars: Any = tqdm
    before, shown = vars(bars)["__init__"], bars.__init__

    def hidden(bar: Any, *args: Any, **settings: Any) -> None:
        shown(bar, *args, **{**settings, "disable": True})

    handle = model.module.register_forward_pre_hook(tell, with_kwargs=True)
    # the harness has no setting for its bars
    bars.__init__ = hidden
    try:
        yield
    finally:
        bars.__init__ = before
        handle.remove()


def _rows(results: Mapping[str, Any]) -> list[CapabilityRow]:
    rows = []
    for task, metrics in results["results"].items():
        samples = results["samples"].get(task, [])
        better = results["higher_is_better"].get(task, {})
        for key, value in metrics.items():
            metric, comma, picked = key.partition(",")
            if not comma or metric.endswith("_stderr") or not isinstance(value, Real):
                continue
            stderr = metrics.get(f"{metric}_stderr,{picked}")
            items = _items(samples, metric, picked)
            rows.append(
                CapabilityRow(
                    task,
                    metric if picked == "none" else f"{metric}/{picked}",
                    float(value),
                    float(stderr) if isinstance(stderr, Real) else None,
                    len(items) or int(metrics["sample_len"]),
                    items,
                    better.get(metric) is not False,
                )
            )
    return rows


def _items(samples: Sequence[Mapping[str, Any]], metric: str, picked: str) -> dict[str, float]:
    """The metric of each item by number, document and prompt; empty if it is not one number each."""
    own = [s for s in samples if s["filter"] == picked and metric in s]
    if not all(isinstance(s[metric], Real | np.bool_) for s in own):
        return {}
    return {f"{s['doc_id']}/{s['doc_hash'][:16]}/{s['prompt_hash'][:16]}": float(s[metric]) for s in own}
