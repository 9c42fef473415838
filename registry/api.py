"""The registry as its users see it; sessions, transactions and tables stay behind it."""

import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from sqlalchemy import select

from contrans.errors import RegistryError
from registry import runs, writing
from registry.blobs import BlobStore
from registry.database import Database
from registry.lookup import to_version
from registry.migrate import prepare
from registry.names import check_alias, check_name, plain_text
from registry.reading import Reading
from registry.records import Result, Run, Version
from registry.schema import AliasHistoryRow, AliasRow, ConceptRow, NameRow


class Registry(Reading):
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
        database = Database(url)
        place = blobs or (os.environ.get("CONTRANS_BLOBS") if database.path is None else database.path.parent / "blobs")
        if not place:
            raise RegistryError(
                "A registry on PostgreSQL needs a place for its blobs; set CONTRANS_BLOBS to a folder or URL."
            )
        store = BlobStore(place)
        prepare(database, create=create)
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
        new = writing.draft(kind, name, manifest=manifest, files=files, inputs=inputs, results=results)
        for data in files.values():
            self._blobs.put(data)
        with self._database.writing() as session:
            row = writing.insert(session, new)
            if run_id is not None:
                runs.link(session, run_id, row.id)
            return to_version(row)

    def set_alias(self, version: Version | str, alias: str) -> Version:
        """Makes an alias such as "production" point at a version, and at no other of its name.

        Returns:
            The version, with its aliases as they are now.
        """
        check_alias(alias)
        found = self._version(version)
        with self._database.writing() as session:
            key = {"kind": found.kind, "name": found.name}
            session.scalars(select(NameRow).filter_by(**key).with_for_update()).one()
            row = session.get(AliasRow, {**key, "alias": alias})
            if row is None or row.version_id != found.id:
                move = {"alias": alias, "version_id": found.id, "moved_at": datetime.now(UTC)}
                session.merge(AliasRow(**key, **move))
                session.add(AliasHistoryRow(**key, **move))
        return self.get(f"{found.kind}:{found.ref}")

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

    def link(self, run_id: str, version: Version | str) -> None:
        """Notes that a run made, or came upon, a version."""
        found = self._version(version)
        with self._database.writing() as session:
            runs.link(session, run_id, found.id)
