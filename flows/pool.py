"""The two models of a pipeline: loaded once per process, and only when something must be computed."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from contrans.models import ModelRecord, resolve
from contrans.models.cache import remember, remembered
from flows.models import SHARED, Models
from flows.spec import Compute, PipelineSpec

if TYPE_CHECKING:
    from contrans.models import Model


class Pool:
    """Lends a pipeline its source and its target, on first use.

    Args:
        spec: The spec.
        say: Told what is being fetched, converted or loaded.
        models: Where loaded models are kept; those of the process by default.
    """

    def __init__(
        self, spec: PipelineSpec, *, say: Callable[[str], None] = lambda _: None, models: Models | None = None
    ) -> None:
        self._spec = spec
        self._say = say
        self._kept = SHARED if models is None else models
        self._models: dict[str, Model] = {}
        self._records: dict[str, ModelRecord] = {}

    def reference(self, side: str) -> str:
        """What the spec calls the model of "source" or "target"."""
        return self._spec.source if side == "source" else self._spec.target

    def get(self, side: str) -> "Model":
        """The model of a side.

        Raises:
            ModelError: It cannot be found, fetched, converted or read.
        """
        if side not in self._models:
            reference, compute = self.reference(side), self._spec.compute
            model = self._kept.lend(reference, compute, self, say=self._say)
            self._models[side] = model
            note_record(reference, compute.device, model.record)
        return self._models[side]

    def close(self) -> None:
        """Gives the models back, for the next pipeline that wants them."""
        self._models.clear()
        self._kept.give_back(self, self._spec.compute)

    def record(self, side: str) -> ModelRecord:
        """The identity of a side's model; loads it only if it was never loaded on this machine before."""
        if side not in self._records:
            known = known_record(self.reference(side), self._spec.compute.device)
            self._records[side] = known or self.get(side).record
        return self._records[side]


def known_record(reference: str, device: str) -> ModelRecord | None:
    """The record of a model that was loaded before, if its files have not changed since.

    Raises:
        ModelError: The reference names nothing.
    """
    note = remembered(_note(reference, device))
    if note is None:
        resolve(reference)  # for its error
        return None
    record = ModelRecord.from_json(json.loads(note))
    same = resolve(reference).known_fingerprint(dtype=record.dtype) == record.fingerprint
    return record if same else None


def note_record(reference: str, device: str, record: ModelRecord) -> None:
    """Keeps the record of a loaded model for `known_record`."""
    remember(_note(reference, device), json.dumps(record.to_json()))


def device_kind(device: str) -> str:
    """Which kind of device a setting means here ("cpu", "cuda", "mps"): the dtype of weights hangs on it."""
    if device != "auto":
        return device.partition(":")[0]
    if not Path("/dev/nvidiactl").exists():
        return "cpu"
    import torch  # slow, so only where there may be a GPU

    return "cuda" if torch.cuda.is_available() else "cpu"


def precision_here(compute: Compute) -> str:
    """The format that matrix products run in on this machine."""
    if compute.precision != "auto":
        return compute.precision
    import torch  # slow

    from contrans.states.precision import resolve_precision

    return resolve_precision(compute.precision, torch.device(device_kind(compute.device)))


def _note(reference: str, device: str) -> list[str]:
    resolved = resolve(reference)
    return ["model record", resolved.text, resolved.revision or "", device_kind(device)]
