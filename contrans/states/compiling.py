"""Blocks whose forward passes are compiled for as long as states are read."""

import logging
from collections.abc import Callable

import torch

from contrans.errors import SpecError
from contrans.models import Model
from contrans.models.forwards import replaced_forwards

log = logging.getLogger(__name__)


class CompiledBlocks:
    """Blocks run by `torch.compile`, with our hooks around them; nothing of the model is changed for longer.

    The first batch takes the time to compile, some tens of seconds on a CPU, where little is won; blocks of one kind
    share one compilation, whatever the shapes of batches.

    Args:
        model: the model to read.
        deepest: number of the last block that runs.
        precision: of products.

    Raises:
        SpecError: products are not in float32.
    """

    def __init__(self, model: Model, deepest: int, precision: str) -> None:
        if precision != "float32":
            raise SpecError(f"Compiled blocks multiply in float32, not {precision}; use one of both.")
        self._name = model.name
        blocks = dict.fromkeys(list(model.blocks)[: deepest + 1])
        self._forwards = {block: torch.compile(block.forward, dynamic=True) for block in blocks}

    def run(self, read: Callable[[], None]) -> None:
        """Reads a batch with compiled blocks; once more without, and from then on, where they cannot be compiled."""
        if self._forwards:
            from torch._dynamo.exc import TorchDynamoException

            try:
                with replaced_forwards(self._forwards):
                    read()
                return
            except TorchDynamoException as error:
                self._forwards = {}
                reason = str(error).strip().partition("\n")[0]
                log.warning("%s is captured without torch.compile, which fails: %s", self._name, reason)
        read()
