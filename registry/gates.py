"""Rules on measured numbers, such as "gain_recovered.low > .7 and kl < .1", read without running code.

A comparison is `metric`, `metric.low`, `metric.high` or `metric.value` (the same as `metric`), then one of > >= < <=
and a number; comparisons are joined by `and`, `or` and parentheses. It is about the arm "transplanted"; another arm
stands before the metric, as in "own/logit_accuracy > .8".
"""

import operator
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, Protocol

from contrans.errors import RegistryError

DEFAULT_ARM = "transplanted"
CHOSEN_ON = ("refine", "dev")  # splits that settings were chosen on, whose numbers prove nothing
MAX_LENGTH = 2000  # characters
MAX_NESTING = 50

Field = Literal["value", "low", "high"]
OPERATORS: dict[str, Callable[[float, float], bool]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
}
_TOKEN = re.compile(
    r"\s*(?:(?P<number>[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)(?![\w.])|(?P<operator>[<>]=?)|(?P<paren>[()])|"
    r"(?P<name>[A-Za-z_][\w-]*(?:[./][A-Za-z_][\w-]*)*))"
)


class Measured(Protocol):
    """A measured number, such as a `Result`."""

    @property
    def concept(self) -> str:
        """What was measured."""
        ...

    @property
    def split(self) -> str:
        """On which items."""
        ...

    @property
    def arm(self) -> str:
        """With what in place."""
        ...

    @property
    def metric(self) -> str:
        """The metric's name."""
        ...

    @property
    def value(self) -> float | None:
        """The number, or None where it is not defined."""
        ...

    @property
    def low(self) -> float | None:
        """Lower end of its interval."""
        ...

    @property
    def high(self) -> float | None:
        """Upper end of its interval."""
        ...


@dataclass(frozen=True)
class Comparison:
    """That a metric of an arm lies above or below a number."""

    arm: str
    metric: str
    field: Field
    operator: str
    number: float

    def __str__(self) -> str:
        return f"{self.subject} {self.operator} {_plain(self.number)}"

    @property
    def subject(self) -> str:
        """What is compared, as it is written in a gate."""
        arm = "" if self.arm == DEFAULT_ARM else f"{self.arm}/"
        return f"{arm}{self.metric}" + ("" if self.field == "value" else f".{self.field}")

    def is_about(self, row: Measured) -> bool:
        """Whether a row holds a number that this compares; rows of the splits of choosing never do."""
        return row.metric == self.metric and row.arm == self.arm and row.split not in CHOSEN_ON

    def holds(self, row: Measured) -> bool:
        """Whether a row's number is defined and lies where it should."""
        number = getattr(row, self.field)
        return number is not None and OPERATORS[self.operator](number, self.number)


@dataclass(frozen=True)
class Joined:
    """Parts that must all hold ("and"), or of which one must ("or")."""

    word: Literal["and", "or"]
    parts: "tuple[Gate, ...]"

    def __str__(self) -> str:
        return f" {self.word} ".join(f"({part})" if isinstance(part, Joined) else str(part) for part in self.parts)


Gate = Comparison | Joined


def parse_gate(text: str) -> Gate:
    """Reads a gate.

    Args:
        text: Such as "gain_recovered.low > .7 and kl < .1".

    Raises:
        RegistryError: If it is not a gate; the message quotes where it stops being one.
    """
    if len(text) > MAX_LENGTH:
        raise RegistryError(f"A gate of {len(text):,} characters is too long; {MAX_LENGTH:,} are the most.")
    parser = _Parser(text)
    found = parser.any_of(0)
    if parser.kind:
        raise parser.wrong("`and`, `or` or the end")
    return found


def shortfalls(gate: Gate, rows: Iterable[Measured]) -> list[str]:
    """Tells where measured numbers fall short of a gate.

    A comparison is about every row of its metric and arm, whatever the concept, and all of them must hold: a gate
    is as strong as the weakest number.

    Args:
        gate: The gate.
        rows: The numbers.

    Returns:
        A clause for each comparison that fails, such as "gain_recovered.low of anger is 0.62, not > 0.7"; empty if
        the gate is passed.
    """
    return _shortfalls(gate, list(rows))


def comparisons(gate: Gate) -> Iterator[Comparison]:
    """The comparisons of a gate, from left to right."""
    if isinstance(gate, Comparison):
        yield gate
    else:
        for part in gate.parts:
            yield from comparisons(part)


def _shortfalls(gate: Gate, rows: list[Measured]) -> list[str]:
    if isinstance(gate, Comparison):
        about = [row for row in rows if gate.is_about(row)]
        if not about:
            return [f"{gate.subject} was not measured"]
        return [_clause(gate, row) for row in about if not gate.holds(row)][:1]
    found = [_shortfalls(part, rows) for part in gate.parts]
    if gate.word == "and":
        return [clause for clauses in found for clause in clauses]
    if not all(found):
        return []
    return [" and ".join(clause for clauses in found for clause in clauses)]


def _clause(gate: Comparison, row: Measured) -> str:
    number = getattr(row, gate.field)
    said = "is not defined" if number is None else f"is {number:.6g}, not {gate.operator} {_plain(gate.number)}"
    return f"{gate.subject} of {row.concept} {said}"


def _plain(number: float) -> str:
    return repr(number).removesuffix(".0")  # every digit, so that a gate reads back as it was


class _Parser:
    """Recursive descent over the tokens of a gate; `kind` is "" at the end."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.position = 0
        self.kind = self.token = ""
        self.start = 0
        self.step()

    def step(self) -> str:
        """Goes on to the next token and gives back the one before."""
        before = self.token
        self.start = len(self.text) - len(self.text[self.position :].lstrip())
        if self.start == len(self.text):
            self.kind = self.token = ""
            return before
        match = _TOKEN.match(self.text, self.position)
        if match is None or match.lastgroup is None:
            self.kind = "sign"
            self.token = self.text[self.start]
            raise self.wrong("a metric, a number, > >= < <= or a parenthesis")
        self.kind, self.token, self.position = match.lastgroup, match[match.lastgroup], match.end()
        if self.token in ("and", "or"):
            self.kind = "word"
        return before

    def any_of(self, depth: int) -> Gate:
        """Parts joined by "or"."""
        return self._joined("or", lambda: self._joined("and", lambda: self._part(depth)))

    def _joined(self, word: Literal["and", "or"], part: Callable[[], Gate]) -> Gate:
        parts = [part()]
        while self.kind == "word" and self.token == word:
            self.step()
            parts.append(part())
        return parts[0] if len(parts) == 1 else Joined(word, tuple(parts))

    def _part(self, depth: int) -> Gate:
        if self.token != "(":
            return self._comparison()
        if depth == MAX_NESTING:
            raise RegistryError(f"The gate nests deeper than {MAX_NESTING} parentheses; make it flatter.")
        self.step()
        found = self.any_of(depth + 1)
        if self.token != ")":
            raise self.wrong("`and`, `or` or a closing parenthesis")
        self.step()
        return found

    def _comparison(self) -> Comparison:
        arm, metric, field = self._subject()
        if self.kind != "operator":
            raise self.wrong("one of > >= < <=")
        sign = self.step()
        if self.kind != "number":
            raise self.wrong("a number")
        number = float(self.step())
        if number in (float("inf"), float("-inf")):
            raise RegistryError(f"A number in the gate {self.text!r} is too large; give a smaller one.")
        return Comparison(arm, metric, field, sign, number)

    def _subject(self) -> tuple[str, str, Field]:
        if self.kind != "name":
            raise self.wrong("a metric such as gain_recovered.low")
        arm, slash, rest = self.token.rpartition("/")
        metric, dot, field = rest.partition(".")
        if field not in ("value", "low", "high") and dot:
            raise self.wrong("`.low`, `.high` or `.value` after the metric")
        if "." in arm or "/" in arm:
            raise self.wrong("one arm before the metric, as in own/logit_accuracy")
        self.step()
        ends: dict[str, Field] = {"low": "low", "high": "high"}
        return (arm if slash else DEFAULT_ARM), metric, ends.get(field, "value")

    def wrong(self, wanted: str) -> RegistryError:
        """The error that something else was expected here."""
        here = f"at {self.token!r}" if self.token else "at its end"
        shown = self.text if len(self.text) <= 200 else f"{self.text[:200]}…"
        return RegistryError(
            f"The gate {shown!r} is not understood {here} (character {self.start + 1}): {wanted} is expected; "
            "write it like gain_recovered.low > .7 and kl < .1."
        )
