"""Where a model keeps its decoder blocks: found by the shape of the module tree, not by a list of names."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn
from transformers import PretrainedConfig

from contrans.errors import ModelError


@dataclass(frozen=True)
class BlockLayout:
    """The place and size of a model's residual stream.

    Attributes:
        path: Module path of the list of blocks, e.g. "model.layers".
        container_path: Module path of the stack that turns token ids into states and owns the blocks, e.g.
            "model"; "" for the model itself.
        count: Number of blocks.
        hidden_size: Width of the residual stream, which every block maps to itself.
        shared: Where blocks share weights (ALBERT), for each block the module of the list that runs as it; empty
            where every block is a module of its own.
    """

    path: str
    container_path: str
    count: int
    hidden_size: int
    shared: tuple[int, ...] = ()


def find_blocks(module: nn.Module) -> BlockLayout:
    """Finds the list of decoder blocks of a transformers model.

    The blocks are the `ModuleList` that is as long as the text configuration says, that lies in no
    other block, and that lies nearest to the token embedding in the module tree. So the text tower wins
    over a vision tower of equal depth, and the decoder over the encoder, without a list of names. An encoder
    without a decoder is read as it is, also where its blocks share the weights of fewer groups.

    Args:
        module: A model of transformers (any object with `config` and a module tree).

    Raises:
        ModelError: No list, or more than one, fits; the message shows the module tree.
    """
    config = getattr(module, "config", None)
    if config is None:
        raise ModelError(
            f"{type(module).__name__} has no config, so its blocks cannot be told; pass a transformers model."
        )
    text: Any = config.get_text_config(decoder=True) if isinstance(config, PretrainedConfig) else config
    count, hidden_size = getattr(text, "num_hidden_layers", None), getattr(text, "hidden_size", None)
    if not isinstance(count, int) or not isinstance(hidden_size, int):
        raise _unreadable(module, "its configuration names no number of layers or no hidden size")

    groups = getattr(text, "num_hidden_groups", None)
    outermost = _outermost_lists(module, count, hidden_size)
    shared: tuple[int, ...] = ()
    if not outermost and isinstance(groups, int) and 0 < groups < count:
        outermost = _outermost_lists(module, groups, hidden_size)
        # the expression of ALBERT's own forward pass, whose rounding decides which group runs as which block
        shared = tuple(int(i / (count / groups)) for i in range(count))
    stacks: list[str] = []
    if getattr(config, "is_encoder_decoder", False):
        stacks = _paths_of(module, _part(module, "get_decoder"))
        inside = [path for path in outermost if any(path.startswith(f"{stack}.") for stack in stacks)]
        outermost = inside or outermost
    if not outermost:
        raise _unreadable(module, f"it has no list of {count} blocks of width {hidden_size}")
    # A decoder beside an encoder counts as an embedding's place: the one they share lies above both.
    embeddings = stacks + _paths_of(module, _part(module, "get_input_embeddings")) or [""]
    container = {path: max((_common(path, other) for other in embeddings), key=len) for path in outermost}
    # Nearest: the deepest common parent, then the fewest steps below it (a vision tower may hang below
    # the same parent, but it comes wrapped in modules of its own).
    distance = {path: (-len(container[path]), path.count(".")) for path in outermost}
    nearest = [path for path in outermost if distance[path] == min(distance.values())]
    if len(nearest) > 1:
        raise _unreadable(module, f"{' and '.join(nearest)} could each be its blocks")
    [path] = nearest
    return BlockLayout(path, ".".join(container[path]), count, hidden_size, shared)


def block_list(module: nn.Module, layout: BlockLayout) -> list[nn.Module]:
    """Returns the blocks of a model in order of execution; a module that runs as several blocks stands there often."""
    modules = list(module.get_submodule(layout.path).children())
    return [modules[i] for i in layout.shared] if layout.shared else modules


def module_tree(module: nn.Module, *, depth: int = 2) -> str:
    """Describes a module tree down to `depth` levels, with the length of each list."""

    def describe(child: nn.Module, level: int) -> Iterator[str]:
        for name, inner in child.named_children():
            size = f"[{len(inner)}]" if isinstance(inner, nn.ModuleList) else ""
            nested = ", ".join(describe(inner, level + 1)) if level < depth and not size else ""
            yield f"{name}: {type(inner).__name__}{size}" + (f" ({nested})" if nested else "")

    return ", ".join(describe(module, 1)) or "no children"


def _outermost_lists(module: nn.Module, length: int, hidden_size: int) -> list[str]:
    lists = [
        path
        for path, child in module.named_modules(remove_duplicate=False)
        if isinstance(child, nn.ModuleList) and len(child) == length and _are_blocks(child, hidden_size)
    ]
    return [path for path in lists if not any(path.startswith(f"{other}.") for other in lists)]


def _are_blocks(candidates: nn.ModuleList, hidden_size: int) -> bool:
    # A block maps the residual stream to itself, so it has parts of its own and weights that read or
    # write that width; a list of norms, projections or experts of another width does not.
    for block in candidates:
        if not any(True for _ in block.children()):
            return False
        if not any(hidden_size in parameter.shape for parameter in block.parameters()):
            return False
    return True


def _part(module: Any, getter: str) -> nn.Module | None:
    try:
        return getattr(module, getter)()
    except (AttributeError, NotImplementedError):
        return None


def _paths_of(module: nn.Module, wanted: nn.Module | None) -> list[str]:
    # With duplicates: an encoder-decoder shows one embedding at several places.
    return [path for path, child in module.named_modules(remove_duplicate=False) if path and child is wanted]


def _common(path: str, other: str) -> tuple[str, ...]:
    common: list[str] = []
    for left, right in zip(path.split("."), other.split("."), strict=False):
        if left != right:
            break
        common.append(left)
    return tuple(common)


def _unreadable(module: nn.Module, why: str) -> ModelError:
    return ModelError(
        f"The decoder blocks of {type(module).__name__} cannot be found: {why}. Its module tree is "
        f"{module_tree(module)}. Load a decoder whose blocks stand in one list, or another class."
    )
