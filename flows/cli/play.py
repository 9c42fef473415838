"""`contrans play`: prompts in, the unsteered and the steered answer beside each other, coloured by what they cost."""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.live import Live
from rich.text import Text

from contrans.errors import ContransError, SpecError
from flows.cli.game import Answer, Game, number
from flows.cli.opening import open_reader
from flows.cli.talk import Talk, complain, data_console, print_json
from registry.browse.worker import Job, stream

if TYPE_CHECKING:
    from contrans.models import Model

_HELP = """Type a prompt and press Enter: it is continued as it stands, unsteered and steered. \\n is a line break.
  /dose 0.3         the dose of the first concept, in residual norms; below 0 the concept is turned round
  /with fear=0.1    one more concept, or another dose of one that is there
  /without fear     takes a concept away
  /tokens 60        so many new tokens
  /help             this
  /quit             the end, as Ctrl-D is; Ctrl-C stops an answer, and ends the program where there is none"""


def play_command(
    name: str,
    others: Sequence[str],
    *,
    dose: float | None,
    model: str | None,
    tokens: int,
    prompt: str | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Plays with transplants: one answer to `prompt`, or answers to what is typed until the end.

    Args:
        name: Reference of the first transplant.
        others: References of more, as "NAME" or "NAME=DOSE".
        dose: Of the first one; None for the one that it was chosen for.
        model: What to load instead of the registered model's reference.
        tokens: New tokens of an answer.
        prompt: The only prompt; None to ask for them.
        as_json: Whether to print JSON: `model`, `prompt`, `concepts` (`ref`, `dose`), `unsteered` (`text`,
            `perplexity`) and `steered` (`text`, `perplexity`, `kl`, and `tokens` of `text` and `kl`).
        quiet: Whether to say nothing but answers and errors.

    Raises:
        ContransError: If something does not exist, does not fit, or cannot be loaded.
    """
    if as_json and prompt is None:
        raise SpecError("--json prints one answer; give the prompt with --prompt TEXT.")
    talk = Talk(quiet=quiet)
    with open_reader() as registry:
        game = Game.of(registry, name, others, dose=dose, tokens=tokens)
        if prompt is not None:
            game.job(prompt)  # a mistake is seen before a model is loaded
        reference = model or str(game.target.manifest["reference"])
        loaded = _load(reference, talk)
        if prompt is None:
            _converse(game, loaded, talk)
            return
        answer = Answer()
        if as_json:
            for event in stream(loaded, game.job(prompt)):
                answer.add(event)
            print_json(_as_json(reference, prompt, game, answer))
        else:
            _write(loaded, game.job(prompt), answer, data_console())


def _load(reference: str, talk: Talk) -> "Model":
    # Where other programs want the cores too, threads that spin while they wait for each other slow it a hundredfold.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    with talk.working(f"loading {reference}"):
        from contrans.models import load_model

        return load_model(reference)


def _converse(game: Game, model: "Model", talk: Talk) -> None:
    console = data_console()
    at_terminal = sys.stdin.isatty()
    talk.console.print(f"{game.words} in {model.name}. /help shows what can be typed.", soft_wrap=True)
    for line in _lines(at_terminal):
        try:
            if line.startswith("/"):
                if not _obey(game, line, talk):
                    return
            elif line.strip():
                _answer(game, model, line.replace("\\n", "\n"), console)
        except ContransError as error:
            if not at_terminal:
                raise
            complain(str(error))


def _answer(game: Game, model: "Model", prompt: str, console: Console) -> None:
    answer = Answer()
    try:
        _write(model, game.job(prompt), answer, console)
    except KeyboardInterrupt:
        answer.stopped = True
        console.print(answer.shown())


def _write(model: "Model", job: Job, answer: Answer, console: Console) -> None:
    live = Live(console=console, refresh_per_second=8, transient=True) if console.is_terminal else None
    with live or nullcontext():
        for event in stream(model, job):
            answer.add(event)
            if live is not None:
                live.update(answer.shown())
    console.print(answer.shown())


def _obey(game: Game, line: str, talk: Talk) -> bool:
    """Does what a line with a slash says; whether there is to be a next one."""
    command, _, rest = line[1:].strip().partition(" ")
    if command in ("quit", "exit", "q"):
        return False
    if command == "help":
        talk.console.print(Text(_HELP))
        return True
    if command == "dose":
        game.set_dose(rest)
    elif command == "with":
        game.with_(rest)
    elif command == "without":
        game.without(rest)
    elif command == "tokens":
        game.tokens = int(number("The number of tokens", rest))
    else:
        raise SpecError(f"There is no /{command}; /help shows what can be typed.")
    talk.console.print(Text(f"{game.words or 'nothing'}, {game.tokens} tokens", style="dim"))
    return True


def _lines(at_terminal: bool) -> Iterator[str]:
    if not at_terminal:
        yield from (line.rstrip("\n") for line in sys.stdin)
        return
    with suppress(ImportError):
        import readline  # noqa: F401  lines can be edited and called back where it is there
    while True:
        try:
            yield input("› ")
        except EOFError:
            return


def _as_json(reference: str, prompt: str, game: Game, answer: Answer) -> dict[str, Any]:
    price = answer.price
    return {
        "model": reference,
        "prompt": prompt,
        "concepts": [{"ref": version.ref, "dose": dose} for version, dose in game.concepts.items()],
        "unsteered": {"text": "".join(answer.unsteered), "perplexity": price.get("unsteered_perplexity")},
        "steered": {
            "text": "".join(text for text, _ in answer.steered),
            "perplexity": price.get("perplexity"),
            "kl": price.get("kl"),
            "tokens": [{"text": text, "kl": kl} for text, kl in answer.steered],
        },
    }
