"""lm-evaluation-harness on models that are in memory: its model wrapper, its tasks, and nothing left behind.

The harness is an optional extra: its modules are imported when they are asked for.
"""

import os
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from difflib import get_close_matches
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

from contrans.errors import ModelError, SpecError, TextError
from contrans.models import Model
from contrans.quiet import quiet
from contrans.states.precision import resolve_precision


def harness_module(name: str = "lm_eval") -> Any:
    """A module of the harness, or of the data sets library that it brings.

    Raises:
        SpecError: it is not installed.
    """
    if find_spec("lm_eval") is None:
        raise SpecError(
            "Capability tasks need lm-evaluation-harness, which is not installed; run `pip install contrans[harness]`."
        )
    return import_module(name)


def harness_model(model: Model, *, precision: str = "float32", batch_size: int | str = 1) -> Any:
    """The harness's `HFLM` around a model in memory, whose tokenizer stays as it is.

    Args:
        model: the model.
        precision: "float32", "bfloat16" or "auto" products; log-probabilities are float32 either way.
        batch_size: prompts at once; "auto" finds the largest that fits.

    Raises:
        SpecError: the harness is not installed.
        ModelError: the model has no language-model head.
    """
    home = harness_module("lm_eval.models.huggingface")
    if model.module.get_output_embeddings() is None:
        raise ModelError(f"{model.name} has no language-model head, so it cannot answer; use a decoder model.")
    fast = resolve_precision(precision, model.device) == "bfloat16"
    tokenizer = model.tokenizer
    with quiet(home.__name__):
        return home.HFLM(
            pretrained=model.module,
            # the harness names a pad token where there is none
            tokenizer=tokenizer if tokenizer.pad_token_id is not None else deepcopy(tokenizer),
            max_length=model.context_length,
            batch_size=batch_size,
            softmax_dtype="float32",
            mixed_precision_dtype="bfloat16" if fast else None,
        )


def load_tasks(names: Sequence[str], task_dir: str | Path | None = None, *, run_code: bool = False) -> list[Any]:
    """The harness's tasks and groups of these names, with their data.

    Args:
        names: of tasks, groups or tags.
        task_dir: a folder with task files (YAML), searched first.
        run_code: whether tasks may run code that the model writes.

    Raises:
        SpecError: the harness is not installed, or a task is not known, not allowed or named twice.
        TextError: the data of a task cannot be read.
    """
    if not names:
        raise SpecError("No tasks are named; give at least one, such as 'arc_easy'.")
    manager = _manager(names, task_dir)
    if unknown := [name for name in names if name not in manager.task_index]:
        near = get_close_matches(unknown[0], manager.all_tasks, n=4)
        hint = f"did you mean {', '.join(near)}?" if near else "give task_dir if it is a task of your own."
        raise SpecError(f"lm-evaluation-harness knows no task {unknown[0]!r}; {hint}")
    chosen: list[Any] = []
    named_by: dict[str, str] = {}
    for name in dict.fromkeys(names):
        loaded = _loaded(manager, name)
        for task, itself in loaded["tasks"].items():
            if getattr(itself, "UNSAFE_CODE", False) and not run_code:
                raise SpecError(f"Task {task!r} runs code that the model writes; pass run_code=True to allow it.")
            if task in named_by:
                raise SpecError(f"Task {task!r} belongs to both {named_by[task]!r} and {name!r}; name one of them.")
            named_by[task] = name
        chosen += [loaded["groups"][name]] if name in loaded["groups"] else loaded["tasks"].values()
    return chosen


def run_tasks(harness: Any, tasks: Sequence[Any], **settings: Any) -> dict[str, Any]:
    """What the harness's `simple_evaluate` returns, without indexing all of its tasks once more.

    Args:
        harness: of `harness_model`.
        tasks: of `load_tasks`.
        settings: further arguments of `simple_evaluate`.
    """
    nothing = harness_module("lm_eval.tasks").TaskManager(include_defaults=False)
    return harness_module().simple_evaluate(harness, tasks=list(tasks), task_manager=nothing, **settings)


def _loaded(manager: Any, name: str) -> Any:
    errors = harness_module("datasets.exceptions").DatasetsError, OSError
    try:
        with quiet("lm_eval.api.task"):
            return manager.load([name])
    except errors as error:
        raise TextError(
            f"The data of task {name!r} cannot be read ({error}); check the network, or give a task_dir whose task "
            f"file names local data."
        ) from error


def _manager(names: Sequence[str], task_dir: str | Path | None) -> Any:
    if task_dir is None:
        return _shipped_tasks()
    if not Path(task_dir).is_dir():
        raise SpecError(f"The folder of tasks {str(task_dir)!r} does not exist; name one with task files (YAML).")
    manager = harness_module("lm_eval.tasks").TaskManager
    own = manager(include_path=str(task_dir), include_defaults=False)
    # indexing all that come with the harness takes seconds; a group may have them as members
    return own if set(names) <= set(own.all_subtasks) else manager(include_path=str(task_dir))


@cache
def _shipped_tasks() -> Any:
    return harness_module("lm_eval.tasks").TaskManager()


@contextmanager
def undisturbed(device: torch.device) -> Iterator[None]:
    """Keeps the caller's random states, which the harness seeds, and its bootstrap from forking processes.

    Args:
        device: where the model computes.
    """
    python, numpy = random.getstate(), np.random.get_state()
    before = os.environ.get("DISABLE_MULTIPROC")
    os.environ["DISABLE_MULTIPROC"] = "1"
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        if before is None:
            del os.environ["DISABLE_MULTIPROC"]
        else:
            os.environ["DISABLE_MULTIPROC"] = before
