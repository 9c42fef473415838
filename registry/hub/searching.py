"""Which concepts others have published."""

from dataclasses import dataclass
from typing import Any

from registry.hub.card import concept_of
from registry.hub.client import Patience, api, insist, sentences

_TAG = "contrans"
_BASE = "base_model:"


@dataclass(frozen=True)
class Found:
    """A repository of a published concept.

    Attributes:
        repo: "org/name".
        concept: what its card names.
        base_models: the models that it has vectors for, as its card names them.
        downloads: in the last month.
        likes: of people.
        updated: when it was changed last, ISO 8601; None where the Hub does not say.
        private: whether only its owner sees it.
    """

    repo: str
    concept: str | None
    base_models: tuple[str, ...]
    downloads: int
    likes: int
    updated: str | None
    private: bool

    def as_json(self) -> dict[str, Any]:
        """Gives it as plain JSON."""
        return {key: getattr(self, key) for key in self.__dataclass_fields__} | {"base_models": list(self.base_models)}


def search(
    query: str | None = None,
    *,
    author: str | None = None,
    limit: int = 50,
    endpoint: str | None = None,
    token: str | None = None,
    patience: Patience = Patience(attempts=3),  # noqa: B008  it is frozen
) -> list[Found]:
    """Lists repositories of concepts on the Hub.

    Args:
        query: words in the repository's name; None for all.
        author: only of this user or organisation.
        limit: at most so many.
        endpoint: address of the Hub; by default `HF_ENDPOINT` or huggingface.co.
        token: by default that of `HF_TOKEN` or `hf auth login`.
        patience: how often to try again.

    Raises:
        HubError: the Hub cannot be reached.
    """
    hub = api(endpoint, token)

    def ask() -> list[Found]:
        with sentences("the Hub", "searching"):
            models = hub.list_models(
                filter=_TAG,
                search=query,
                author=author,
                limit=max(0, limit),
                expand=["downloads", "lastModified", "likes", "private", "tags"],
            )
            return [_found(model) for model in models]

    return insist(ask, patience)


def _found(model: Any) -> Found:
    tags = [str(tag) for tag in model.tags or ()]
    # The Hub writes "base_model:org/name", and the same once more with how it derives.
    bases = [tag.removeprefix(_BASE) for tag in tags if tag.startswith(_BASE)]
    return Found(
        repo=model.id,
        concept=concept_of(tags),
        base_models=tuple(dict.fromkeys(base for base in bases if ":" not in base)),
        downloads=model.downloads or 0,
        likes=model.likes or 0,
        updated=None if model.last_modified is None else model.last_modified.isoformat(),
        private=bool(model.private),
    )
