"""One run at a time on a GPU: deployed runs hold a slot of the server's concurrency limit `gpu`."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from prefect.concurrency.asyncio import ConcurrencySlotAcquisitionError
from prefect.concurrency.sync import concurrency
from prefect.runtime import deployment

from contrans.errors import ContransError
from flows.pool import device_kind

LIMIT = "gpu"
_LEASE_SECONDS = 60  # after which the slot of a worker that was killed is free again


def deployed() -> bool:
    """Whether this run was started by a worker, and not by hand."""
    return deployment.id is not None


@contextmanager
def gpu_slot(device: str, *, needed: bool | None = None) -> Iterator[None]:
    """Holds a slot for as long as a run may keep models on a GPU; waits until one is free.

    Args:
        device: `compute.device` of a spec.
        needed: Whether a slot must be held where that is a GPU; by default in deployed runs.

    Raises:
        ContransError: The server has no such limit.
    """
    with ExitStack() as stack:
        if (deployed() if needed is None else needed) and device_kind(device) == "cuda":
            try:
                # A run outlives a server that is started anew, so that a lease cannot always be renewed.
                slot = concurrency(
                    LIMIT, strict=True, lease_duration=_LEASE_SECONDS, raise_on_lease_renewal_failure=False
                )
                stack.enter_context(slot)
            except ConcurrencySlotAcquisitionError as error:
                raise ContransError(
                    f"The server has no concurrency limit {LIMIT!r}, which keeps two runs from sharing a GPU; make it "
                    "with `contrans deploy`."
                ) from error
        yield
