"""Prompts as a chat model was trained to see them."""

from dataclasses import dataclass

from contrans.errors import SpecError, TextError
from contrans.models import Model


@dataclass(frozen=True)
class ChatFormat:
    """How one user turn is written, up to where the assistant begins to speak; BOS is left to the tokenizer.

    Attributes:
        before: what stands before the user's words; `{system}` is the place of the system part.
        after: what stands between the user's words and the assistant's.
        system: the system part, with `{system}` for its words; left out where there are none.
        default: the system words that are part of the format where the caller gives none.
    """

    before: str
    after: str
    system: str
    default: str = ""

    def fill(self, prompt: str, system: str | None = None) -> str:
        """The text of a prompt; `system` "" leaves the system part out."""
        words = self.default if system is None else system
        part = self.system.replace("{system}", words) if words else ""
        return self.before.replace("{system}", part) + prompt + self.after


CHAT_FORMATS = {
    "alpaca": ChatFormat(
        before="{system}### Instruction:\n",
        after="\n\n### Response:\n",
        system="{system}\n\n",
        default="Below is an instruction that describes a task. "
        "Write a response that appropriately completes the request.",
    ),
    "chatml": ChatFormat(
        before="{system}<|im_start|>user\n",
        after="<|im_end|>\n<|im_start|>assistant\n",
        system="<|im_start|>system\n{system}<|im_end|>\n",
    ),
    "gemma": ChatFormat(
        before="<start_of_turn>user\n{system}",
        after="<end_of_turn>\n<start_of_turn>model\n",
        system="{system}\n\n",
    ),
    "llama2": ChatFormat(before="[INST] {system}", after=" [/INST]", system="<<SYS>>\n{system}\n<</SYS>>\n\n"),
    "vicuna": ChatFormat(
        before="{system}USER: ",
        after=" ASSISTANT:",
        system="{system} ",
        default="A chat between a curious user and an artificial intelligence assistant. "
        "The assistant gives helpful, detailed, and polite answers to the user's questions.",
    ),
    "zephyr": ChatFormat(
        before="{system}<|user|>\n",
        after="</s>\n<|assistant|>\n",
        system="<|system|>\n{system}</s>\n",
    ),
}
"""Formats by name, for a model whose tokenizer brings no chat template or not the one it was tuned with."""


def as_chat(model: Model, prompt: str, *, template: str = "model", system: str | None = None) -> str:
    """A prompt as the user's turn of a chat, up to where the assistant begins to speak.

    Args:
        model: whose tokenizer's template to use, for "model".
        prompt: what the user says.
        template: "model" for the tokenizer's own chat template, "none" for the prompt as it is (base models), or
            a key of `CHAT_FORMATS`.
        system: the system prompt; the format's own if None.

    Returns:
        The text. If it begins with the tokenizer's BOS (see `begins_with_bos`), tokenise it without special tokens.

    Raises:
        SpecError: unknown template, or a system prompt with "none".
        TextError: the tokenizer has no chat template, or its template refuses these turns.
    """
    if template == "none":
        if system is not None:
            raise SpecError(
                'A system prompt needs a chat template; name one, or leave the system prompt out with "none".'
            )
        return prompt
    if template in CHAT_FORMATS:
        return CHAT_FORMATS[template].fill(prompt, system)
    if template != "model":
        raise SpecError(f'The chat template {template!r} is not known; use "model", "none", {", ".join(CHAT_FORMATS)}.')
    if not model.tokenizer.chat_template:
        raise TextError(
            f"{model.name} has no chat template of its own; name one of {', '.join(CHAT_FORMATS)}, or use "
            f'"none" for a base model.'
        )
    from jinja2.exceptions import TemplateError

    turns = [{"role": "user", "content": prompt}]
    if system is not None:
        turns.insert(0, {"role": "system", "content": system})
    try:
        return str(model.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))
    except TemplateError as error:
        raise TextError(
            f"The chat template of {model.name} refuses this prompt ({error}); name another one."
        ) from error


def begins_with_bos(model: Model, text: str) -> bool:
    """Whether a text already holds the BOS that the tokenizer would put before it."""
    bos = model.tokenizer.bos_token
    return isinstance(bos, str) and bool(bos) and text.startswith(bos)
