"""What a transplant must know of `generate`: when a generation begins, and decoding that hides its positions."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import wraps
from inspect import signature
from typing import Any

from contrans.errors import SpecError
from contrans.transplants.scope import WITHOUT_PROMPT

# whatever makes transformers decode with candidate tokens (GenerationConfig.get_generation_mode)
_ASSISTED = ("assistant_model", "prompt_lookup_num_tokens", "assistant_early_exit", "use_mtp")
# settings that mix other passes among those of the prompt and its continuation, and the value that does nothing
_MIXING = {"prefill_chunk_size": None, "guidance_scale": 1}


@contextmanager
def watching(module: Any, name: str, positions: str, begins: Callable[[], None]) -> Iterator[None]:
    """Has a model's `generate` say when a generation begins and when it is over, and refuse what cannot be steered.

    Forward passes alone do not tell a second generation that goes on from a kept cache from the first one, nor
    candidate tokens from a prompt; the call of `generate` does.

    Args:
        module: the transformers model, compiled or not.
        name: what the model is called in messages.
        positions: the transplant's scope.
        begins: called before and after every generation.
    """
    # a compiled model hands its methods on from the module inside
    owner = getattr(module, "_orig_mod", module)

    def watched(inner: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(inner)
        def generate(*args: Any, **settings: Any) -> Any:
            check_decoding(name, positions, _settings(owner, inner, args, settings))
            begins()
            try:
                return inner(*args, **settings)
            finally:
                begins()

        return generate

    def refused(inner: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(inner)
        def packed(*args: Any, **settings: Any) -> Any:
            raise SpecError(
                f"Continuous batching packs several texts into one row, so a transplant in {name} cannot tell their "
                f"tokens apart; generate with `generate` and a left-padded batch."
            )

        return packed

    with ExitStack() as stack:
        stack.enter_context(_shadowed(owner, "generate", watched))
        stack.enter_context(_shadowed(owner, "init_continuous_batching", refused))
        yield


def check_decoding(name: str, positions: str, setting: Callable[[str], Any]) -> None:
    """Refuses ways of decoding under which a transplant would act at the wrong tokens.

    Args:
        name: what the model is called in messages.
        positions: the transplant's scope.
        setting: gives a setting of the generation by its name, None where it is not set.

    Raises:
        SpecError: the decoding is assisted or speculative; or positions matter and the prompt is read in chunks, or
            twice (classifier-free guidance).
    """
    assisted = [key for key in _ASSISTED if setting(key) not in (None, False)]
    if assisted:
        raise SpecError(
            f"Assisted or speculative decoding ({assisted[0]}) reads candidate tokens with the prompt and takes some "
            f"back, so a transplant in {name} cannot tell what was generated; generate without it."
        )
    mixing = [key for key, off in _MIXING.items() if setting(key) not in (None, off)]
    if positions not in WITHOUT_PROMPT and mixing:
        raise SpecError(
            f"With {mixing[0]}, forward passes do not follow each other from the prompt on, so where it ends is not "
            f'known, which positions="{positions}" needs; leave the setting out, or use positions="all".'
        )


def _settings(owner: Any, inner: Callable[..., Any], args: tuple, settings: Mapping[str, Any]) -> Callable[[str], Any]:
    given = {**signature(inner).bind_partial(*args, **settings).arguments, **settings}
    configs = [c for c in (given.get("generation_config"), getattr(owner, "generation_config", None)) if c is not None]

    def setting(key: str) -> Any:
        values = [given.get(key), *(getattr(config, key, None) for config in configs)]
        return next((value for value in values if value is not None), None)

    return setting


@contextmanager
def _shadowed(owner: Any, name: str, around: Callable[[Callable[..., Any]], Callable[..., Any]]) -> Iterator[None]:
    """Puts another method before an object's own, in the instance, and takes it away again."""
    own = getattr(owner, name, None)
    if own is None:
        yield
        return
    before = vars(owner).get(name)
    setattr(owner, name, around(own))
    try:
        yield
    finally:
        if before is None:
            delattr(owner, name)
        else:
            setattr(owner, name, before)
