"""What did every arm write after the same prompts? The texts side by side, as a table, in a card, as JSON."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from rich.table import Table

from contrans.validation.grids import Grid


@dataclass(frozen=True)
class Sample:
    """One prompt's continuation under one arm.

    Attributes:
        prompt: the prompt.
        arm: what was added.
        text: what the model wrote.
        flaw: "empty", "copied" or "degenerate" if the text is one of these, else "".
        n_tokens: new tokens.
        concept: the concept that was put in, "" where there is only one.
    """

    prompt: str
    arm: str
    text: str
    flaw: str
    n_tokens: int
    concept: str = ""


@dataclass(frozen=True)
class Samples:
    """What every arm wrote after the same prompts.

    Attributes:
        samples: concept by concept, in each prompt by prompt, in each the arms in their order.
        settings: how the text was generated.
    """

    samples: list[Sample]
    settings: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_rows(cls, rows: Iterable[Mapping[str, Any]]) -> "Samples":
        """Reads what `rows` gave."""
        return cls([Sample(**row) for row in rows])

    @property
    def arms(self) -> list[str]:
        """The arms, in order."""
        return list(dict.fromkeys(s.arm for s in self.samples))

    def rows(self) -> list[dict[str, Any]]:
        """One JSON object per prompt and arm."""
        return [asdict(s) for s in self.samples]

    def to_json(self) -> dict[str, Any]:
        """Rows and settings."""
        return {"settings": self.settings, "rows": self.rows()}

    def table(self) -> Table:
        """A rich table: a row per prompt, a column per arm."""
        return self._grid().rich()

    def markdown(self) -> str:
        """A markdown table: a row per prompt, a column per arm."""
        return self._grid().markdown_table() + "\n"

    def _grid(self) -> Grid:
        several = any(s.concept for s in self.samples)
        lines: list[tuple[Sample, dict[str, str]]] = []
        for s in self.samples:
            first = lines[-1][0] if lines else None
            # an arm that stands in the line already begins another, whose prompt may be the same
            if first is None or (first.concept, first.prompt) != (s.concept, s.prompt) or s.arm in lines[-1][1]:
                lines.append((s, {}))
            lines[-1][1][s.arm] = _shown(s)
        rows = [
            (*[first.concept] * several, first.prompt, *(texts.get(arm, "–") for arm in self.arms))
            for first, texts in lines
        ]
        return Grid("Free generation", (*["concept"] * several, "prompt", *self.arms), tuple(rows), prose=True)


def _shown(sample: Sample) -> str:
    mark = f"({sample.flaw}) " if sample.flaw else ""
    return f"{mark}{sample.text.strip()}".rstrip()
