"""What is measured in every window of some texts, and what does it say over all of them?"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from contrans.validation.stability_result import WindowRow
from contrans.validation.statistics import cluster_bootstrap


@dataclass(frozen=True)
class Window:
    """One window of a text as the unsteered model reads it.

    Attributes:
        n_tokens: its tokens, at least one.
        nll: mean −log p of a token, in nats.
        projection: mean projection of the residual stream on the concept's direction, in residual norms.
        metrics: "repetition", "distinct_2", "degenerate", and "score" where there is a scorer.
    """

    n_tokens: int
    nll: float
    projection: float
    metrics: dict[str, float]


@dataclass(frozen=True)
class ReadText:
    """A text, or the replies of a conversation, window by window.

    Attributes:
        parts: the text of every window.
        windows: by number those that hold a token.
    """

    parts: list[str]
    windows: dict[int, Window]


def window_bounds(length: int, window: int) -> Iterator[tuple[int, int]]:
    """First token and the one after the last of each window; a last one of less than half counts only as the first."""
    for start in range(0, length, window):
        end = min(start + window, length)
        if start == 0 or 2 * (end - start) >= window:
            yield start, end


def window_rows(
    arm: str, texts: Sequence[ReadText], unsteered: Sequence[ReadText], spans: Sequence[tuple[int, int]], *, seed: int
) -> list[WindowRow]:
    """Every metric of an arm in every window: its mean over texts, with a 95 % bootstrap interval over them.

    Args:
        arm: its name.
        texts: what was written under it.
        unsteered: what the unsteered model wrote after the same prompts.
        spans: start and end of every window.
        seed: of the bootstrap.
    """
    rows = []
    for k, (start, end) in enumerate(spans):
        found: dict[str, list[tuple[float, float]]] = {"written": [(float(k in t.windows), 1.0) for t in texts]}
        for text, other in zip(texts, unsteered, strict=True):
            for metric, value in _measured(text, other, k).items():
                found.setdefault(metric, []).append(value)
        for metric, values in found.items():
            mean, low, high = _over_texts(metric, values, seed)
            rows.append(WindowRow(k, start, end, metric, arm, mean, low, high, len(values)))
    return rows


def _measured(text: ReadText, unsteered: ReadText, k: int) -> dict[str, tuple[float, float]]:
    """Per metric the value of window k and its weight in the mean over texts."""
    if k not in text.windows:
        return {}
    window = text.windows[k]
    values = dict(window.metrics)
    if unsteered.windows:
        # where the unsteered text ended sooner, its last window stands for what it would have said
        before = [j for j in unsteered.windows if j <= k]
        other = unsteered.windows[max(before) if before else min(unsteered.windows)]
        values["effect"] = window.projection - other.projection
        if "score" in values:
            values["score_gain"] = values["score"] - other.metrics["score"]
    weighted = {metric: (value, 1.0) for metric, value in values.items()}
    return weighted | {"perplexity": (window.nll, float(window.n_tokens))}


def _over_texts(
    metric: str, values: Sequence[tuple[float, float]], seed: int
) -> tuple[float, float | None, float | None]:
    x, weight = np.array(values).T

    def mean(w: np.ndarray) -> np.ndarray:
        average = w @ (x * weight) / (w @ weight)
        return np.exp(average) if metric == "perplexity" else average

    value = mean(np.ones((1, len(x)))).item()
    if len(x) == 1:
        return value, None, None
    return value, *cluster_bootstrap(mean, len(x), draws=1000, seed=seed)
