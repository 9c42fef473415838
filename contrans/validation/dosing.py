"""Dose curves of every arm on dev, and the dose that each arm will be tested at."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np

from contrans.errors import FitError
from contrans.validation.arms import Directions
from contrans.validation.fluency import FluencyMeter
from contrans.validation.items import CURVE_DRAWS, FACTORS
from contrans.validation.protocol import ItemProtocol, graded_metric
from contrans.validation.rows import Row, mean_share, merged, once, rows_of
from contrans.validation.scorer import Scorer, Tick
from contrans.validation.statistics import sufficient_dose

SELECT = ("effect", "kl")
_STEPS_TOGETHER = 4


@dataclass(frozen=True)
class Calibration:
    """What dev says about doses.

    Attributes:
        doses: the dose of each arm; the median over draws where each has its own.
        draw_doses: of controls of many draws, the dose at which each of them meets the KL budget.
        rows: the curves: effect and, where it was measured, KL at every dose.
    """

    doses: dict[str, float]
    draw_doses: dict[str, list[float]]
    rows: list[Row]


def calibrate(
    protocol: ItemProtocol,
    directions: Directions,
    *,
    arms: Sequence[str],
    doses: Sequence[float] = (),
    select: str = "effect",
    meter: FluencyMeter | None = None,
    kl_budget: float = 0.1,
    random_draws: int = 20,
    tick: Tick = lambda _: None,
) -> Calibration:
    """Measures every arm's dose curve on dev and chooses the dose that it will be tested at.

    A dose is one for all concepts of an arm. By "effect" it is the smallest of the candidates that has 95 % of the gain
    of the arm's best one, and controls (random, shuffled_map, wrong_concept, opposite) take the transplanted arm's, so
    equal lengths. By "kl" it is the dose at which an arm costs `kl_budget` on generic text, mean over concepts, found
    for every arm by the same search, so equal prices; the curve is measured around it. Each draw of a control that is
    drawn many times is an arm of its own there, with a dose of its own.

    Args:
        protocol: the dev items.
        directions: directions of every arm.
        arms: arms to measure.
        doses: candidates; needed for "effect".
        select: "effect" or "kl".
        meter: what shifts cost; needed for "kl", and adds KL to the curves of "effect".
        kl_budget: nats per token.
        random_draws: random directions that will be tested.
        tick: called with tokens done.

    Raises:
        FitError: an unknown way to select, no doses or no meter.
    """
    if select not in SELECT:
        raise FitError(f"A dose is selected by {' or '.join(SELECT)}, not {select!r}.")
    if (select == "kl" and meter is None) or (select == "effect" and not doses):
        raise FitError("A dose by effect needs candidate doses, and one by KL a meter of KL; give them.")
    score = Scorer(protocol, directions, tick)
    steered = directions.steered(arms)
    chosen: dict[str, float] = {}
    of_draws: dict[str, list[float]] = {}
    if select == "kl" and meter is not None:
        for arm in directions.searched(arms, select=select):
            found = dose_at_kl(lambda d, a=arm: mean_kl(meter, directions, a, d, tick), kl_budget)
            n_draws = random_draws if arm == "random" else directions.n_draws(arm)
            if n_draws > 1:
                each = draws_at_kl(meter, directions, arm, n_draws, kl_budget, start=found, tick=tick)
                of_draws[arm] = [float(f"{dose:.4g}") for dose in each]
                found = float(np.median(each))
            chosen[arm] = float(f"{found:.4g}")
        chosen |= {arm: chosen["transplanted"] for arm in steered if arm not in chosen}
    curve: dict[str, dict[float, float]] = {}
    price: dict[tuple[str, float], float] = {}
    rows: list[Row] = []
    for arm in ["unsteered", *steered]:
        points: Sequence[float | None] = [None]
        if arm != "unsteered":
            points = sorted(doses) if select == "effect" else [float(f"{f * chosen[arm]:.4g}") for f in FACTORS]
        for dose in points:
            draws = range(-CURVE_DRAWS, 0) if arm == "random" else range(min(CURVE_DRAWS, directions.n_draws(arm)))
            hits = merged(score.hits_of_draws(arm, dose, draws))
            rows += rows_of(protocol, hits, "dev", arm, dose)
            effect = mean_share(hits[protocol.effect].values(), once(protocol.n_items)).item()
            curve.setdefault(arm, {})[dose or 0.0] = effect
            if meter is not None and dose is not None:
                # a wrong concept's shifts are the transplanted ones, each for another concept
                paid = "transplanted" if arm == "wrong_concept" else arm
                if (paid, dose) not in price:
                    price[paid, dose] = mean_kl(meter, directions, paid, dose, tick)
                kl = price[paid, dose]
                rows.append(Row("all", protocol.name, "dev", arm, "kl", dose, kl, None, None, meter.n_tokens))
    if select == "effect":
        base = curve["unsteered"][0.0]
        for arm in directions.searched(arms, select=select):
            chosen[arm] = sufficient_dose(list(curve[arm]), list(curve[arm].values()), base)
        chosen |= {arm: chosen["transplanted"] for arm in steered if arm not in chosen}
    return Calibration(chosen, of_draws, rows)


class EffectAtKL(NamedTuple):
    """What an arm does at a price.

    Attributes:
        effect: its mean effect.
        graded: the same by the protocol's graded metric, which tells arms apart that change equally many answers, or
            none; the effect where the protocol has no such metric.
        dose: the dose that meets the budget.
    """

    effect: float
    graded: float
    dose: float


def effect_at_kl(
    protocol: ItemProtocol,
    directions: Directions,
    meter: FluencyMeter,
    *,
    arm: str = "transplanted",
    kl_budget: float = 0.1,
    start: float = 0.1,
    tick: Tick = lambda _: None,
) -> EffectAtKL:
    """An arm's mean effect around the dose that meets a KL budget: what choices between maps fall by.

    The mean over three doses, at about half, once and twice the budget, is steadier than the effect at one.

    Args:
        protocol: the dev items.
        directions: directions of the arm.
        meter: what shifts cost.
        arm: the arm.
        kl_budget: nats per token.
        start: the dose that the search begins with.
        tick: called with tokens done.

    Raises:
        FitError: no dose meets the budget.
    """
    price = partial(mean_kl, meter, directions, arm, tick=tick)
    dose = dose_at_kl(price, kl_budget, start=start, tolerance=0.05)
    score = Scorer(protocol, directions, tick)
    by_dose = [merged([score.hits(arm, factor * dose)]) for factor in (0.7, 1.0, 1.4)]

    def mean(metric: str) -> float:
        return float(np.mean([mean_share(hits[metric].values(), once(protocol.n_items)).item() for hits in by_dose]))

    return EffectAtKL(mean(protocol.effect), mean(graded_metric(protocol)), dose)


def mean_kl(meter: FluencyMeter, directions: Directions, arm: str, dose: float, tick: Tick = lambda _: None) -> float:
    """Mean KL to the unsteered model over concepts (over draws, for random), nats per token.

    Of an arm with several draws each concept takes another one, and a single concept all that curves are drawn with.
    """
    if arm == "random":
        shifts = [directions.shift(arm, "", dose, draw) for draw in range(-CURVE_DRAWS, 0)]
    else:
        draws = min(CURVE_DRAWS, directions.n_draws(arm))
        concepts = directions.concepts
        pairs = range(max(len(concepts), draws))
        shifts = [directions.shift(arm, concepts[i % len(concepts)], dose, i % draws) for i in pairs]
    costs = meter.kl_many(shifts)
    for _ in costs:
        tick(meter.n_tokens)
    return float(np.mean(costs))


def draws_at_kl(
    meter: FluencyMeter,
    directions: Directions,
    arm: str,
    n_draws: int,
    budget: float,
    *,
    start: float,
    tolerance: float = 0.05,
    tick: Tick = lambda _: None,
) -> list[float]:
    """The dose of each of an arm's draws at which it costs the budget, mean over concepts.

    All draws are measured together, and each is moved on by the square root of what its KL is off by; what is not there
    after three such steps is searched for alone, see `dose_at_kl`.

    Args:
        meter: what shifts cost.
        directions: directions of the arm.
        arm: the arm.
        n_draws: its draws, counted from 0.
        budget: nats per token.
        start: a dose that is near for most of them.
        tolerance: relative error of KL that is good enough.
        tick: called with tokens done.

    Raises:
        FitError: no dose of a draw costs that much.
    """
    concepts = directions.concepts[:1] if arm == "random" else directions.concepts
    doses = np.full(n_draws, start)

    def price(draws: Sequence[int], at: Sequence[float]) -> np.ndarray:
        costs = meter.kl_many(
            [directions.shift(arm, c, d, i) for i, d in zip(draws, at, strict=True) for c in concepts]
        )
        for _ in costs:
            tick(meter.n_tokens)
        return np.reshape(costs, (len(draws), len(concepts))).mean(1)

    away = np.arange(n_draws)
    for _ in range(_STEPS_TOGETHER):
        kl = price(away.tolist(), doses[away].tolist())
        off = ~(np.abs(kl - budget) <= tolerance * budget)  # also what is not a number
        away, kl = away[off], kl[off]
        if not len(away):
            break
        with np.errstate(divide="ignore", invalid="ignore"):
            factor = np.sqrt(budget / kl)
        doses[away] *= np.clip(np.nan_to_num(factor, nan=0.125, posinf=8.0), 0.125, 8.0)
    else:
        for i in away.tolist():
            doses[i] = dose_at_kl(
                lambda d, i=i: price([i], [d]).item(), budget, start=float(doses[i]), tolerance=tolerance
            )
    return doses.tolist()


def dose_at_kl(
    kl: Callable[[float], float], budget: float, *, start: float = 0.1, tolerance: float = 0.02, most: int = 40
) -> float:
    """The dose whose KL is the budget, by bisection on a log scale with secant steps.

    For small shifts KL grows with the square of the dose, so a secant in log KL against log dose nearly hits at once;
    where it leaves the bracket, and every fourth time, the bracket is halved instead, so that the search always ends.

    Args:
        kl: mean KL at a dose, growing with it.
        budget: nats per token.
        start: first dose tried.
        tolerance: relative error of KL that is good enough.
        most: evaluations at most.

    Raises:
        FitError: no dose costs that much, or KL is not finite.
    """
    if not (budget > 0 and math.isfinite(budget)):
        raise FitError(f"A KL budget must be a number above 0, not {budget!r}.")
    below: tuple[float, float] | None = None
    above: tuple[float, float] | None = None
    dose, slope = start, 2.0
    last: tuple[float, float] | None = None
    for step in range(most):
        value = kl(dose)
        if abs(value - budget) <= tolerance * budget:
            return dose
        if value < budget:
            below = (dose, value)
        else:
            above = (dose, value if math.isfinite(value) else math.inf)
        if below and above and above[0] - below[0] <= 1e-6 * above[0]:
            return below[0]  # KL jumps here
        known = 0 < value < math.inf
        if last and known and last[0] != dose and last[1] != value:
            slope = min(8.0, max(0.5, math.log(value / last[1]) / math.log(dose / last[0])))
        last = (dose, value) if known else last
        factor = (budget / value) ** (1 / slope) if known else 8.0 if value < budget else 0.125
        dose = dose * min(8.0, max(0.125, factor))
        if below and above and (step % 4 == 3 or not below[0] < dose < above[0]):
            dose = math.sqrt(below[0] * above[0])
    raise FitError(
        f"No dose was found that costs {budget:g} nats per token: at dose {dose:g} it is {kl(dose):g}. "
        f"Choose another budget, or select the dose by effect."
    )
