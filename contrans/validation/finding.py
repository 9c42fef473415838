"""One thing that a reader of results must know, in words."""

from dataclasses import asdict, dataclass
from typing import Literal

Severity = Literal["note", "warning", "failure"]
"""A note is to be read with care, a warning is likely wrong, with a failure the result does not hold."""


@dataclass(frozen=True)
class Finding:
    """Something a reader of the results must know.

    Attributes:
        code: what it is, for programs, such as "concept_absent".
        severity: see `Severity`.
        sentence: what is wrong and what to do about it.
    """

    code: str
    severity: Severity
    sentence: str

    def to_json(self) -> dict[str, str]:
        """The finding as a JSON object."""
        return asdict(self)
