"""What does a model answer, user turn after user turn, under a shift?"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from contrans.models import Model
from contrans.validation.generation import Continuation, Shifts, continue_prompts

_NEXT_TURN = "\nUser:"


def converse(
    model: Model, turns: Sequence[Sequence[str]], shift: Shifts | None, *, seed: int = 0, **settings: Any
) -> list[list[Continuation]]:
    r"""Answers the user turns of several conversations, one after the other, with all replies before in the prompt.

    Args:
        model: the model that answers.
        turns: per conversation what the user says; put into the tokenizer's chat template, or else as
            `User: …\nAssistant:`.
        shift: per block what is added to its output [d]; None for the unsteered model.
        seed: of sampling.
        settings: of `continue_prompts`.

    Returns:
        Per conversation one reply to every turn.

    Raises:
        TextError: a conversation does not fit into the context.
    """
    tokenizer: Any = model.tokenizer
    chat = bool(tokenizer.chat_template)
    stop = None if chat else (lambda ids: _NEXT_TURN in tokenizer.decode(list(ids), skip_special_tokens=True))
    histories: list[list[dict[str, str]]] = [[] for _ in turns]
    replies: list[list[Continuation]] = [[] for _ in turns]
    for t in range(max(map(len, turns))):
        going = [i for i, said in enumerate(turns) if t < len(said)]
        for i in going:
            histories[i].append({"role": "user", "content": turns[i][t]})
        written = continue_prompts(
            model,
            [_prompt(tokenizer, histories[i]) for i in going],
            shift=shift,
            # turns draw from streams of their own
            seed=seed + 7919 * t,
            special_tokens=not chat,
            stop=stop,
            **settings,
        )
        for i, one in zip(going, written, strict=True):
            reply = one if chat else _before_next_turn(one, tokenizer)
            histories[i].append({"role": "assistant", "content": reply.text.strip()})
            replies[i].append(reply)
    return replies


def _prompt(tokenizer: Any, history: Sequence[dict[str, str]]) -> str:
    if tokenizer.chat_template:
        return str(tokenizer.apply_chat_template(list(history), tokenize=False, add_generation_prompt=True))
    said = (f"{m['role'].capitalize()}: {m['content']}\n" for m in history)
    return f"{''.join(said)}Assistant:"


def _before_next_turn(reply: Continuation, tokenizer: Any) -> Continuation:
    """A reply without the user's next turn, which a model without a chat template writes by itself."""
    said = reply.text.partition(_NEXT_TURN)[0]
    ids = list(reply.ids)
    while len(text := str(tokenizer.decode(ids, skip_special_tokens=True))) > len(said):
        ids.pop()
    return replace(reply, ids=ids, text=text)
