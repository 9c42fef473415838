"""Running a pipeline's steps in this process, and counting what goes through its models."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from flows.pool import Pool
from flows.spec import PipelineSpec
from flows.step import Step, StepContext, spared
from flows.steps import build_steps
from flows.store import Store


@dataclass
class Ran:
    """The steps of a pipeline after they ran."""

    steps: dict[str, Step]
    store: Store
    pool: Pool
    context: StepContext
    computed: list[str] = field(default_factory=list)
    tokens: dict[str, int] = field(default_factory=dict)
    texts: dict[str, int] = field(default_factory=dict)


def run_steps(spec: PipelineSpec, home: Path, *, until: str = "figure") -> Ran:
    """Runs what is not done, as the flow does, and counts the real tokens and the texts of each step's forwards."""
    pool, store = Pool(spec), Store(home / "steps")
    steps = {step.name: step for step in build_steps(spec, pool.record("source"), pool.record("target"))}
    ran = Ran(steps, store, pool, StepContext(spec, store, steps, pool))
    with store.holding(step.key for step in steps.values()):
        unneeded = spared(list(steps.values()), store)
        for step in steps.values():
            if not store.has(step.key) and step.name not in unneeded:
                with _counting(ran, step.name):
                    store.write(step.key, step.run(ran.context))
                ran.computed.append(step.name)
            if step.name == until:
                break
    return ran


@contextmanager
def _counting(ran: Ran, step: str) -> Iterator[None]:
    ran.tokens[step] = ran.texts[step] = 0

    def counting(pad: int) -> Callable[..., None]:
        def count(_module: object, _args: object, kwargs: dict) -> None:
            ran.tokens[step] += int((kwargs["input_ids"] != pad).sum())
            ran.texts[step] += len(kwargs["input_ids"])

        return count

    models = {id(model): model for model in map(ran.pool.get, ("source", "target"))}.values()
    hooks = [m.module.register_forward_pre_hook(counting(m.pad_token_id), with_kwargs=True) for m in models]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
