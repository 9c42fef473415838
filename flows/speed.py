"""How fast this machine runs a model: measured on a stand-in of its shape, with the code that a run uses."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from contrans.models import resolve
from contrans.quiet import quiet
from flows.costs import Sizes, block_flops, head_flops, weights_read
from flows.pool import device_kind, precision_here
from flows.spec import Compute
from flows.step import Cost

if TYPE_CHECKING:
    from contrans.models import Model

SECONDS = 2.2
"""How long a model is measured at most, beside the one round that every model gets; a plan has two."""
_ROUNDS = 5
_TEXT = 28  # tokens of a text, as in the corpus
_ITEMS, _PREFIX = 48, 180  # of a scoring, as on dev
_GENERIC, _GENERIC_TEXT = 12, 14
_WRITING, _WRITTEN = 8, 8  # texts at once, and tokens of each
_FLOPS = 25e9  # of one measured capture on a CPU: a few tenths of a second
_READ = 48_000_000  # bytes
_LOADING = 1e9  # bytes a second where there is nothing to read yet
_LEAST = 0.3  # a share of a time is at least this part of it, however the clock jumps


@dataclass(frozen=True)
class Rates:
    """How fast a machine is for one model.

    Attributes:
        capture: Operations a second in blocks while states are captured.
        scoring: The same while items are scored, in smaller batches with a shared prefix.
        head: Operations a second in the head, its softmax included.
        token: Seconds of each captured token beside the blocks.
        loading: Bytes of weights a second.
        writing: Weights a second that passes of one token each read; 0 where this was not asked for.
        launch: Least seconds of a block in such a pass.
    """

    capture: float
    scoring: float
    head: float
    token: float
    loading: float = _LOADING
    writing: float = 0.0
    launch: float = 0.0

    def seconds(self, cost: Cost, model: Sizes) -> float:
        """Predicted time of what a step asks of one model, its loading left out.

        What the model reads is a matter of operations. What it writes comes one token after another, each in a pass
        that waits for all weights, however few texts it is for, and takes its operations at least.
        """
        if cost.passes:
            read, written = (
                replace(cost, tokens=tokens, head_rows=rows, written=0, passes=0)
                for tokens, rows in (
                    (cost.tokens - cost.written, cost.head_rows - cost.written),
                    (cost.written, cost.written),
                )
            )
            launches = cost.passes * cost.share * model.n_blocks * self.launch
            waiting = max(weights_read(cost, model) / self.writing, launches)
            return self.seconds(read, model) + max(self.seconds(written, model), waiting)
        blocks, head = block_flops(cost, model), head_flops(cost, model)
        if not head:
            return blocks / self.capture + cost.tokens * self.token
        return blocks / self.scoring + head / self.head


class Speeds:
    """The rates of models on this machine, measured once for all models of equal sizes.

    Attributes:
        rates: By model, for those that were asked for.
    """

    def __init__(self) -> None:
        self.rates: dict[str, Rates] = {}
        self._measured: dict[tuple[Sizes, Compute], Rates] = {}
        self._loading: dict[str, float] = {}

    def of(self, reference: str, model: Sizes, compute: Compute, *, writes: bool = False) -> Rates:
        """The rates of a model.

        Args:
            reference: The model.
            model: Its sizes.
            compute: Where and in which format it is to run.
            writes: Whether it is asked to write, whose speed is only then measured.
        """
        shape = model, compute
        if shape not in self._measured:
            self._measured[shape] = measured(reference, model, compute)
        if writes and not self._measured[shape].writing:
            speed = measured_writing(reference, model, compute)
            self._measured[shape] = replace(self._measured[shape], writing=speed)
        if reference not in self._loading:  # models of equal sizes may lie on different disks
            self._loading[reference] = _loading(resolve(reference).folder())
        self.rates[reference] = replace(self._measured[shape], loading=self._loading[reference])
        return self.rates[reference]


def measured(reference: str, model: Sizes, compute: Compute) -> Rates:
    """Measures the rates of a model on a stand-in of its shape.

    One block is what four blocks take longer than one; a row of the head is what KL on generic texts takes beside its
    blocks; a scoring is what is left of it without its rows.
    """
    from flows.standin import stand_in

    device = device_kind(compute.device)
    module = stand_in(reference, model, device)
    small = _sizes_of(module)
    per_token = 2.0 * small.block_parameters * small.n_blocks
    tokens = min(compute.batch_tokens, 2048, max(4 * _TEXT, round(_FLOPS / per_token)) if device == "cpu" else 2048)
    times = _times(module, tokens, precision_here(compute))
    captured = Cost("target", max(1, tokens // _TEXT), max(1, tokens // _TEXT) * _TEXT, 1.0)
    block = max((times["all"] - times["one"]) / (small.n_blocks - 1), _LEAST * times["all"] / small.n_blocks)
    per_operation = block * small.n_blocks / block_flops(captured, small)
    above = 0.5  # the stand-in is steered in the middle
    generic = Cost("target", _GENERIC, _GENERIC * _GENERIC_TEXT, above, _GENERIC * _GENERIC_TEXT)
    head = max(times["kl"] - per_operation * block_flops(generic, small), _LEAST * times["kl"])
    items = Cost("target", _ITEMS, _PREFIX + _ITEMS * _TEXT, above, _ITEMS)
    rows = head * items.head_rows / generic.head_rows
    scoring = max(times["score"] - rows, _LEAST * times["score"])
    return Rates(
        capture=1 / per_operation,
        scoring=block_flops(items, small) / scoring,
        head=head_flops(generic, small) / head,
        token=max(times["one"] - block, 0.0) / captured.tokens,
    )


def measured_writing(reference: str, model: Sizes, compute: Compute) -> float:
    """Measures how many weights a second a stand-in's passes of one token read, for a batch of short texts."""
    from contrans.validation.generation import continue_prompts
    from flows.standin import stand_in

    module = stand_in(reference, model, device_kind(compute.device))
    prompts = [f"w{1 + i}" for i in range(_WRITING)]

    def write(tokens: int) -> float:
        begun = time.perf_counter()
        continue_prompts(module, prompts, max_new_tokens=tokens, min_new_tokens=tokens, batch_size=_WRITING)
        return time.perf_counter() - begun

    write(2)  # takes memory from the system and prepares kernels
    rounds = []
    start = time.perf_counter()
    while len(rounds) < _ROUNDS and (not rounds or time.perf_counter() - start < SECONDS / 2):
        first, all_of_them = write(1), write(1 + _WRITTEN)
        rounds.append(max(all_of_them - first, _LEAST * all_of_them))
    passes = Cost("target", share=1.0, passes=_WRITTEN)
    return weights_read(passes, _sizes_of(module)) / statistics.median(rounds)


def _sizes_of(module: "Model") -> Sizes:
    return Sizes(
        module.hidden_size,
        module.module.config.vocab_size,
        module.n_blocks,
        sum(p.numel() for p in module.module.parameters()),
        sum(p.numel() for p in module.blocks[0].parameters()),
    )


def _times(module: "Model", tokens: int, precision: str) -> dict[str, float]:
    """Median seconds of a capture up to the first block ("one") and to the last ("all"), a scoring, and a KL."""
    import torch

    from contrans.states.capturing import capture
    from contrans.validation.engine import ScoringEngine
    from contrans.validation.fluency import FluencyMeter

    def texts(n: int, length: int) -> list[str]:
        return [" ".join(f"w{(7 * i + j) % 200}" for j in range(length)) for i in range(n)]

    batch = texts(max(1, tokens // _TEXT), _TEXT)
    middle = module.n_blocks // 2 - 1
    shift = 0.01 * torch.ones(module.hidden_size)
    suffixes = [[1 + (i + j) % 200 for j in range(_TEXT)] for i in range(_ITEMS)]
    # a stand-in's states are noise, so that what an engine says of its agreement with full passes says nothing
    with quiet("contrans"):
        engine = ScoringEngine(module, middle, suffixes, prefix=list(range(1, 1 + _PREFIX)), precision=precision)
        meter = FluencyMeter(module, middle, texts(_GENERIC, _GENERIC_TEXT), precision=precision)

    def score() -> None:
        for _, logits in engine.logits(shift):
            (logits[:, :1] - torch.logsumexp(logits, -1, keepdim=True)).sum().item()
            logits.argmax(-1).cpu()

    things: dict[str, Callable[[], object]] = {
        "one": lambda: capture(module, batch, blocks=[0], precision=precision),
        "all": lambda: capture(module, batch, blocks=[module.n_blocks - 1], precision=precision),
        "score": score,
        "kl": lambda: meter.kl(shift),
    }
    taken: dict[str, list[float]] = {name: [] for name in things}
    start = time.perf_counter()
    while len(taken["kl"]) < _ROUNDS and (not taken["kl"] or time.perf_counter() - start < SECONDS):
        for name, thing in things.items():
            begun = time.perf_counter()
            thing()
            taken[name].append(time.perf_counter() - begun)
    # the first round also takes memory from the system and prepares kernels; it counts only where it is all there is
    return {name: statistics.median(values[1:] or values) for name, values in taken.items()}


def _loading(folder: Path | None) -> float:
    """Bytes a second that come out of a model's files."""
    files = sorted(folder.glob("*.safetensors")) if folder is not None else []
    if not files:
        return _LOADING
    start = time.perf_counter()
    with files[0].open("rb") as file:
        n = len(file.read(_READ))
    # read once, and copied once into the model and once more where its format changes
    return n / (2 * (time.perf_counter() - start))
