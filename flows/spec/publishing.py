"""The part of a spec that says which transplants are published, and where."""

import re
from string import Formatter
from typing import Annotated

from pydantic import AfterValidator, Field

from contrans.errors import RegistryError
from flows.spec.fields import Part, Text

PLACES = ("concept", "source", "target")
"""What a repository's pattern may name, each in braces."""
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_LONGEST = 96  # characters of a repository's name on the Hub


def _repository(pattern: str) -> str:
    try:
        used = [part[1:] for part in Formatter().parse(pattern) if part[1] is not None]
    except ValueError as error:
        raise ValueError("has a brace that is not closed; write places like {concept}") from error
    unknown = next((name for name, form, conversion in used if name not in PLACES or form or conversion), None)
    if unknown is not None:
        raise ValueError(f"names {{{unknown}}}, which is no place; use {', '.join(f'{{{p}}}' for p in PLACES)}")
    if not _REPOSITORY.fullmatch(pattern.format(**dict.fromkeys(PLACES, "x"))):
        raise ValueError("must be an owner and a name, such as my-org/concept-{concept}-{target}")
    return pattern


def _gate(text: str) -> str:
    from registry.gates import parse_gate  # brings a database's driver along

    try:
        parse_gate(text)
    except RegistryError as error:
        raise ValueError(f"cannot be read: {str(error).rstrip('.')}") from error
    return text


class Publish(Part):
    """Which transplants are published, and where; without this part none are.

    Attributes:
        to: the repository of each, such as "my-org/concept-{concept}-{target}"; {concept}, {source} and {target} are
            the concept's name and the models' short names.
        if_: what must hold of the measured numbers, such as "gain_recovered.low > .7 and kl < .1"; see
            `registry.gates`. `if` in YAML; null publishes whatever came out.
        private: whether new repositories are private.
    """

    to: Annotated[Text, AfterValidator(_repository)]
    if_: Annotated[Text, AfterValidator(_gate)] | None = Field(default=None, alias="if")
    private: bool = False

    def repository(self, concept: str, source: str, target: str) -> str:
        """The repository of one transplant; what the Hub allows in no name becomes "-".

        Args:
            concept: the concept's name.
            source: the source's short name.
            target: the target's short name.
        """
        owner, _, pattern = self.to.partition("/")
        safe = {
            place: re.sub(r"[^\w.-]+", "-", value, flags=re.ASCII)
            for place, value in zip(PLACES, (concept, source, target), strict=True)
        }
        name = re.sub(r"([.-])[.-]+", r"\1", pattern.format(**safe))
        return f"{owner.format(**safe)}/{name[:_LONGEST].strip('.-')}"


def gate_arms(gate: str | None) -> list[str]:
    """The arms that a gate is about, each once.

    Args:
        gate: as it stands under `if`; none for a gate that is always passed.
    """
    if gate is None:
        return []
    from registry.gates import comparisons, parse_gate

    return list(dict.fromkeys(comparison.arm for comparison in comparisons(parse_gate(gate))))
