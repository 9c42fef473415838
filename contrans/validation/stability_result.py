"""Does an effect last? Values by window and arm, and a sentence on every arm."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.table import Table
from rich.text import Text

from contrans.validation.grids import Grid
from contrans.validation.wording import shown

UNSTEERED = "unsteered"
METRICS = ("effect", "score", "score_gain", "repetition", "distinct_2", "perplexity", "degenerate", "written")


@dataclass(frozen=True)
class WindowRow:
    """One measured value in one window.

    Attributes:
        window: number of the window or turn, from 0.
        start: its first token, counted from the text's beginning; the turn's number in a conversation.
        end: the token (turn) after its last.
        metric: "effect" (in residual norms), "score" (of the given scorer), "score_gain" (the same less the unsteered
            model's), "repetition", "distinct_2", "perplexity" (of the unsteered model), "degenerate" (share of texts)
            or "written" (share of texts that reach the window).
        arm: what was added.
        value: mean over texts; of perplexity, over tokens.
        low: lower end of its 95 % interval by bootstrap over texts; None for a single text.
        high: upper end.
        n: texts behind it.
    """

    window: int
    start: int
    end: int
    metric: str
    arm: str
    value: float
    low: float | None
    high: float | None
    n: int


@dataclass(frozen=True)
class StabilityResult:
    """Values by window and arm, and a verdict on each arm.

    Attributes:
        window_rows: one per window, metric and arm; a window that no text reaches has only `written`.
        verdicts: per steered arm a sentence.
        unit: "token" or "turn".
        texts: per arm the windows of every text.
        settings: how they were generated.
    """

    window_rows: list[WindowRow]
    verdicts: dict[str, str]
    unit: str
    texts: dict[str, list[list[str]]]
    settings: dict[str, Any]

    def rows(self) -> list[dict[str, Any]]:
        """One JSON object per window, metric and arm."""
        return [asdict(r) for r in self.window_rows]

    def to_json(self) -> dict[str, Any]:
        """Everything but the texts."""
        return {"settings": self.settings, "unit": self.unit, "verdicts": self.verdicts, "rows": self.rows()}

    def table(self) -> Table:
        """A rich table: a row per arm and window, with the verdicts below."""
        table = self._grid().rich()
        table.caption = Text("\n".join(self.verdicts.values()), justify="left")
        return table

    def markdown(self) -> str:
        """A markdown table, and the verdicts below."""
        return "\n\n".join([self._grid().markdown_table(), *self.verdicts.values()]) + "\n"

    def _grid(self) -> Grid:
        metrics = [m for m in METRICS if any(r.metric == m for r in self.window_rows)]
        lines: dict[tuple[str, int], dict[str, WindowRow]] = {}
        for row in self.window_rows:
            lines.setdefault((row.arm, row.window), {})[row.metric] = row
        rows = []
        for (arm, _), line in lines.items():
            first = next(iter(line.values()))
            where = f"{first.start}–{first.end - 1}" if first.end > first.start + 1 else str(first.start)
            rows.append((arm, where, *(_cell(line.get(m)) for m in metrics)))
        columns = ("arm", f"{self.unit}s", *(m.replace("_", "-") for m in metrics))
        return Grid(f"Stability by {self.unit}", columns, tuple(rows))


def _cell(row: WindowRow | None) -> str:
    if row is None:
        return "–"
    return shown(row.value, row.low, row.high) if row.metric in ("effect", "score_gain") else shown(row.value)


def verdict(rows: Sequence[WindowRow], arm: str, unit: str, *, keeps: float = 0.5) -> str:
    """A sentence on whether an arm's effect lasts.

    The effect is `score_gain` where there is a scorer, else `effect`. It fades after the last window that has at least
    `keeps` of the first one's. The text degenerates in the first window where more than half of the texts do; where
    the unsteered model's do so too, the sentence says it.

    Args:
        rows: of all arms.
        arm: the arm to judge.
        unit: "token" or "turn".
        keeps: share of the first window's effect that counts as holding.
    """

    def course_of(of: str, metric: str) -> list[WindowRow]:
        return [r for r in rows if (r.arm, r.metric) == (of, metric)]

    windows = course_of(arm, "degenerate")
    effects = course_of(arm, "score_gain" if any(r.metric == "score_gain" for r in rows) else "effect")
    if not windows:
        return f"{arm}: the texts are empty, so nothing can be said about the effect."
    broken = next((r for r in windows if r.value > 0.5), None)
    if broken is not None:
        where = f"after token {broken.start}" if unit == "token" else f"in turn {broken.start + 1}"
        broken_unsteered = {r.window for r in course_of(UNSTEERED, "degenerate") if r.value > 0.5}
        too = "; so does the unsteered model's" if broken.window in broken_unsteered else ""
        return f"{arm}: the text degenerates {where}{too}."
    if not effects or not _clear(effects[0]):
        return f"{arm}: there is no clear effect in the first {'window' if unit == 'token' else 'turn'}."
    first, last = effects[0], effects[-1]
    kept = [r for r in effects if r.value / first.value >= keeps][-1]
    course = f"({first.value:.2f} at first, {last.value:.2f} at last)"
    if kept is not last:
        where = f"window {kept.window + 1}, token {kept.end}" if unit == "token" else f"turn {kept.end}"
        return f"{arm}: the effect fades after {where} {course}."
    ended = "" if last.window == max(r.window for r in rows) else ", where the last text ends"
    return f"{arm}: the effect holds over {last.end} {unit}s{ended} {course}."


def _clear(row: WindowRow) -> bool:
    """Whether the interval leaves zero out; a single text has none."""
    if row.low is None or row.high is None:
        return row.value != 0
    return row.low > 0 or row.high < 0
