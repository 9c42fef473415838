"""The dose that meets a KL budget: of an arm, and of each draw of a control."""

import math
from collections.abc import Callable, Sequence

import numpy as np

from contrans.errors import FitError
from contrans.validation.arms import Directions
from contrans.validation.fluency import FluencyMeter
from contrans.validation.items import CURVE_DRAWS
from contrans.validation.scorer import Tick

_STEPS_TOGETHER = 4


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
    draws: Sequence[int],
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
        draws: which of its draws.
        budget: nats per token.
        start: a dose that is near for most of them.
        tolerance: relative error of KL that is good enough.
        tick: called with tokens done.

    Raises:
        FitError: no dose of a draw costs that much.
    """
    concepts = directions.concepts[:1] if arm == "random" else directions.concepts
    doses = np.full(len(draws), start)

    def price(which: Sequence[int], at: Sequence[float]) -> np.ndarray:
        costs = meter.kl_many(
            [directions.shift(arm, c, d, draws[i]) for i, d in zip(which, at, strict=True) for c in concepts]
        )
        for _ in costs:
            tick(meter.n_tokens)
        return np.reshape(costs, (len(which), len(concepts))).mean(1)

    away = np.arange(len(draws))
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
