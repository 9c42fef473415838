"""Which version was published where: the table `publication`."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import select

from registry.api import Registry
from registry.records import Version
from registry.schema import PublicationRow
from registry.writing import insert_missing


@dataclass(frozen=True)
class Publication:
    """A version on the Hub.

    Attributes:
        version: the transplant that was published, as "name@number".
        repo: the repository.
        tag: its tag there.
        commit: the commit; None after a dry run.
        url: where people see it.
        content: SHA-256 over the manifest's content.
        files: sizes in bytes, by path.
        created: whether this call made the commit; False where it was there before, and after a dry run.
    """

    version: str
    repo: str
    tag: str
    commit: str | None
    url: str
    content: str = ""
    files: dict[str, int] = field(default_factory=dict, compare=False)
    created: bool = field(default=False, compare=False)

    def as_json(self) -> dict[str, Any]:
        """Gives the publication as plain JSON."""
        return {key: getattr(self, key) for key in self.__dataclass_fields__}


def record(registry: Registry, versions: Iterable[Version], *, repo: str, commit: str, tag: str) -> None:
    """Notes that versions were published; what is noted already stays.

    Raises:
        RegistryError: the registry cannot be written.
    """
    found = [registry.get(f"{version.kind}:{version.ref}") for version in versions]
    with registry._database.writing() as session:
        for version in found:
            insert_missing(
                session,
                PublicationRow,
                version_id=version.id,
                repo=repo,
                commit=commit,
                tag=tag,
                created=datetime.now(UTC),
            )


def publications(registry: Registry, version: Version | str) -> list[Publication]:
    """Where a version was published, the earliest first."""
    found = registry.get(version if isinstance(version, str) else f"{version.kind}:{version.ref}")
    with registry._database.reading() as session:
        query = select(PublicationRow).where(PublicationRow.version_id == found.id).order_by(PublicationRow.id)
        return [
            Publication(
                version=found.ref,
                repo=row.repo,
                tag=row.tag or "",
                commit=row.commit,
                url=f"https://huggingface.co/{row.repo}/tree/{row.tag or row.commit}",
            )
            for row in session.scalars(query)
        ]
