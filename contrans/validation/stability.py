"""Does a transplant still work after hundreds of tokens and several turns, and does the text hold together?

A model writes long texts, or answers several user turns, under each arm. Every window of the text is then read by the
*unsteered* model: the mean projection of its residual stream on the concept's direction, less that of the unsteered
model's own text, is the effect. Read in the steered model itself, the projection would hold the shift that was just
added, whatever the text says. Loops, distinct-2 and the unsteered model's perplexity show whether it is still text.
"""

import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import copy
from dataclasses import asdict
from itertools import accumulate, pairwise
from typing import Any

import torch

from contrans.errors import SpecError, StateError, TextError
from contrans.models import Model
from contrans.states.capturing import check_blocks
from contrans.validation.conversations import converse
from contrans.validation.generation import SAMPLING, Continuation, Progress, Sampling, Shifts, continue_prompts
from contrans.validation.reading import read_back, vocabulary_size
from contrans.validation.stability_result import UNSTEERED, StabilityResult, verdict
from contrans.validation.text_measures import (
    LIMITS,
    Limits,
    distinct_n,
    is_degenerate,
    relative_surprise,
    repetition,
    words,
)
from contrans.validation.windows import ReadText, Window, window_bounds, window_rows

log = logging.getLogger(__name__)

Scorer = Callable[[str], float]
"""How much of the concept a window's text shows, any finite number."""


def mentions(names: Sequence[str]) -> Scorer:
    """A scorer: 1 if a text holds one of these words, whatever their case, else 0."""
    wanted = {n.casefold() for n in names}
    return lambda text: float(bool(wanted & set(words(text))))


class Stability:
    """Long texts and conversations of one model, judged window by window.

    Attributes:
        model: the model.
        block: the block that the texts are read at.
    """

    def __init__(
        self,
        model: Model,
        *,
        block: int,
        direction: torch.Tensor,
        residual_norm: float,
        scorer: Scorer | None = None,
        positions: str = "all",
        batch_size: int = 8,
        seed: int = 0,
        sampling: Sampling | None = SAMPLING,
        limits: Limits = LIMITS,
        progress: Progress | None = None,
    ) -> None:
        """Nothing is generated yet.

        Args:
            model: the model.
            block: the block at which texts are read, usually the one that is shifted.
            direction: the concept's direction there [d], of any length.
            residual_norm: median norm of the residual stream there, the unit of the effect.
            scorer: how much of the concept a window's text shows; the verdict then goes by it.
            positions: where shifts are added.
            batch_size: texts generated at once.
            seed: of sampling and of the bootstrap.
            sampling: how tokens are drawn; None is greedy decoding, under which small models loop without any shift
                (Holtzman et al. 2020, arXiv 1904.09751).
            limits: from where on a window is degenerate.
            progress: called after every batch of generation.

        Raises:
            BlockError: no such block.
            StateError: the direction is not one of this model's, zero or not finite.
        """
        check_blocks(model, [block])
        if not 0 < residual_norm < math.inf:
            raise StateError(f"A residual norm of {residual_norm} is no unit; give the vector's own, above zero.")
        self.model, self.block = model, block
        self._unit = _unit(model, direction)
        self._unsteered: dict[tuple[Any, ...], list[Continuation]] = {}
        self._residual_norm, self._scorer, self._limits, self._seed = residual_norm, scorer, limits, seed
        self._settings: dict[str, Any] = {
            "positions": positions,
            "batch_size": batch_size,
            "sampling": sampling,
            "progress": progress,
        }

    def along(self, direction: torch.Tensor) -> "Stability":
        """The same with texts read along another concept's direction [d]; what the unsteered model writes is shared.

        Raises:
            StateError: the direction is not one of this model's, zero or not finite.
        """
        other = copy(self)
        other._unit = _unit(self.model, direction)
        return other

    def long_texts(
        self,
        prompts: Sequence[str],
        shifts: Mapping[str, Shifts | None],
        *,
        max_new_tokens: int = 512,
        window: int = 64,
        to_the_end: bool = False,
        special_tokens: bool = True,
    ) -> StabilityResult:
        """Continues prompts at length under every arm.

        Args:
            prompts: what is continued.
            shifts: per arm its shift, [d] per block; the unsteered model is added if it is not there.
            max_new_tokens: tokens of each text.
            window: tokens of one window; a text's last one counts if at least half of it is written.
            to_the_end: whether the end of sequence is held back, so that all texts reach the last window.
            special_tokens: whether the tokenizer puts its BOS before; False for a chat template's text.

        Raises:
            TextError: there are no prompts, one does not fit, or the unsteered model writes nothing.
            SpecError: the window is empty, or longer than a text; or the scorer gives no number.
        """
        if not 1 <= window <= max_new_tokens:
            raise SpecError(
                f"Windows of {window} tokens do not fit texts of {max_new_tokens}; give 1 to {max_new_tokens}."
            )
        if not prompts:
            raise TextError("There are no prompts to continue; give at least one.")
        shared = (tuple(prompts), max_new_tokens, to_the_end, special_tokens)
        texts: dict[str, list[ReadText]] = {}
        for arm, shift in _with_unsteered(shifts).items():
            written = self._unsteered.get(shared) if shift is None else None
            written = written or continue_prompts(
                self.model,
                prompts,
                shift=shift,
                max_new_tokens=max_new_tokens,
                min_new_tokens=max_new_tokens if to_the_end else 0,
                seed=self._seed,
                special_tokens=special_tokens,
                **self._settings,
            )
            if shift is None:
                self._unsteered[shared] = written
            texts[arm] = [self._read([w], window_bounds(len(w.ids), window)) for w in written]
        spans = list(window_bounds(max_new_tokens, window))
        return self._result(texts, spans, "token", {"max_new_tokens": max_new_tokens, "window": window})

    def conversations(
        self,
        turns: Sequence[Sequence[str]],
        shifts: Mapping[str, Shifts | None],
        *,
        max_new_tokens: int = 64,
    ) -> StabilityResult:
        r"""Answers the user turns of each conversation, one after the other, under every arm; a window is one reply.

        Args:
            turns: per conversation what the user says; put into the tokenizer's chat template, or else as
                `User: …\nAssistant:`.
            shifts: per arm its shift, [d] per block; the unsteered model is added if it is not there.
            max_new_tokens: most tokens of a reply.

        Raises:
            TextError: there are no turns, a conversation does not fit, or the unsteered model answers nothing.
            SpecError: the scorer gives no number.
        """
        if not turns or not all(turns) or not all(said.strip() for one in turns for said in one):
            raise TextError("A conversation has no user turns, or an empty one; give every one at least one turn.")
        texts: dict[str, list[ReadText]] = {}
        for arm, shift in _with_unsteered(shifts).items():
            replies = converse(
                self.model, turns, shift, max_new_tokens=max_new_tokens, seed=self._seed, **self._settings
            )
            texts[arm] = [
                self._read(one, pairwise(accumulate((len(r.ids) for r in one), initial=0))) for one in replies
            ]
        spans = [(t, t + 1) for t in range(max(map(len, turns)))]
        return self._result(texts, spans, "turn", {"max_new_tokens": max_new_tokens})

    def _read(self, written: Sequence[Continuation], bounds: Iterable[tuple[int, int]]) -> ReadText:
        """Reads one text, or the replies of one conversation, each after its own prompt."""
        ids = [token for one in written for token in one.ids]
        nll, projection = torch.empty(0), torch.empty(0)
        for one in written:
            if one.ids:
                surprise, states = read_back(self.model, one.prompt_ids, one.ids, block=self.block)
                assert states is not None
                nll = torch.cat([nll, surprise])
                projection = torch.cat([projection, states @ self._unit])
        parts: list[str] = []
        windows: dict[int, Window] = {}
        for k, (a, b) in enumerate(bounds):
            parts.append(str(self.model.tokenizer.decode(ids[a:b], skip_special_tokens=True)))
            if b > a:
                relative = relative_surprise(nll[a:b], vocabulary_size(self.model))
                metrics = {
                    "repetition": repetition(ids[:b], start=a),
                    "distinct_2": distinct_n([ids[a:b]], 2),
                    "degenerate": float(is_degenerate(ids[:b], start=a, surprise=relative, limits=self._limits)),
                }
                if self._scorer is not None:
                    metrics["score"] = _scored(self._scorer, parts[k], k)
                along = float(projection[a:b].mean()) / self._residual_norm
                windows[k] = Window(b - a, float(nll[a:b].double().mean()), along, metrics)
        return ReadText(parts, windows)

    def _result(
        self, texts: dict[str, list[ReadText]], spans: list[tuple[int, int]], unit: str, settings: dict[str, Any]
    ) -> StabilityResult:
        if not any(t.windows for t in texts[UNSTEERED]):
            raise TextError(
                f"The unsteered {self.model.name} writes nothing after these prompts, so there is nothing to compare "
                f"with; give others, or hold back the end of sequence."
            )
        for arm, arm_texts in texts.items():
            if not any(t.windows for t in arm_texts):
                log.warning("Under %s all texts are empty, so no effect can be measured.", arm)
        rows = [
            row
            for arm, arm_texts in texts.items()
            for row in window_rows(arm, arm_texts, texts[UNSTEERED], spans, seed=self._seed)
        ]
        verdicts = {arm: verdict(rows, arm, unit) for arm in texts if arm != UNSTEERED}
        sampling: Sampling | None = self._settings["sampling"]
        about = {
            "model": self.model.name,
            "block": self.block,
            "residual_norm": self._residual_norm,
            "seed": self._seed,
            "positions": self._settings["positions"],
            "sampling": None if sampling is None else asdict(sampling),
        }
        parts = {arm: [t.parts for t in arm_texts] for arm, arm_texts in texts.items()}
        return StabilityResult(rows, verdicts, unit, parts, about | settings)


def _unit(model: Model, direction: torch.Tensor) -> torch.Tensor:
    length = float(direction.double().norm())
    if direction.shape != (model.hidden_size,) or not 0 < length < math.inf:
        raise StateError(
            f"The direction of shape {tuple(direction.shape)} is none of {model.name}, which needs "
            f"{model.hidden_size} finite values that are not all zero; refine it there or map it there."
        )
    return (direction.double() / length).float().cpu()


def _scored(scorer: Scorer, text: str, window: int) -> float:
    score = float(scorer(text))
    if not math.isfinite(score):
        raise SpecError(
            f"The scorer gives {score} for window {window} ({text[:30]!r}…); it must give a finite number for any text."
        )
    return score


def _with_unsteered(shifts: Mapping[str, Shifts | None]) -> dict[str, Shifts | None]:
    if shifts.get(UNSTEERED) is not None:
        raise SpecError(f"The arm {UNSTEERED!r} has a shift; give it another name.")
    return {UNSTEERED: None, **shifts}
