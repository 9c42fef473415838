"""The emotion protocol over arms: dose curves on dev, then the test split once, with controls and intervals."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from contrans.validation.arms import SEARCHED, random_direction, wrong_concepts
from contrans.validation.emotion import EmotionProtocol, Scores
from contrans.validation.fluency import FluencyMeter
from contrans.validation.items import CURVE_DRAWS
from contrans.validation.rows import Hits, Row, accuracy_of, gain_recovered, mcnemar_rows, mean_share, once, rows_of
from contrans.validation.statistics import sufficient_dose

Tick = Callable[[int], None]


@dataclass(frozen=True)
class Directions:
    """Unit directions of every arm at one block of the target.

    Attributes:
        by_arm: per arm and concept a float32 tensor [d]; arms "transplanted", "own", "shuffled_map", "paper".
        residual_norm: median residual norm at the block, the unit of a dose.
        seed: of the random arm.
    """

    by_arm: Mapping[str, Mapping[str, torch.Tensor]]
    residual_norm: float
    seed: int = 0

    def shift(self, arm: str, concept: str, dose: float, draw: int = 0) -> torch.Tensor:
        """What an arm adds at a dose, float32 [d]."""
        if arm == "random":
            width = len(next(iter(self.by_arm["transplanted"].values())))
            direction = random_direction(width, self.seed, draw)
        elif arm == "wrong_concept":
            direction = self.by_arm["transplanted"][wrong_concepts(list(self.by_arm["transplanted"]))[concept]]
        else:
            direction = self.by_arm[arm][concept]
        return direction / direction.norm() * (dose * self.residual_norm)

    @property
    def concepts(self) -> list[str]:
        """The concepts that are transplanted."""
        return list(self.by_arm["transplanted"])


def _steered(arms: Sequence[str], directions: Directions) -> list[str]:
    have = {"random", *directions.by_arm, *(("wrong_concept",) if len(directions.concepts) > 1 else ())}
    return [a for a in arms if a != "unsteered" and a in have]


class _Cached:
    """Scores by shift, since a wrong concept's shift is another concept's own."""

    def __init__(self, protocol: EmotionProtocol, directions: Directions, tick: Tick) -> None:
        self._protocol, self._directions, self._tick = protocol, directions, tick
        self._seen: dict[tuple[object, ...], Scores] = {}

    def __call__(self, arm: str, concept: str, dose: float, draw: int = 0) -> Scores:
        key: tuple[object, ...]
        if arm == "random":
            key = (arm, dose, draw)
        elif arm == "wrong_concept":
            key = ("transplanted", wrong_concepts(self._directions.concepts)[concept], dose)
        else:
            key = (arm, concept, dose)
        if arm == "unsteered":
            key = (arm,)
        if key not in self._seen:
            shift = None if arm == "unsteered" else self._directions.shift(arm, concept, dose, draw)
            self._seen[key] = self._protocol.score(shift)
            self._tick(self._protocol.n_tokens)
        return self._seen[key]


def calibrate(
    protocol: EmotionProtocol,
    directions: Directions,
    *,
    arms: Sequence[str],
    doses: Sequence[float],
    tick: Tick = lambda _: None,
) -> tuple[dict[str, float], list[Row]]:
    """Dose curves of every arm on dev, and the dose that each arm will be tested at.

    The dose is one for all concepts of an arm: the smallest that has 95 % of the gain in mean logit accuracy of
    the arm's best dose. Controls (random, shuffled_map, wrong_concept) take the transplanted arm's, so equal lengths.

    Args:
        protocol: the dev items.
        directions: unit directions of every arm.
        arms: arms to measure.
        doses: candidates.
        tick: called with tokens done.

    Returns:
        The dose of each arm, and the curves.
    """
    score = _Cached(protocol, directions, tick)
    concepts, doses = directions.concepts, sorted(doses)
    steered = _steered(arms, directions)
    rows, curves = [], {}
    for arm in ["unsteered", *steered]:
        curve = []
        for dose in doses if arm != "unsteered" else [0.0]:
            draws = range(-CURVE_DRAWS, 0) if arm == "random" else [0]
            hits = _hits(protocol, concepts, [{c: score(arm, c, dose, d) for c in concepts} for d in draws])
            dose_or_none = None if arm == "unsteered" else dose
            rows += rows_of(protocol, hits, "dev", arm, dose_or_none)
            curve.append(mean_share(hits["logit_accuracy"].values(), once(len(protocol.items))).item())
        curves[arm] = curve
    base = curves["unsteered"][0]
    chosen = {a: sufficient_dose(doses, curves[a], base) for a in steered if a in SEARCHED}
    for arm in steered:
        chosen.setdefault(arm, chosen["transplanted"])
    return chosen, rows


def validate(
    protocol: EmotionProtocol,
    directions: Directions,
    meter: FluencyMeter,
    *,
    arms: Sequence[str],
    doses: Mapping[str, float],
    random_draws: int = 20,
    seed: int = 0,
    tick: Tick = lambda _: None,
) -> tuple[list[Row], dict[str, dict[str, float | None]]]:
    """Scores every arm on the test items once, at the dose that dev chose for it.

    Args:
        protocol: the test items.
        directions: unit directions of every arm.
        meter: what a shift costs on generic text.
        arms: arms to measure.
        doses: the dose of each arm.
        random_draws: random directions.
        seed: of the bootstraps.
        tick: called with tokens done.

    Returns:
        All rows, and the summary: gain recovered overall and the mean accuracy of each arm, each with
        `value`, `low` and `high`; gain recovered is None where the own vector gains nothing significant.
    """
    score = _Cached(protocol, directions, tick)
    concepts = directions.concepts
    rows: list[Row] = []
    hits: dict[str, Hits] = {}
    for arm in ["unsteered", *_steered(arms, directions)]:
        draws = range(random_draws) if arm == "random" else [0]
        dose = None if arm == "unsteered" else doses[arm]
        hits[arm] = _hits(protocol, concepts, [{c: score(arm, c, dose or 0.0, d) for c in concepts} for d in draws])
        rows += rows_of(protocol, hits[arm], "test", arm, dose, seed=seed, bootstrap=True)
        if arm not in ("unsteered", "random"):
            rows += mcnemar_rows(concepts, hits, arm, dose)
        if dose is not None:
            rows += _costs(meter, directions, arm, dose, seed, tick)
    summary = {arm: accuracy_of(rows, arm) for arm in hits}
    if "own" in hits and "transplanted" in hits:
        for concept in ["all", *concepts]:
            names = concepts if concept == "all" else [concept]
            value, low, high = gain_recovered(hits, names, len(protocol.items), seed)
            summary["gain_recovered" if concept == "all" else f"gain_recovered/{concept}"] = {
                "value": value,
                "low": low,
                "high": high,
            }
            if value is not None:
                n = int(sum(protocol.negatives(protocol.concepts.index(c)).sum() for c in names))
                rows.append(
                    Row(
                        concept,
                        "emotion",
                        "test",
                        "transplanted",
                        "gain_recovered",
                        doses["transplanted"],
                        value,
                        low,
                        high,
                        n,
                    )
                )
    return rows, summary


def _hits(protocol: EmotionProtocol, concepts: Sequence[str], draws: Sequence[Mapping[str, Scores]]) -> Hits:
    """How right every item is under each concept's shift, averaged over draws of it."""
    out: Hits = {
        "logit_accuracy": {},
        "token_accuracy": {},
        "logit_accuracy_positives": {},
    }
    for concept in concepts:
        label = protocol.concepts.index(concept)
        negative = protocol.negatives(label)
        logit = np.mean([d[concept].logit_hits(label) for d in draws], axis=0)
        token = np.mean([d[concept].token_hits(label) for d in draws], axis=0)
        out["logit_accuracy"][concept] = (logit, negative)
        out["token_accuracy"][concept] = (token, negative)
        out["logit_accuracy_positives"][concept] = (logit, ~negative)
    return out


def _costs(meter: FluencyMeter, directions: Directions, arm: str, dose: float, seed: int, tick: Tick) -> list[Row]:
    if arm == "wrong_concept":
        return []  # the very shifts of the transplanted arm
    rows = []
    for concept in ["all"] if arm == "random" else directions.concepts:
        cost = meter.measure(directions.shift(arm, concept, dose), seed=seed)
        tick(cost.n_tokens)
        rows += [
            Row(
                concept,
                "emotion",
                "generic",
                arm,
                "kl",
                dose,
                cost.kl,
                cost.kl_low,
                cost.kl_high,
                cost.n_tokens,
            ),
            Row(
                concept,
                "emotion",
                "generic",
                arm,
                "perplexity_ratio",
                dose,
                cost.perplexity_ratio,
                None,
                None,
                cost.n_tokens,
            ),
        ]
    if arm != "random":
        for metric in ("kl", "perplexity_ratio"):
            values = [r.value for r in rows if r.metric == metric]
            n = sum(r.n for r in rows if r.metric == metric)
            rows.append(Row("all", "emotion", "generic", arm, metric, dose, float(np.mean(values)), None, None, n))
    return rows
