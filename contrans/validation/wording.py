"""How numbers are written wherever results are shown: in tables, in sentences, in cards."""

from collections.abc import Sequence


def shown(value: float | None, low: float | None = None, high: float | None = None) -> str:
    """A value with two decimals, with its interval in brackets if it has one; "–" for no value.

    Args:
        value: the value.
        low: lower end of its interval.
        high: upper end.
    """
    if value is None:
        return "–"
    if low is None or high is None:
        return _number(value)
    return f"{_number(value)} [{_number(low)}, {_number(high)}]"


def _number(value: float) -> str:
    if abs(value) >= 100:
        return f"{value:,.0f}"
    if abs(value) < 1e-12:
        value = 0.0  # what is left of a sum of shares that is 0
    # a small KL is not 0.00
    return f"{value:.2f}" if abs(value) >= 0.005 or not value else f"{value:.1g}"


def percent(share: float) -> str:
    """A share as "34 %"; "< 1 %" is not 0."""
    return "< 1 %" if 0 < share < 0.005 else f"{100 * share:.0f} %"


def p_value(p: float) -> str:
    """A p-value as "p = 0.021" or "p < 0.001"."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}" if p < 0.1 else f"p = {p:.2f}"


def listed(words: Sequence[str]) -> str:
    """Words as "a, b and c"."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def spoken(name: str) -> str:
    """A name of an arm or metric in words: "shuffled_map" is "shuffled map"."""
    return name.replace("_", " ")
