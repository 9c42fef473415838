"""What the shell completes: references of versions, names of models and of specs; nothing is made or changed."""

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from typing import TYPE_CHECKING, Any

import typer
from typer.main import get_command

from contrans.errors import ContransError
from registry.names import KINDS

if TYPE_CHECKING:
    from registry.browse.reading import Reader

_MOST = 200
_BREAKS = ("@", ":")  # where bash cuts words


def with_hidden_completion(app: typer.Typer) -> Any:
    """The command of an app, whose --install-completion and --show-completion work but are not in its help."""
    command = get_command(app)
    for parameter in command.params:
        if parameter.name in ("install_completion", "show_completion"):
            parameter.hidden = True  # type: ignore[attr-defined]  an option has it
    return command


def references(incomplete: str) -> list[str]:
    """References that begin as what is typed: names, `kind:` names, and behind an @ numbers and aliases."""
    prefix, colon, rest = incomplete.rpartition(":")
    name, at, _ = rest.partition("@")
    kinds = [kind for kind in KINDS if not colon or kind == prefix]
    with _registry() as registry:
        if registry is None:
            return []
        if at:
            return _beginning(incomplete, (f"{prefix}{colon}{name}@{end}" for end in _selectors(registry, kinds, name)))
        found = [f"{prefix}{colon}{name}" for name in _names(registry, kinds, rest)]
        return found or ([] if colon else _beginning(incomplete, (f"{kind}:" for kind in KINDS)))


def model_names(incomplete: str) -> list[str]:
    """Names of models that can be fetched, or that the registry knows, which begin as what is typed."""
    from contrans.models import catalogue

    with _registry() as registry:
        known = [] if registry is None else _names(registry, ["model"], incomplete)
    return [*known, *_beginning(incomplete, (f"pypi:{name}" for name in sorted(catalogue.MODELS)))]


def spec_names(incomplete: str) -> list[str]:
    """Names of the specs that ship with the package."""
    from flows.spec.reading import shipped_specs

    return _beginning(incomplete, shipped_specs())


@contextmanager
def whole_words() -> Iterator[None]:
    """While bash asks for completions, puts the last word together again, which it hands over in pieces."""
    words, at = os.environ.get("COMP_WORDS", "").split(), int(os.environ.get("COMP_CWORD") or 0)
    if os.environ.get("_CONTRANS_COMPLETE") != "complete_bash" or at >= len(words):
        yield
        return
    joined, cut = join_cut_word(words[: at + 1])
    os.environ |= {"COMP_WORDS": " ".join(joined), "COMP_CWORD": str(len(joined) - 1)}
    answer = StringIO()
    try:
        with redirect_stdout(answer):
            yield
    finally:
        sys.stdout.writelines(line.removeprefix(cut) for line in answer.getvalue().splitlines(keepends=True))


def join_cut_word(words: list[str]) -> tuple[list[str], str]:
    """Joins the pieces of the last word.

    Args:
        words: What was typed, cut at colons and @s: "show", "anger", "@", "1".

    Returns:
        The words with the last one whole ("show", "anger@1"), and the beginning of it that bash does not want back:
        up to the last @ ("anger"), which counts to what follows, or through the last colon.
    """
    start = len(words) - 1
    while start > 0 and (words[start] in _BREAKS or words[start - 1] in _BREAKS):
        start -= 1
    if start == len(words) - 1:
        return words, ""
    whole = "".join(words[start:])
    return [*words[:start], whole], whole[: max(whole.rfind("@"), whole.rfind(":") + 1)]


def _names(registry: "Reader", kinds: Sequence[str], beginning: str) -> list[str]:
    from sqlalchemy import select

    from registry.schema import NameRow

    query = select(NameRow.name).where(NameRow.kind.in_(kinds), NameRow.last > 0).distinct()
    query = query.where(NameRow.name.startswith(beginning, autoescape=True)).order_by(NameRow.name).limit(_MOST)
    with registry.session() as session:
        return _beginning(beginning, session.scalars(query))  # again, since SQLite is blind to case


def _selectors(registry: "Reader", kinds: Sequence[str], name: str) -> list[str]:
    found = [version for kind in kinds for version in registry.list(kind, name=name, limit=_MOST)]
    aliases = dict.fromkeys(alias for version in found for alias in version.aliases)
    return [*aliases, *dict.fromkeys(str(version.number) for version in found)]


@contextmanager
def _registry() -> "Iterator[Reader | None]":
    """The registry, or None where there is none, or where it cannot be read: a shell has no place for sentences."""
    from flows.cli.opening import reader_if_any

    try:
        registry = reader_if_any()
    except ContransError:
        registry = None
    if registry is None:
        yield None
        return
    with registry:
        yield registry


def _beginning(incomplete: str, words: Iterable[str]) -> list[str]:
    return [word for word in words if word.startswith(incomplete)][:_MOST]
