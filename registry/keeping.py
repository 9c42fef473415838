"""Looking after a registry: whether it is whole, repairing it, clearing it up, backups, carrying versions over."""

import builtins
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from registry import archive, transfer
from registry.backup import backup
from registry.blobs import BlobStore
from registry.finding import Finding
from registry.records import Collected, Problem, Version
from registry.repair import Source, collect, repair
from registry.verify import GRACE, problems


class Keeping(Finding):
    """The part of `Registry` that looks after it."""

    def check(self, *, grace: timedelta = GRACE) -> builtins.list[Problem]:
        """Reads everything and finds what is wrong.

        Args:
            grace: How long a blob may belong to no version before it is reported as orphaned: blobs are
                stored before their version, so one may be on its way, or its writer was killed.

        Returns:
            Missing and corrupt blobs, versions whose rows were altered, dangling rows, and orphaned blobs.
        """
        with self._database.reading() as session:
            return list(problems(session, self._blobs, grace))

    def repair(self, *, source: str | Path | None = None, grace: timedelta = GRACE) -> builtins.list[Problem]:
        """Checks, and puts right what can be without losing anything.

        A missing or corrupt blob is stored again where its content is found: in `source`, or in the blob store
        under another name, such as that of a write that was cut short before its end. Rows that point at nothing
        are removed where no version consists of them. What was altered in a version stays as it is, and orphaned
        blobs stay until `gc`.

        Args:
            source: A backup or an export, or the place of another registry's blobs, to take lost contents from.
            grace: As of `check`.

        Returns:
            Everything found, with `repaired` where it is right now.

        Raises:
            RegistryError: If the source cannot be read or the registry cannot be written.
        """
        if source is not None and Path(source).is_file():
            with archive.reading(Path(source)) as opened:
                return repair(self._database, self._blobs, [opened], grace)
        sources: builtins.list[Source] = [] if source is None else [BlobStore(source)]
        return repair(self._database, self._blobs, sources, grace)

    def gc(self, *, dry_run: bool = False, grace: timedelta = GRACE) -> Collected:
        """Removes blobs that no version needs, and unfinished writes; safe while others register.

        Args:
            dry_run: Whether to remove nothing and only tell what would go.
            grace: What was written within this time stays, since its writer may not be done yet.

        Returns:
            What was removed.

        Raises:
            RegistryError: If the store cannot be listed or cleared.
        """
        return collect(self._database, self._blobs, grace=grace, dry=dry_run)

    def backup(self, path: str | Path) -> dict[str, Any]:
        """Writes database and blobs into one archive, while others may go on; `Registry.restore` reads it.

        Args:
            path: The file to write; one that is there is replaced.

        Returns:
            Its header: `schema`, `created`, `content_digest`, and `rows` of each table.

        Raises:
            RegistryError: If a blob is missing or corrupt (repair first), or the file cannot be written; then a file
                that was there stays as it was.
        """
        return backup(self._database, self._blobs, Path(path).expanduser())

    def export(self, versions: Sequence[Version | str], path: str | Path) -> builtins.list[Version]:
        """Writes versions, the validations that judge transplants among them, and all that they were made from.

        Aliases stay behind: what is in production is for each registry to say.

        Args:
            versions: Versions or references.
            path: The file to write; one that is there is replaced.

        Returns:
            What was written, inputs first.

        Raises:
            RegistryError: If a version or a blob is not there, or the file cannot be written.
        """
        chosen = [self._version(version) for version in versions]
        with self._database.reading() as session:
            return transfer.export(session, self._blobs, chosen, Path(path).expanduser())
