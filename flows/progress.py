"""What a running pipeline tells whoever watches it."""

from typing import Protocol


class Watcher(Protocol):
    """Is told what happens while it happens."""

    def say(self, text: str) -> None:
        """What is being done, in a few words."""
        ...

    def begin(self, step: str, tokens: int) -> None:
        """A step begins to compute.

        Args:
            step: Its name.
            tokens: Tokens that it is expected to put through a model; 0 if none.
        """
        ...

    def advance(self, tokens: int) -> None:
        """So many more tokens are done."""
        ...

    def end(self, step: str, seconds: float, *, computed: bool) -> None:
        """A step is done, or was found done."""
        ...


class Silent:
    """A watcher that says nothing."""

    def say(self, text: str) -> None:
        """Says nothing."""

    def begin(self, step: str, tokens: int) -> None:
        """Shows nothing."""

    def advance(self, tokens: int) -> None:
        """Counts nothing."""

    def end(self, step: str, seconds: float, *, computed: bool) -> None:
        """Notes nothing."""


def waiting_for(step: str) -> str:
    """What is said while another run computes a step that this one needs too."""
    return f"waiting for another run that computes {step} already"
