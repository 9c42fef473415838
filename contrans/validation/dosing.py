"""Dose curves of every arm on dev, and the dose that each arm will be tested at."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np

from contrans.errors import FitError
from contrans.validation.arms import Directions
from contrans.validation.fluency import FluencyMeter
from contrans.validation.items import CURVE_DRAWS, FACTORS
from contrans.validation.pricing import dose_at_kl, draws_at_kl, mean_kl
from contrans.validation.protocol import ItemProtocol, graded_metric
from contrans.validation.rows import Row, rows_of
from contrans.validation.scorer import Scorer, Tick
from contrans.validation.shares import mean_share, merged, once
from contrans.validation.statistics import sufficient_dose

SELECT = ("effect", "kl")


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
                each = draws_at_kl(meter, directions, arm, range(n_draws), kl_budget, start=found, tick=tick)
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


def random_reach_at_kl(
    protocol: ItemProtocol,
    directions: Directions,
    meter: FluencyMeter,
    *,
    n_draws: int,
    kl_budget: float = 0.1,
    start: float = 0.1,
    tick: Tick = lambda _: None,
) -> float:
    """The effect that random directions at a block reach at a price: their mean and two standard deviations more.

    Of normal effects 97.5 % lie below. Where a small shift in any direction sways all answers at once, as one of an
    early block may, this comes near the effect of the best map, and a map that is chosen there by its effect alone
    cannot be told from chance afterwards. The draws are none of those that are tested.

    Args:
        protocol: the dev items.
        directions: of the block; their arms do not matter.
        meter: what shifts cost.
        n_draws: random directions, at least 2.
        kl_budget: nats per token, for each of them.
        start: the dose that the search begins with.
        tick: called with tokens done.

    Returns:
        The mean over concepts.

    Raises:
        FitError: fewer than two draws, or no dose of one meets the budget.
    """
    if n_draws < 2:
        raise FitError(f"How far random directions spread is not told by {n_draws} of them; draw at least 2.")
    draws = range(-n_draws, 0)
    doses = draws_at_kl(meter, directions, "random", draws, kl_budget, start=start, tick=tick)
    each = Scorer(protocol, directions, tick).hits_of_draws("random", doses, draws)
    effects = np.array(
        [
            [mean_share([hits[c][protocol.effect]], once(protocol.n_items)).item() for c in directions.concepts]
            for hits in each
        ]
    )
    return float((effects.mean(0) + 2 * effects.std(0, ddof=1)).mean())
