"""Models that stay loaded: a process keeps those it used last, as many as their memory allows.

A model is lent to one pipeline at a time, since steering puts hooks into it; a second pipeline that wants it at the
same moment, in another thread, gets a copy of its own. One that is given back stays for the next, until memory is
wanted: then those that were not used for longest go.
"""

import gc
import logging
import os
import sys
import threading
import weakref
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from contrans.errors import SpecError
from contrans.models import resolve
from contrans.models.cache import stamp

if TYPE_CHECKING:
    from contrans.models import Model
    from flows.spec import Compute

log = logging.getLogger(__name__)

LIMIT = "CONTRANS_MODELS_GB"
SHARE_OF_MEMORY, SHARE_OF_GPU = 0.5, 0.6
"""What loaded models may take of a machine's memory, or of its GPUs', where nobody says otherwise."""
_CGROUP = Path("/sys/fs/cgroup/memory.max")


@dataclass(eq=False)
class _Kept:
    reference: str
    key: tuple[object, ...]
    stamp: object
    model: "Model"
    size: float
    device: str
    holder: "weakref.ref[object] | None"

    @property
    def idle(self) -> bool:
        return self.holder is None or self.holder() is None


class Models:
    """The loaded models of a process.

    Attributes:
        loads: how often each model was loaded, by its reference.
    """

    def __init__(self) -> None:
        self.loads: Counter[str] = Counter()
        self._kept: list[_Kept] = []  # the one used last at the end
        self._coming: dict[str, int] = {}
        self._lock = threading.RLock()

    def lend(self, reference: str, compute: "Compute", holder: object, *, say: Callable[[str], None]) -> "Model":
        """A model for a pipeline, loaded unless it is here and nobody else has it.

        Args:
            reference: the model.
            compute: where it is to run, and how much memory there is.
            holder: whoever uses it, until it gives it back or is no more.
            say: told what is being fetched, converted or loaded.

        Raises:
            ModelError: it cannot be found, fetched, converted or read.
            SpecError: the environment's memory is no number.
        """
        from flows.pool import device_kind

        most, device = budget(compute), device_kind(compute.device)
        resolved = resolve(reference)
        key = (resolved.text, resolved.revision, compute.device, compute.device_map)
        with self._lock:
            found = next((k for k in self._kept if k.key == key and (k.idle or _holds(k, holder))), None)
            if found is not None and found.stamp == _stamp(reference):
                found.holder = weakref.ref(holder)
                self._kept.remove(found)
                self._kept.append(found)
                return found.model
            self._make_room(most - (size_of(reference, compute) or 0.0), device, gone=found)
        from contrans.models import load_model

        model = load_model(reference, device=compute.device, device_map=compute.device_map, progress=say)
        with self._lock:
            self.loads[reference] += 1
            size = sum(p.numel() * p.element_size() for p in model.module.parameters()) * _copies(compute)
            self._kept.append(_Kept(reference, key, _stamp(reference), model, size, device, weakref.ref(holder)))
            self._make_room(most, device)
        return model

    def give_back(self, holder: object, compute: "Compute") -> None:
        """Takes back what was lent to somebody, and lets go of what is too much."""
        from flows.pool import device_kind

        with self._lock:
            for kept in self._kept:
                if _holds(kept, holder):
                    kept.holder = None
            self._make_room(budget(compute), device_kind(compute.device))

    def expect(self, references: Iterable[str]) -> None:
        """Tells which models will be wanted, in this order: when memory is short, those wanted last go first.

        Args:
            references: as they will be asked for; those that are not named go before all others.
        """
        with self._lock:
            self._coming = {}
            for at, reference in enumerate(references):
                self._coming.setdefault(reference, at)

    def clear(self) -> None:
        """Lets go of every model that nobody uses."""
        with self._lock:
            self._kept = [kept for kept in self._kept if not kept.idle]
        _free()

    def _make_room(self, most: float, device: str, *, gone: _Kept | None = None) -> None:
        """Lets models of a device go until the others take no more bytes than this."""
        before = len(self._kept)
        if gone is not None and gone.idle:
            self._kept.remove(gone)  # its files have changed
        # sorting keeps those that were not used for longest first
        for kept in sorted(self._kept, key=lambda k: -self._coming.get(k.reference, sys.maxsize)):
            if sum(k.size for k in self._kept if k.device == device) <= most:
                break
            if kept.idle and kept.device == device:
                self._kept.remove(kept)
                log.debug("%s leaves the memory.", kept.model.name)
        if len(self._kept) < before:
            _free()


SHARED = Models()
"""The models of this process."""


def budget(compute: "Compute") -> float:
    """Bytes that loaded models may take: what the spec says, or the environment, or a share of the machine's memory.

    Raises:
        SpecError: the environment's memory is no number, or not above 0.
    """
    if compute.memory_gb is not None:
        return compute.memory_gb * 1e9
    said = os.environ.get(LIMIT, "").strip()
    if said:
        try:
            gigabytes = float(said)
        except ValueError:
            gigabytes = 0.0
        # NaN is not above 0 either
        if not 0 < gigabytes < float("inf"):
            raise SpecError(
                f"{LIMIT} is the number of gigabytes that loaded models may take, not {said!r}; set it to a number "
                f"such as 16."
            )
        return gigabytes * 1e9
    from flows.pool import device_kind

    return _of_gpus(compute) if device_kind(compute.device) == "cuda" else SHARE_OF_MEMORY * _memory()


def size_of(reference: str, compute: "Compute") -> float | None:
    """Bytes that a model is expected to take when it is loaded, copies of its weights included; None if unknown."""
    from flows.pool import device_kind

    facts = resolve(reference).facts()
    if facts is None or facts.parameters is None:
        return None
    return facts.parameters * (4 if device_kind(compute.device) == "cpu" else 2) * _copies(compute)


def _copies(compute: "Compute") -> float:
    from flows.pool import device_kind, precision_here

    # products in bf16 keep a second, half-sized copy of float32 weights
    return 1.5 if device_kind(compute.device) == "cpu" and precision_here(compute) == "bfloat16" else 1.0


def _holds(kept: _Kept, holder: object) -> bool:
    return kept.holder is not None and kept.holder() is holder


def _stamp(reference: str) -> object:
    folder = resolve(reference).folder()
    files = [*folder.glob("*.safetensors"), *folder.glob("*.bin"), folder / "config.json"] if folder else []
    return stamp(path for path in files if path.is_file())


def _memory() -> float:
    whole = float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    try:
        return min(whole, float(_CGROUP.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return whole  # no limit, which is written "max"


def _of_gpus(compute: "Compute") -> float:
    import torch

    if compute.device_map is not None:
        devices = list(range(torch.cuda.device_count()))
    else:
        devices = [torch.device("cuda" if compute.device == "auto" else compute.device)]
    return SHARE_OF_GPU * sum(torch.cuda.get_device_properties(device).total_memory for device in devices)


def _free() -> None:
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
