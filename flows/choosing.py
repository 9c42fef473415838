"""The choice of blocks, rows, estimator and λ, by transplants' effect on dev beyond chance's, at one price in KL."""

from __future__ import annotations

import gc
import json
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from contrans.errors import FitError

if TYPE_CHECKING:
    from contrans.maps.splits import SourceCache
    from flows.step import StepContext
    from flows.study import Study
    from flows.work import Work

_KEPT = 2**30
"""Bytes of what maps from one source block have in common, kept for other candidates beside those of the last one."""


@dataclass(frozen=True)
class Choice:
    """How a map is made: what one candidate differs from another in.

    Attributes:
        source_block: block mapped from.
        target_block: block mapped to and transplanted at.
        mix: kinds of corpus rows that the map is fitted on.
        estimator: a key of `contrans.maps.estimators.MAP_ESTIMATORS`.
        lambda_select: what λ is chosen by.
    """

    source_block: int
    target_block: int
    mix: tuple[str, ...]
    estimator: str
    lambda_select: str

    @property
    def pair(self) -> tuple[int, int]:
        """Both blocks."""
        return self.source_block, self.target_block


def ways(study: Study) -> list[tuple[tuple[str, ...], str, str]]:
    """What a spec leaves open beside blocks: mixes, estimators and ways to choose λ, in all combinations."""
    settings = study.spec.map
    # the middle one first: blocks are compared with it
    estimators = ["whitened", "ridge", "procrustes"] if settings.estimator == "auto" else [settings.estimator]
    lambdas = ["r2", "direction"] if settings.lambda_select == "auto" else [settings.lambda_select]
    return [
        (tuple(mix), estimator, by)
        for mix in study.spec.corpus.candidates
        for estimator in estimators
        for by in (lambdas if estimator == "ridge" else ["r2"])
    ]


def n_tried(study: Study) -> int:
    """How many candidates' effects are measured: none where nothing is left open."""
    tries, others = study.spec.blocks.tries, len(ways(study)) - 1
    pairs = min(len(study.pairs), tries)
    again = min(len(study.pairs) - 1, tries // 2)
    return pairs + others + again if pairs + others > 1 else 0


def n_drawn(study: Study) -> int:
    """How many random directions the candidates are held against: none where all share a target block."""
    blocks = len({target for _, target in study.pairs}) if n_tried(study) else 0
    tries = study.spec.blocks.tries
    return min(blocks, tries + tries // 2) * study.spec.blocks.control_draws if blocks > 1 else 0


def choose(study: Study) -> Work:
    """`choice.json`: what was chosen, and the effect of everything that was tried.

    What counts is how far an effect lies above what random directions reach at the same block and price, see
    `contrans.validation.dosing.random_reach_at_kl`.

    Source blocks first, each with the target block that speaks for it the most, then other target blocks for the best
    of them; then all mixes and estimators at the best pair; then the pairs beside it once more, with the best of these,
    since what is best at one pair need not be at another.
    """

    def run(context: StepContext) -> dict[str, bytes]:
        open_ways = ways(study)
        candidates: list[Choice] = []
        tried: list[dict[str, Any]] = []

        def attempt(more: list[Choice]) -> Choice:
            new = [c for c in dict.fromkeys(more) if c not in candidates]
            candidates.extend(new)
            tried.extend(trial.measure(new))
            return _best(tried, candidates)

        best = Choice(*study.pairs[0], *open_ways[0])
        if n_tried(study):
            trial, tries = _Trial(study, context), study.spec.blocks.tries
            ranked = [(p.source, p.target) for p in trial.ranked()]
            by_source = {s: next(pair for pair in ranked if pair[0] == s) for s, _ in ranked}
            pairs = list(by_source.values())[: -(-tries // 2)] if len(by_source) < len(ranked) else ranked[:tries]
            best = attempt([Choice(*pair, *open_ways[0]) for pair in pairs])
            rest = [pair for pair in ranked if pair[0] == best.source_block and pair not in pairs]
            best = attempt([Choice(*pair, *open_ways[0]) for pair in rest[: tries - len(pairs)]])
            best = attempt([Choice(*best.pair, *way) for way in open_ways])
            best = attempt(
                [replace(best, source_block=s, target_block=t) for s, t in _beside(best, ranked)[: tries // 2]]
            )
        return {"choice.json": json.dumps({"chosen": asdict(best), "tried": tried}, indent=1, sort_keys=True).encode()}

    return run


def _beside(best: Choice, ranked: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Other pairs, those whose blocks lie nearest to the best one's first."""
    sources, targets = (sorted({pair[i] for pair in ranked}) for i in (0, 1))
    at = sources.index(best.source_block), targets.index(best.target_block)

    def steps(pair: tuple[int, int]) -> tuple[int, int]:
        apart = abs(sources.index(pair[0]) - at[0]), abs(targets.index(pair[1]) - at[1])
        return sum(apart), max(apart)

    return sorted((pair for pair in ranked if pair != best.pair), key=steps)


def read_choice(data: bytes) -> Choice:
    """What `choose` wrote."""
    chosen = json.loads(data)["chosen"]
    return Choice(**{**chosen, "mix": tuple(chosen["mix"])})


class _Trial:
    """Measures candidates; dev items and KL are prepared once for each target block."""

    def __init__(self, study: Study, context: StepContext) -> None:
        self.study, self.context = study, context
        self._spectra: dict[tuple[int, tuple[str, ...]], dict[int, SourceCache]] = {}
        self._reach: dict[int, float] = {}

    def ranked(self) -> list[Any]:
        """All pairs, the most promising first, see `contrans.maps.selection.ranked_pairs`."""
        from contrans.maps.selection import ranked_pairs
        from flows.capturing import read_states
        from flows.work import read_vector

        study, context = self.study, self.context
        rows = study.rows_of(study.spec.corpus.candidates[0])
        states = {
            side: {b: read_states(context, f"capture corpus · {side}", b)[rows] for b in study.blocks(side)}
            for side in ("source", "target")
        }
        vectors = [read_vector(context, "refine · source", c.concept) for c in study.contrasts]
        separation = {
            b: sum(v.diagnostics[b]["d_prime"] for v in vectors) / len(vectors) for b in study.blocks("source")
        }
        return ranked_pairs(study.pairs, states["source"], states["target"], separation)

    def measure(self, candidates: list[Choice]) -> list[dict[str, Any]]:
        """Effect and dose of each candidate, and what random directions reach at its block, in their order."""
        measured: dict[Choice, dict[str, Any]] = {}
        for block in sorted({c.target_block for c in candidates}):
            measured |= self._at(block, [c for c in candidates if c.target_block == block])
            gc.collect()  # the block's states and logits
        return [measured[c] for c in candidates]

    def _at(self, block: int, candidates: list[Choice]) -> dict[Choice, dict[str, Any]]:
        from contrans.validation.arms import Directions
        from contrans.validation.dosing import effect_at_kl, random_reach_at_kl
        from contrans.validation.fluency import FluencyMeter
        from flows.fitting import fit_arm
        from flows.judging import protocol
        from flows.work import precision_of, read_vector

        study, context = self.study, self.context
        spec, model, precision = context.spec, context.models.get("target"), precision_of(context, "target")
        items = protocol(study, model, "dev", block, precision)
        meter = FluencyMeter(model, block, study.generic.texts, precision=precision)
        vectors = {c.concept: read_vector(context, "refine · source", c.concept) for c in study.contrasts}
        out: dict[Choice, dict[str, Any]] = {}
        start = 0.1
        for candidate in candidates:
            facts: dict[str, Any] = dict.fromkeys(("heldout_r2", "effect", "graded", "dose", "random_reach", "why"))
            try:
                m = fit_arm(study, context, candidate, "transplanted", spectra=self._spectra_of(candidate))[
                    candidate.pair
                ]
                facts["heldout_r2"] = m.info["heldout_r2"]
                mapped = {
                    name: m.map_direction(v.direction(candidate.source_block), rescale="unit")
                    for name, v in vectors.items()
                }
                directions = Directions({"transplanted": mapped}, m.target_norm, spec.seed)
                at = {"kl_budget": spec.validate_.kl_budget, "tick": context.progress}
                if n_drawn(study) and block not in self._reach:
                    n_draws = spec.blocks.control_draws
                    self._reach[block] = random_reach_at_kl(
                        items, directions, meter, n_draws=n_draws, start=start, **at
                    )
                facts["random_reach"] = self._reach.get(block)
                facts |= effect_at_kl(items, directions, meter, start=start, **at)._asdict()
                start = facts["dose"]
            except FitError as error:
                facts["why"] = str(error)  # too few rows for this one, say; others may do
            out[candidate] = asdict(candidate) | facts
        return out

    def _spectra_of(self, candidate: Choice) -> dict[int, SourceCache]:
        """What maps from a source block and a mix have in common, kept while there is room for it."""
        found = self._spectra.pop((candidate.source_block, candidate.mix), {})
        while self._spectra and sum(map(_n_bytes, self._spectra.values())) > _KEPT:
            self._spectra.pop(next(iter(self._spectra)))  # the one that was used the longest ago
        self._spectra[candidate.source_block, candidate.mix] = found
        return found


def _n_bytes(spectra: dict[int, SourceCache]) -> int:
    return sum(t.nbytes for cache in spectra.values() for tensors in cache.values() for t in tensors)


def _best(tried: list[dict[str, Any]], candidates: list[Choice]) -> Choice:
    able = [
        ((t["effect"] - (t["random_reach"] or 0.0), t["graded"]), c)
        for t, c in zip(tried, candidates, strict=True)
        if t["effect"] is not None
    ]
    if not able:
        raise FitError(f"None of the maps that were tried can be used; the first: {tried[0]['why']}")
    # of those that change equally many answers, or none, the one that moves them the most; the first of equals is the
    # one that held-out states speak for
    return max(able, key=lambda pair: pair[0])[1]
