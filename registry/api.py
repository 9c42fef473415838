"""The registry as its users see it; sessions, transactions and tables stay behind it."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from sqlalchemy import delete

from contrans.errors import RegistryError
from registry import aliases, archive, runs, transfer, writing
from registry.backup import restore
from registry.blobs import BlobStore
from registry.database import Database
from registry.drafts import check_all
from registry.keeping import Keeping
from registry.migrate import prepare
from registry.names import check_alias, check_name, check_tag, plain_text
from registry.records import NewVersion, Result, Run, Version
from registry.schema import ConceptRow, TagRow


class Registry(Keeping):
    """Every model, text set, vector, map, transplant and validation, as immutable versions with lineage.

    Open one with `Registry.open`. It may be used from several threads at once and after a fork; close
    it with `close` or use it in a `with` statement. Wherever a version is asked for, a `Version` or a
    reference such as "anger/gemma-3-270m@production" (see `get`) is taken.
    """

    @classmethod
    def open(cls, url: str | Path | None = None, *, blobs: str | Path | None = None, create: bool = True) -> Self:
        """Opens a registry; makes it, or upgrades its tables, where needed.

        Args:
            url: A path, `sqlite:///FILE`, `postgresql://USER:PASSWORD@HOST/DATABASE`, or None for
                `registry.db` in `$CONTRANS_HOME` (`~/.contrans` by default).
            blobs: Folder or fsspec URL of the blobs. By default the folder `blobs` beside the SQLite
                file; on PostgreSQL `$CONTRANS_BLOBS`.
            create: Whether a registry that does not exist yet is made.

        Raises:
            RegistryError: If it cannot be opened, is not a registry, or is newer than this version.
        """
        database, store = _places(url, blobs)
        prepare(database, create=create)
        return cls(database, store)

    @classmethod
    def restore(cls, path: str | Path, url: str | Path | None = None, *, blobs: str | Path | None = None) -> Self:
        """Makes a registry from a backup, on either database, and opens it.

        Args:
            path: The archive that `backup` wrote.
            url: Where the registry goes (see `open`); it must not hold anything yet.
            blobs: Where its blobs go.

        Raises:
            RegistryError: If it is no backup, is damaged or newer than this version, if there is a registry that
                holds something, or if one cannot be written.
        """
        database, store = _places(url, blobs)
        with archive.reading(Path(path).expanduser()) as opened:
            restore(database, store, opened.wanted("backup"))
        return cls(database, store)

    def register(
        self,
        kind: str,
        name: str,
        *,
        manifest: Mapping[str, Any],
        files: Mapping[str, bytes] = {},
        inputs: Mapping[str, Version] = {},
        results: Sequence[Result] = (),
        run_id: str | None = None,
    ) -> Version:
        """Registers a version, or finds the one with the same content.

        The manifest's keys that people filter by also become columns: for a model `reference`
        (needed), `revision`, `fingerprint`, `family`, `hidden_size`, `n_blocks`, `licence`; a text
        set `hash` (needed), `n_texts`, `split`, `licence`; a vector `concept` (needed), `estimator`; a
        map `estimator`; a transplant `concept` (needed, unless the input `vector` gives it); a
        validation `protocol` (needed), `split`. Likewise the inputs with these roles: `model` of a
        vector; `source` and `target` of a map; `vector`, `map` and `target` of a transplant.

        Args:
            kind: "model", "text_set", "vector", "map", "transplant" or "validation".
            name: Path-like name; its versions are numbered 1, 2, … without gaps.
            manifest: Plain JSON, up to 1 MiB.
            files: Contents by file name.
            inputs: What it was made from, by role; any roles.
            results: The numbers of a validation.
            run_id: A run (see `start_run`) to link the version to.

        Returns:
            The new version, or the existing one with equal content.

        Raises:
            RegistryError: If something is not valid or cannot be stored; nothing is registered then.
        """
        new = NewVersion(kind=kind, name=name, manifest=manifest, files=files, inputs=inputs, results=results)
        return self.register_many([new], run_id=run_id)[0]

    def register_many(self, versions: Sequence[NewVersion], *, run_id: str | None = None) -> list[Version]:
        """Registers versions together, all of them or none; far faster than one by one.

        Args:
            versions: What to register; an input may be another of them.
            run_id: A run (see `start_run`) to link the versions to.

        Returns:
            The new version, or the existing one with equal content, for each, in the same order.

        Raises:
            RegistryError: If something is not valid or cannot be stored; nothing is registered then.
        """
        drafts = check_all(versions)
        contents = {id(data): data for new in versions for data in new.files.values()}.values()
        for data in contents:
            self._blobs.put(data)
        with self._database.writing() as session:
            made = writing.insert_all(session, drafts)
            if run_id is not None:
                runs.link(session, run_id, *(version.id for version in made))
            for data in contents:
                self._blobs.ensure(data)
        return made

    def import_versions(self, path: str | Path) -> list[Version]:
        """Registers the versions of an archive that `export` wrote, all of them or none.

        They get the numbers that come next here; what is here already is found and not registered again. Tags come
        along, and the families and descriptions of concepts that have none here.

        Args:
            path: The archive.

        Returns:
            The versions as they are here, inputs first.

        Raises:
            RegistryError: If it is no export, is damaged or newer than this version, or cannot be stored.
        """
        with archive.reading(Path(path).expanduser()) as opened:
            found = transfer.drafts(opened.wanted("export"))
            for sha256, size in opened.blobs.items():
                self._blobs.put(opened.get(sha256, size))
            with self._database.writing() as session:
                made = transfer.insert(session, found, opened)
                for sha256, size in opened.blobs.items():
                    self._blobs.ensure(opened.get(sha256, size))
        return made

    def set_alias(self, version: Version | str, alias: str, *, force: bool = False) -> Version:
        """Makes an alias such as "production" point at a version, and at no other of its name.

        Args:
            version: The version.
            alias: The alias.
            force: Whether to move it even if the version does not pass the alias's gate (see `protect`); the
                history says so.

        Returns:
            The version, with its aliases as they are now.

        Raises:
            RegistryError: If the alias is protected and the version does not pass; the message says which number
                falls short.
        """
        check_alias(alias)
        found = self._version(version)
        with self._database.writing() as session:
            aliases.move(session, found, alias, force=force)
        return self.get(f"{found.kind}:{found.ref}")

    def protect(self, alias: str, gate: str | None) -> None:
        """Lets an alias move, under any name, only onto versions whose validation passes a gate.

        The numbers are those of the validations that judge the version (see `validations`), without the splits that
        settings were chosen on; every one that a comparison is about must hold. Where the alias points already, it
        stays.

        Args:
            alias: The alias.
            gate: Such as "gain_recovered.low > .7 and kl < .1" (see `registry.gates`); None lifts the protection.

        Raises:
            RegistryError: If the gate cannot be read, or there is nothing to lift.
        """
        with self._database.writing() as session:
            aliases.protect(session, alias, gate)

    def tag(self, version: Version | str, *tags: str) -> tuple[str, ...]:
        """Puts tags on a version and gives all that it has then, sorted."""
        found = self._version(version)
        values = [{"version_id": found.id, "tag": check_tag(tag)} for tag in sorted(set(tags))]
        with self._database.writing() as session:
            writing.insert_all_missing(session, TagRow, values)
        return self.tags(found)

    def untag(self, version: Version | str, *tags: str) -> tuple[str, ...]:
        """Takes tags off a version and gives those that are left, sorted."""
        found = self._version(version)
        with self._database.writing() as session:
            session.execute(delete(TagRow).where(TagRow.version_id == found.id, TagRow.tag.in_(tags)))
        return self.tags(found)

    def describe_concept(self, concept: str, *, family: str | None = None, description: str | None = None) -> None:
        """Notes the family of a concept, such as "emotion", and what it is; None leaves a field as it is."""
        check_name(concept, "concept")
        with self._database.writing() as session:
            writing.insert_missing(session, ConceptRow, name=concept)
            row = session.get_one(ConceptRow, concept)
            row.family = row.family if family is None else check_name(family, "family")
            if description is not None:
                row.description = plain_text(description, "The description")

    def start_run(
        self,
        run_id: str,
        *,
        spec: Mapping[str, Any],
        spec_hash: str,
        flow_run_id: str | None = None,
        commit: str | None = None,
    ) -> Run:
        """Notes that a run begins; a run of the same id and spec goes on (it was killed, or is run again).

        Args:
            run_id: Its id here.
            spec: Its pipeline spec, plain JSON.
            spec_hash: What makes two specs the same.
            flow_run_id: Its id in the flow engine.
            commit: Git commit of the code.
        """
        with self._database.writing() as session:
            return runs.start(session, run_id, flow_run_id=flow_run_id, spec=spec, spec_hash=spec_hash, commit=commit)

    def finish_run(self, run_id: str, state: str, *, mlflow_run_id: str | None = None) -> Run:
        """Notes how a run ended: "completed", "failed", "cancelled" or "crashed"."""
        with self._database.writing() as session:
            return runs.finish(session, run_id, state, mlflow_run_id=mlflow_run_id)

    def link_mlflow(self, run_id: str, mlflow_run_id: str) -> None:
        """Notes MLflow's id of a run that ended before MLflow could be told; nothing where there is no such run."""
        with self._database.writing() as session:
            runs.link_mlflow(session, run_id, mlflow_run_id)

    def link(self, run_id: str, version: Version | str) -> None:
        """Notes that a run made, or came upon, a version."""
        found = self._version(version)
        with self._database.writing() as session:
            runs.link(session, run_id, found.id)


def _places(url: str | Path | None, blobs: str | Path | None) -> tuple[Database, BlobStore]:
    database = Database(url)
    place = blobs or (os.environ.get("CONTRANS_BLOBS") if database.path is None else database.path.parent / "blobs")
    if not place:
        raise RegistryError(
            "A registry on PostgreSQL needs a place for its blobs; set CONTRANS_BLOBS to a folder or URL."
        )
    return database, BlobStore(place)
