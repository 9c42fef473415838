"""The part of a model card that says what was found, with controls, intervals and what stands against it."""

from collections.abc import Mapping, Sequence
from typing import Any

from contrans.report.grids import grids_of
from contrans.validation.finding import Finding
from contrans.validation.grids import markdown_text
from contrans.validation.row_table import RowTable
from contrans.validation.wording import spoken

_LONGEST = 600  # characters of a sample in a card


def evidence_section(
    table: RowTable,
    *,
    title: str = "",
    findings: Sequence[Finding] = (),
    power: str = "",
    samples: Sequence[Mapping[str, Any]] = (),
    heading: str = "##",
) -> str:
    """A section of a model card.

    Args:
        table: the rows.
        title: what was transplanted into what.
        findings: what a reader must know.
        power: what the items can see, without a full stop.
        samples: continuations with `prompt`, `arm` and `text`, and `concept` where there are several.
        heading: the marks of its heading.

    Returns:
        Markdown that ends in a line break.
    """
    about = f": {markdown_text(title)}" if title else ""
    parts = [f"{heading} Evidence ({markdown_text(spoken(table.protocol))}){about}"]
    parts += [grid.markdown() for grid in grids_of(table)]
    if power:
        parts.append(f"Intervals are at 95 %; {power} (one share near a half).")
    parts.append(f"{heading}# What to read with care")
    said = [f"- **{f.severity.capitalize()}.** {markdown_text(f.sentence)}" for f in findings]
    parts.append("\n".join(said) or "None of the known failure signatures shows in these numbers.")
    if samples:
        parts.append(f"{heading}# Samples")
        parts.append("\n".join(_sample(s) for s in samples))
    return "\n\n".join(parts) + "\n"


def _sample(sample: Mapping[str, Any]) -> str:
    flaw = f", {sample['flaw']}" if sample.get("flaw") else ""
    concept = f"{sample['concept']}, " if sample.get("concept") else ""
    arm = markdown_text(f"{concept}{spoken(sample['arm'])}{flaw}")
    return (
        f"- **{arm}** — {markdown_text(_cut(sample['prompt']))} → {markdown_text(_cut(sample['text'])) or '(nothing)'}"
    )


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
