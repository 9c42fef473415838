"""Does an effect last? Values by window and arm, and a sentence on every arm."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from rich.table import Table
from rich.text import Text

from contrans.validation.grids import Grid
from contrans.validation.row_table import MEAN
from contrans.validation.wording import shown, spoken

UNSTEERED = "unsteered"
_COURSES = ("effect", "score", "score_gain")
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
        concept: the concept that was put in and is read; "" where there is only one, "all" for what the unsteered model
            writes, which is the same for all.
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
    concept: str = ""


@dataclass(frozen=True)
class StabilityResult:
    """Values by window and arm, and a verdict on each arm.

    Attributes:
        window_rows: one per window, metric and arm; a window that no text reaches has only `written`.
        verdicts: per steered arm a sentence; of several concepts per concept and arm, such as "anger, own".
        unit: "token" or "turn".
        texts: the windows of every text, by the same names.
        settings: how they were generated.
    """

    window_rows: list[WindowRow]
    verdicts: dict[str, str]
    unit: str
    texts: dict[str, list[list[str]]]
    settings: dict[str, Any]

    @classmethod
    def of_concepts(cls, results: Mapping[str, "StabilityResult"]) -> "StabilityResult":
        """The results of several concepts as one; what the unsteered model writes stands there once.

        Args:
            results: per concept its result, all from the same prompts and settings.
        """
        rows: dict[tuple[str, str, int, str], WindowRow] = {}
        verdicts: dict[str, str] = {}
        texts: dict[str, list[list[str]]] = {}
        for concept, result in results.items():
            for row in result.window_rows:
                # a scorer may see one concept or the other in the very same text
                same = row.arm == UNSTEERED and not row.metric.startswith("score")
                whose = MEAN if same else concept
                rows.setdefault((whose, row.arm, row.window, row.metric), replace(row, concept=whose))
            verdicts |= {f"{concept}, {arm}": f"{concept}, {said}" for arm, said in result.verdicts.items()}
            for arm, of_arm in result.texts.items():
                texts.setdefault(arm if arm == UNSTEERED else f"{concept}, {arm}", of_arm)
        first = next(iter(results.values()))
        return cls(list(rows.values()), verdicts, first.unit, texts, first.settings)

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> "StabilityResult":
        """Reads what `to_json` gave; the texts are not in it."""
        rows = [WindowRow(**row) for row in found["rows"]]
        return cls(rows, dict(found["verdicts"]), found["unit"], {}, dict(found["settings"]))

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

    def figure(self) -> bytes:
        """A PNG: the effect in every window with its interval, a line per steered arm."""
        from contrans.report.figures import effect_by_window

        return effect_by_window(self.rows(), unit=self.unit, title=f"Stability by {self.unit}")

    def _grid(self) -> Grid:
        lines: dict[tuple[str, str], list[dict[str, WindowRow]]] = {}
        for row in self.window_rows:
            of_line = lines.setdefault((row.concept, row.arm), [])
            if not of_line or next(iter(of_line[-1].values())).window != row.window:
                of_line.append({})
            of_line[-1][row.metric] = row
        if any(concept for concept, _ in lines):
            return self._by_concept(lines)
        metrics = self._metrics()
        rows = [
            (arm, _where(line), *(_cell(line.get(m)) for m in metrics)) for (_, arm), w in lines.items() for line in w
        ]
        return Grid(f"Stability by {self.unit}", ("arm", f"{self.unit}s", *map(_head, metrics)), tuple(rows))

    def _by_concept(self, lines: Mapping[tuple[str, str], Sequence[Mapping[str, WindowRow]]]) -> Grid:
        """The course of the effect, and what the last window is like: all windows of all concepts are too many."""
        metrics = self._metrics()
        courses = [m for m in metrics if m in _COURSES]
        others = [m for m in metrics if m not in _COURSES]
        rows = []
        for (concept, arm), windows in lines.items():
            # a window that no text reaches has but one number
            last = [w for w in windows if len(w) > 1][-1:] or windows[-1:]
            course = [_cell(line.get(m)) for m in courses for line in (windows[0], *last)]
            rows.append((concept, spoken(arm), _where(*last), *course, *(_cell(last[0].get(m)) for m in others)))
        heads = [f"{_head(m)} at {when}" for m in courses for when in ("first", "last")]
        columns = ("concept", "arm", f"last {self.unit}s", *heads, *map(_head, others))
        return Grid(f"Stability by {self.unit}, first and last window", columns, tuple(rows))

    def _metrics(self) -> list[str]:
        return [m for m in METRICS if any(r.metric == m for r in self.window_rows)]


def _head(metric: str) -> str:
    return metric.replace("_", "-")


def _where(line: Mapping[str, WindowRow]) -> str:
    first = next(iter(line.values()))
    return f"{first.start}–{first.end - 1}" if first.end > first.start + 1 else str(first.start)


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
