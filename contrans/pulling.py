"""Concepts from the Hub, through whatever package provides them: contrans itself knows no registry."""

from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING

from contrans.errors import RegistryError

if TYPE_CHECKING:
    from contrans.concepts import ConceptVector
    from contrans.models import Model


def pull(
    reference: str, *, target: "Model | str | Path | None" = None, allow_mismatch: bool = False
) -> "ConceptVector":
    """Pulls a published concept vector from the Hub, every hash checked, and notes it in your registry.

    Args:
        reference: "ORG/REPO", or with "@" and a tag or commit.
        target: the model to put it into, for its transplant; the source's own vector if None.
        allow_mismatch: take a transplant that was made for other weights of the target too.

    Raises:
        ContransError: the repository cannot be read, is not what it says, or has nothing for the target.
    """
    found = [*entry_points(group="contrans.provided", name="pull")]
    if not found:
        raise RegistryError("Nothing here can pull from the Hub; install contrans again with `pip install contrans`.")
    return found[0].load()(reference, target=target, allow_mismatch=allow_mismatch)
