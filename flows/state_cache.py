"""States that were captured before, found by their texts, whatever concept or corpus they were captured for.

The outputs of finished capture steps are the cache. Beside its states a capture leaves a list of its rows, each the
hash of a text, in a file whose name tells the reading: model, token position, precision, device, version of the code.
A later capture looks into all lists of its own reading and puts only texts through the model that stand in none.

So there is one copy of what a step needs and of what is cached, there whole or not at all, whoever is killed or writes
beside it, and no index that could disagree with the states: an output that is deleted, evicted or damaged is not found
and its texts are captured again. The price is that captures that overlap hold some rows twice. What all of them may
take is `CONTRANS_STATES_GB`, 10 by default; beyond it those not used for longest are evicted, but none that a run
holds. A finished pipeline does not need them again, see `flows.step.spared`. With 0 nothing is looked up, and the
captures of other runs go as soon as one is made.

States depend on what a text was batched with by rounding (a relative error below 1e-4 in float32), and those from here
were batched with others.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from contrans.errors import SpecError
from contrans.hashing import digest
from flows.store import Store

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

STATES = "states.safetensors"
LIMIT = "CONTRANS_STATES_GB"
_DEFAULT_GB = 10.0
_HASH = 32
"""Hexadecimal digits of a hash that are kept: 128 bits."""


@dataclass(frozen=True)
class Reading:
    """What decides a text's state besides the text.

    Attributes:
        model: fingerprint of the model.
        position: the token that is read, see `contrans.concepts.positions.TokenPosition`.
        precision: of the products, "float32" or "bfloat16".
        device: kind of the device.
        version: of the code that captures.
    """

    model: str
    position: str
    precision: str
    device: str
    version: int

    @property
    def index(self) -> str:
        """Name of the file that lists the rows of a capture of this reading."""
        which = [self.model, self.position, self.precision, self.device, self.version]
        return f"rows-{digest(which)[:_HASH]}.json"

    def row(self, text: str, answer: str = "") -> str:
        """Hash of a text as it is, and of the answer that it ends with where that is what is read."""
        read = [text, answer] if self.position == "answer" else [text]
        return digest(read)[:_HASH]


def limit() -> int:
    """Bytes that the states of all captures may take.

    Raises:
        SpecError: the environment variable is no number, or below 0.
    """
    said = os.environ.get(LIMIT, "").strip()
    try:
        gigabytes = float(said) if said else _DEFAULT_GB
        # NaN is not at least 0 either
        if not 0 <= gigabytes < float("inf"):
            raise ValueError
    except ValueError:
        raise SpecError(
            f"{LIMIT} is the number of gigabytes that captured states may take, not {said!r}; set it to a number such "
            f"as 10, or to 0 to keep none."
        ) from None
    return round(gigabytes * 1e9)


def index_of(rows: Sequence[str], blocks: Iterable[int], states: bytes) -> bytes:
    """The list of a capture's rows, as the content of `Reading.index`.

    Args:
        rows: of each state, in their order.
        blocks: whose states they are.
        states: the content of the file with the states.
    """
    listed = {"blocks": list(blocks), "rows": list(rows), "sha256": hashlib.sha256(states).hexdigest()}
    return json.dumps(listed).encode()


def locate(store: Store, reading: Reading, rows: Iterable[str], blocks: Sequence[int]) -> dict[Path, dict[str, int]]:
    """Which outputs list which of some rows for all blocks, and at which of their places; no row twice."""
    left = dict.fromkeys(rows)
    found: dict[Path, dict[str, int]] = {}
    if not limit():
        return found
    for path in store.files(reading.index):
        if not left:
            break
        listed = _listed(path)
        if listed is None or not set(blocks) <= set(listed["blocks"]):
            continue
        places = {row: at for at, row in enumerate(listed["rows"]) if row in left}
        if places:
            found[path] = places
            left = {row: None for row in left if row not in places}
    return found


def recall(
    store: Store, reading: Reading, rows: Iterable[str], blocks: Sequence[int]
) -> tuple[list[str], dict[int, torch.Tensor]]:
    """The states of those rows that were captured before.

    Args:
        store: the outputs of steps.
        reading: how they were read.
        rows: the rows wanted, of `Reading.row`.
        blocks: the blocks wanted; outputs that lack one of them are no help.

    Returns:
        The rows found, each once, and per block their states, float32 [found, d] in the same order; no blocks if none
        was found.
    """
    import torch

    found: list[str] = []
    parts: list[dict[int, torch.Tensor]] = []
    for path, places in locate(store, reading, rows, blocks).items():
        with store.holding([path.parent.name]):
            states = _states(path, list(places.values()), blocks)
        if states is not None:
            store.used(path.parent.name)
            found += places
            parts.append(states)
    return found, {b: torch.cat([part[b] for part in parts]) for b in blocks} if parts else {}


def _listed(path: Path) -> Mapping[str, list] | None:
    try:
        listed = json.loads(path.read_bytes())
        if not (isinstance(listed["blocks"], list) and isinstance(listed["rows"], list)):
            raise TypeError("it holds no rows")
        return listed
    except (OSError, ValueError, KeyError, TypeError) as error:
        log.warning("The list of captured texts %s cannot be read (%s); they are captured again.", path, error)
    return None


def _states(index: Path, places: Sequence[int], blocks: Sequence[int]) -> dict[int, torch.Tensor] | None:
    """Per block the states at some places of an output, or nothing if they are not what was written there."""
    from safetensors import SafetensorError, safe_open

    path = index.with_name(STATES)
    try:
        listed = json.loads(index.read_bytes())
        with path.open("rb") as file:
            whole = hashlib.file_digest(file, "sha256").hexdigest() == listed["sha256"]
        if whole:
            with safe_open(path, framework="pt") as file:
                # indexing copies, so that nothing hangs on the file
                return {b: file.get_tensor(str(b))[list(places)] for b in blocks}
        why = "its content has changed"
    except (OSError, SafetensorError, ValueError, KeyError, IndexError) as error:
        why = str(error)
    log.warning("The captured states %s cannot be used (%s); their texts are captured again.", path, why)
    return None
