"""What `contrans play` plays with: concepts of one model with their doses, and an answer as it is being written."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import isfinite, nan

from rich.console import Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from contrans.errors import SpecError
from contrans.validation.wording import shown
from flows.cli.plots import visible
from registry import Version
from registry.browse.facts import dose_of, plain
from registry.browse.playground import MOST_CONCEPTS, level, question
from registry.browse.reading import Reader
from registry.browse.worker import Event, Job

# From pale to strong, by `registry.browse.playground.level`; black on them is read on dark terminals too.
_HEAT = ("", *(f"black on rgb(255,{shade},{shade // 2})" for shade in range(236, 100, -15)))
_CLEAR = 0.005  # nats; a KL below is shown as none


@dataclass
class Answer:
    """What was written so far: the texts of both sides in pieces, the KL of the steered ones, and the price."""

    unsteered: list[str] = field(default_factory=list)
    steered: list[tuple[str, float]] = field(default_factory=list)
    price: Event = field(default_factory=dict)
    stopped: bool = False

    def add(self, event: Event) -> None:
        """Takes in an event of `registry.browse.worker.stream`."""
        if event["kind"] == "price":
            self.price = {key: value for key, value in event.items() if key != "kind"}
        elif event["side"] == "steered":
            self.steered.append((event["text"], event["kl"]))
        else:
            self.unsteered.append(event["text"])

    def shown(self) -> Group:
        """Both texts beside each other, and what the steered one costs."""
        grid = Table.grid(expand=True)
        grid.add_column(ratio=1)
        grid.add_column(ratio=1)
        heated = ((visible(text), _HEAT[level(kl)] if kl >= _CLEAR else "") for text, kl in self.steered)
        texts = (("unsteered", Text(visible("".join(self.unsteered)))), ("steered", Text.assemble(*heated)))
        grid.add_row(*(Panel(text, title=name, title_align="left", border_style="dim") for name, text in texts))
        return Group(grid, Text(self._words(), style="dim"))

    def _words(self) -> str:
        stopped = " Stopped." if self.stopped else ""
        if not self.price:
            return stopped.strip()
        kl, steered, unsteered = (self.price[key] for key in ("kl", "perplexity", "unsteered_perplexity"))
        return (
            f"Price: mean KL {shown(kl)} nats per token, perplexity {shown(steered)} instead of {shown(unsteered)} "
            f"(both to the unsteered model).{stopped}"
        )


@dataclass
class Game:
    """What is played with: concepts of one model with a dose each, and how much is written.

    Attributes:
        registry: Where the concepts are.
        target: The model, as registered.
        concepts: Transplants and their doses, the first being what `/dose` is about.
        tokens: New tokens of an answer.
    """

    registry: Reader
    target: Version
    concepts: dict[Version, float]
    tokens: int

    @classmethod
    def of(cls, registry: Reader, name: str, others: Sequence[str], *, dose: float | None, tokens: int) -> "Game":
        """A game with a transplant, and others given as `with_` takes them.

        Raises:
            RegistryError: If one does not exist.
            SpecError: If the first one's model is not known, there are too many, or a dose is no number.
        """
        first = registry.get(name, kind="transplant")
        target = next((parent for role, parent in registry.inputs(first) if role == "target"), None)
        if target is None:
            raise SpecError(f"It is not noted which model {first.ref} was made for; play with one of `contrans list`.")
        game = cls(registry, target, {first: dose_of(first) if dose is None else dose}, tokens)
        for other in others:
            game.with_(other)
        return game

    def with_(self, text: str) -> None:
        """Takes in a concept, "NAME" at the dose that it was chosen for or "NAME=DOSE", or changes its dose."""
        name, equals, wanted = text.strip().partition("=")
        known = self._known(name.strip())
        version = known or self.registry.get(name.strip(), kind="transplant")
        dose = number("A dose", wanted) if equals else dose_of(version)
        if known is None and len(self.concepts) >= MOST_CONCEPTS:
            raise SpecError(f"{MOST_CONCEPTS} concepts are the most; take one away by /without.")
        if known is None and not any(p.id == self.target.id for _, p in self.registry.inputs(version)):
            raise SpecError(
                f"{version.ref} was not made for {self.target.name}; `contrans list --target "
                f"{self.target.name}` lists what was."
            )
        self.concepts[version] = dose

    def without(self, text: str) -> None:
        """Takes a concept away."""
        known = self._known(text.strip())
        if known is None:
            raise SpecError(f"{text.strip()!r} is not played with; there is {self.words or 'nothing'}.")
        del self.concepts[known]

    def set_dose(self, text: str) -> None:
        """Changes the dose of the first concept."""
        if not self.concepts:
            raise SpecError("There is no concept whose dose could change; add one by /with NAME.")
        self.concepts[next(iter(self.concepts))] = number("A dose", text)

    @property
    def words(self) -> str:
        """The concepts with their doses, such as "anger/small/large@1 at 0.2"."""
        return ", ".join(f"{version.ref} at {plain(dose)}" for version, dose in self.concepts.items())

    def job(self, prompt: str) -> Job:
        """What is to be written after a prompt.

        Raises:
            SpecError: If the prompt is empty or too long, or a number is out of bounds.
        """
        form = {"target": str(self.target), "prompt": prompt, "tokens": str(self.tokens)}
        for i, (version, dose) in enumerate(self.concepts.items(), 1):
            form |= {f"concept{i}": str(version), f"dose{i}": repr(dose)}
        return question(self.registry, form).job

    def _known(self, name: str) -> Version | None:
        for version in self.concepts:
            if name in (str(version), version.ref, version.name, version.name.partition("/")[0]):
                return version
        return None


def number(what: str, text: str) -> float:
    """A number that was typed.

    Raises:
        SpecError: If it is none; `what` begins the sentence.
    """
    try:
        value = float(text)
    except ValueError:
        value = nan
    if not isfinite(value):
        raise SpecError(f"{what} is a number such as 0.3, not {text.strip()!r}.")
    return value
