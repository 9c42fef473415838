"""What a registry finds: lists, searches, lineage, tags, and what is stale."""

import builtins
from collections.abc import Sequence

from sqlalchemy import or_, select
from sqlalchemy.orm import aliased

from contrans.errors import RegistryError
from registry.gains import Gain, gains_of
from registry.lineage import Direction, Lineage, made_from, outdated, trace
from registry.reading import Reading
from registry.records import Outdated, Version
from registry.schema import ModelRow, TagRow, TextSetRow, VersionRow
from registry.search import Query, find


class Finding(Reading):
    """The part of `Registry` that finds versions."""

    def list(
        self,
        kind: str | None = None,
        concept: str | None = None,
        *,
        name: str | None = None,
        model: str | None = None,
        estimator: str | None = None,
        alias: str | None = None,
        newest: bool = False,
        before: Version | None = None,
        limit: int | None = None,
    ) -> builtins.list[Version]:
        """Lists versions, the latest registered first.

        Args:
            kind: Only of this kind.
            concept: Only vectors, transplants and validations of this concept.
            name: Only of this exact name.
            model: Only this model, by name or reference, and what was made directly with it.
            estimator: Only vectors and maps of this estimator.
            alias: Only versions that this alias points at.
            newest: Only the newest version of each name.
            before: Only versions registered before this one; the last of one page gives the next page.
            limit: At most so many.
        """
        return self.search(
            kind=kind,
            concept=concept,
            name=name,
            model=model,
            estimator=estimator,
            alias=alias,
            newest=newest,
            before=before,
            limit=limit,
        )

    def search(
        self,
        text: str | None = None,
        *,
        kind: str | None = None,
        name: str | None = None,
        concept: str | None = None,
        family: str | None = None,
        model: str | None = None,
        estimator: str | None = None,
        where: str | None = None,
        tags: Sequence[str] = (),
        alias: str | None = None,
        newest: bool = False,
        before: Version | str | None = None,
        limit: int | None = 50,
    ) -> builtins.list[Version]:
        """Finds versions that fit everything asked, the latest registered first.

        Args:
            text: Words; each must begin a word of the name, of a text in the manifest or of a tag, blind to case.
            kind: Only of this kind.
            name: Only of this exact name.
            concept: Only vectors, transplants and validations of this concept.
            family: Only what is about a concept of this family (see `describe_concept`), models of this family, and
                what was made directly with those.
            model: Only this model, by name or reference, and what was made directly with it.
            estimator: Only vectors and maps of this estimator.
            where: Only validations with such numbers, and the transplants they judge: "gain_recovered > .9" (see
                `registry.gates`). One row of a metric that fits is enough, and the splits of choosing do not count.
            tags: Only versions with all these tags.
            alias: Only versions that this alias points at.
            newest: Only the newest version of each name.
            before: Only versions registered before this one; the last of one page gives the next page.
            limit: At most so many; None for all.

        Raises:
            RegistryError: If a filter cannot be understood.
        """
        query = Query(
            text=text,
            kind=kind,
            name=name,
            concept=concept,
            family=family,
            model=model,
            estimator=estimator,
            where=where,
            tags=tags,
            alias=alias,
            newest=newest,
            before=None if before is None else self._version(before).id,
            limit=limit,
        )
        with self._database.reading() as session:
            return find(session, query)

    def tags(self, version: Version | str) -> tuple[str, ...]:
        """The tags of a version, sorted."""
        found = self._version(version)
        with self._database.reading() as session:
            return tuple(sorted(session.scalars(select(TagRow.tag).where(TagRow.version_id == found.id))))

    def lineage(self, version: Version | str, direction: Direction = "up", depth: int | None = None) -> Lineage:
        """Tells what a version was made from ("up"), what was made from it ("down"), or both.

        Args:
            version: Where to begin.
            direction: "up", "down" or "both".
            depth: How many steps to go at most; None for all.
        """
        root = self._version(version)
        with self._database.reading() as session:
            return trace(session, root, direction, depth)

    def made_with(
        self,
        version: Version | str | None = None,
        *,
        model: str | None = None,
        revision: str | None = None,
        texts: str | None = None,
        kind: str | None = None,
        depth: int | None = None,
    ) -> builtins.list[Version]:
        """Lists what was made, directly or through others, with a version, a model or a set of texts.

        Args:
            version: A version, such as a map.
            model: A model's name, reference or fingerprint, in all its versions.
            revision: Only those of its versions with this revision.
            texts: The hash of a set of texts, under whatever name.
            kind: Only what is of this kind.
            depth: How many steps to go at most; None for all.

        Returns:
            Versions in the order of registration.

        Raises:
            RegistryError: If not exactly one of `version`, `model` and `texts` is given, or it is not there.
        """
        if sum(given is not None for given in (version, model, texts)) != 1:
            raise RegistryError("Ask what was made with one thing: a version, a model or the hash of texts.")
        if revision is not None and model is None:
            raise RegistryError("A revision belongs to a model; name the model too.")
        if version is not None:
            starts = select(VersionRow.id).where(VersionRow.id == self._version(version).id)
            missing = ""
        elif model is not None:
            row, named = ModelRow.__table__.c, aliased(VersionRow, flat=True)
            starts = select(row.id).join(named, named.id == row.id)
            starts = starts.where(or_(row.reference == model, row.fingerprint == model, named.name == model))
            if revision is not None:
                starts = starts.where(row.revision == revision)
            missing = f"model {model!r}" + (f" of revision {revision!r}" if revision else "")
        else:
            row = TextSetRow.__table__.c
            starts = select(row.id).where(row.hash == texts)
            missing = f"set of texts with the hash {texts!r}"
        with self._database.reading() as session:
            if session.execute(starts).first() is None:
                raise RegistryError(f"There is no {missing} in the registry; `contrans list` shows what there is.")
            return made_from(session, starts, depth, kind)

    def gains(self, found: Sequence[Version], *, back: int = 1) -> dict[int, tuple[Gain, ...]]:
        """Gives gain recovered of transplants, and of the versions of their names before them.

        Args:
            found: Versions of any kind.
            back: How many versions of a name to look at, that one with them.

        Returns:
            By the `id` of each transplant among `found`, the oldest first; of a version that has no gain there is none.
        """
        with self._database.reading() as session:
            return gains_of(session, found, back=back)

    def stale(self, version: Version | str | None = None, *, superseded: bool = False) -> builtins.list[Outdated]:
        """Tells what is stale because something that it was made from has a newer version by now.

        Args:
            version: Only this version.
            superseded: Whether versions count of which there is a newer one themselves.

        Returns:
            One entry for each version and each of its outdated inputs, direct or through others, in the order of
            registration.
        """
        root = None if version is None else self._version(version)
        with self._database.reading() as session:
            return outdated(session, root, superseded=superseded)
