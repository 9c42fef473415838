"""The tables: immutable versions of six kinds, their files, lineage and results; names, aliases, tags, runs."""

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, ForeignKey, ForeignKeyConstraint, Index, String, Text, UniqueConstraint, false
from sqlalchemy.orm import Mapped, mapped_column, relationship

from registry.base import Base

SCHEMA = "0002"  # the newest migration; kept here so that opening an up-to-date registry need not import Alembic
VERSION_TABLE = "registry_schema"  # not Alembic's own default, which Prefect's and MLflow's databases use too


class NameRow(Base):
    """A name of one kind and the number of its newest version; writers of a name queue up at this row."""

    __tablename__ = "version_name"
    kind: Mapped[str] = mapped_column(String(16), primary_key=True)
    name: Mapped[str] = mapped_column(String(200), primary_key=True)
    last: Mapped[int] = mapped_column(default=0)


class VersionRow(Base):
    """What every version has, of whatever kind."""

    __tablename__ = "version"
    __table_args__ = (
        UniqueConstraint("kind", "name", "number"),
        ForeignKeyConstraint(["kind", "name"], ["version_name.kind", "version_name.name"]),
        Index(None, "kind", "id"),  # the newest of a kind, or of a name, are read off the end
        Index(None, "name", "id"),
    )
    __mapper_args__ = {"polymorphic_on": "kind"}  # noqa: RUF012  SQLAlchemy reads it as it stands
    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(String(16))
    name: Mapped[str] = mapped_column(String(200))
    number: Mapped[int]
    digest: Mapped[str] = mapped_column(String(64), unique=True)
    manifest: Mapped[dict[str, Any]]
    created: Mapped[datetime]
    aliases: Mapped[list["AliasRow"]] = relationship(order_by="AliasRow.alias", viewonly=True)


class ConceptRow(Base):
    """A concept that vectors stand for, such as anger of the family emotion."""

    __tablename__ = "concept"
    name: Mapped[str] = mapped_column(String(200), primary_key=True)
    family: Mapped[str | None] = mapped_column(String(200))
    description: Mapped[str | None] = mapped_column(Text)


# The columns of the six kinds below are filled from the manifest's keys of the same name; a column
# with a `role` is filled from the input of that role.


class ModelRow(VersionRow):
    """A language model at one revision."""

    __tablename__ = "model"
    __mapper_args__ = {"polymorphic_identity": "model"}  # noqa: RUF012
    id: Mapped[int] = mapped_column(ForeignKey("version.id"), primary_key=True)
    reference: Mapped[str] = mapped_column(Text, index=True)
    revision: Mapped[str | None] = mapped_column(Text)
    fingerprint: Mapped[str | None] = mapped_column(String(128), index=True)
    family: Mapped[str | None] = mapped_column(String(200), index=True)
    hidden_size: Mapped[int | None]
    n_blocks: Mapped[int | None]
    licence: Mapped[str | None] = mapped_column(Text)


class TextSetRow(VersionRow):
    """A set of texts (a contrast set, a split of one, or a corpus), known by its hash."""

    __tablename__ = "text_set"
    __mapper_args__ = {"polymorphic_identity": "text_set"}  # noqa: RUF012
    id: Mapped[int] = mapped_column(ForeignKey("version.id"), primary_key=True)
    hash: Mapped[str] = mapped_column(String(128), index=True)
    n_texts: Mapped[int | None]
    split: Mapped[str | None] = mapped_column(String(200))
    licence: Mapped[str | None] = mapped_column(Text)


class VectorRow(VersionRow):
    """A concept vector refined from one model."""

    __tablename__ = "concept_version"
    __mapper_args__ = {"polymorphic_identity": "vector"}  # noqa: RUF012
    id: Mapped[int] = mapped_column(ForeignKey("version.id"), primary_key=True)
    concept: Mapped[str] = mapped_column(ForeignKey("concept.name"), index=True)
    model_id: Mapped[int | None] = mapped_column(ForeignKey("model.id"), index=True, info={"role": "model"})
    estimator: Mapped[str | None] = mapped_column(String(200), index=True)


class MapRow(VersionRow):
    """An affine map between the blocks of two models."""

    __tablename__ = "map_version"
    __mapper_args__ = {"polymorphic_identity": "map"}  # noqa: RUF012
    id: Mapped[int] = mapped_column(ForeignKey("version.id"), primary_key=True)
    source_model_id: Mapped[int | None] = mapped_column(ForeignKey("model.id"), index=True, info={"role": "source"})
    target_model_id: Mapped[int | None] = mapped_column(ForeignKey("model.id"), index=True, info={"role": "target"})
    estimator: Mapped[str | None] = mapped_column(String(200), index=True)


class TransplantRow(VersionRow):
    """A vector carried by a map into another model's space."""

    __tablename__ = "transplant_version"
    __mapper_args__ = {"polymorphic_identity": "transplant"}  # noqa: RUF012
    id: Mapped[int] = mapped_column(ForeignKey("version.id"), primary_key=True)
    concept: Mapped[str] = mapped_column(ForeignKey("concept.name"), index=True)
    vector_id: Mapped[int | None] = mapped_column(ForeignKey("concept_version.id"), index=True, info={"role": "vector"})
    map_id: Mapped[int | None] = mapped_column(ForeignKey("map_version.id"), index=True, info={"role": "map"})
    target_model_id: Mapped[int | None] = mapped_column(ForeignKey("model.id"), index=True, info={"role": "target"})


class ValidationRow(VersionRow):
    """What was measured, with which protocol; its numbers are in `result`."""

    __tablename__ = "validation"
    __mapper_args__ = {"polymorphic_identity": "validation"}  # noqa: RUF012
    id: Mapped[int] = mapped_column(ForeignKey("version.id"), primary_key=True)
    protocol: Mapped[str] = mapped_column(String(200), index=True)
    split: Mapped[str | None] = mapped_column(String(200))
    transplant_id: Mapped[int | None] = mapped_column(
        ForeignKey("transplant_version.id"), index=True, info={"role": "transplant"}
    )


class ResultRow(Base):
    """One measured number of a validation."""

    __tablename__ = "result"
    __table_args__ = (
        Index("ix_result_measured", "metric", "arm", "value", "low", "high", "split", "validation_id"),
    )  # a search reads it alone
    id: Mapped[int] = mapped_column(primary_key=True)
    validation_id: Mapped[int] = mapped_column(ForeignKey("validation.id"), index=True)
    concept: Mapped[str] = mapped_column(String(200))
    protocol: Mapped[str] = mapped_column(String(200))
    split: Mapped[str] = mapped_column(String(200))
    arm: Mapped[str] = mapped_column(String(200))
    metric: Mapped[str] = mapped_column(String(200))
    dose: Mapped[float | None]
    value: Mapped[float | None]
    low: Mapped[float | None]
    high: Mapped[float | None]
    n: Mapped[int | None]


class AboutRow(Base):
    """That a vector, transplant or validation is about a concept, however many of its numbers are."""

    __tablename__ = "about"
    concept: Mapped[str] = mapped_column(String(200), primary_key=True)
    version_id: Mapped[int] = mapped_column(ForeignKey("version.id"), primary_key=True)


class EdgeRow(Base):
    """That a version was made from another one, and what for."""

    __tablename__ = "lineage_edge"
    __table_args__ = (Index(None, "parent_id", "child_id"),)
    child_id: Mapped[int] = mapped_column(ForeignKey("version.id"), primary_key=True)
    role: Mapped[str] = mapped_column(String(200), primary_key=True)
    parent_id: Mapped[int] = mapped_column(ForeignKey("version.id"))


class BlobRow(Base):
    """A content in the blob store."""

    __tablename__ = "blob"
    sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
    size: Mapped[int] = mapped_column(BigInteger)


class FileRow(Base):
    """A named file of a version."""

    __tablename__ = "file"
    version_id: Mapped[int] = mapped_column(ForeignKey("version.id"), primary_key=True)
    filename: Mapped[str] = mapped_column(String(200), primary_key=True)
    sha256: Mapped[str] = mapped_column(ForeignKey("blob.sha256"), index=True)
    size: Mapped[int] = mapped_column(BigInteger)


class AliasRow(Base):
    """Where a name's alias, such as `production`, points now."""

    __tablename__ = "alias"
    __table_args__ = (
        ForeignKeyConstraint(["kind", "name"], ["version_name.kind", "version_name.name"]),
        Index(None, "alias"),
    )
    kind: Mapped[str] = mapped_column(String(16), primary_key=True)
    name: Mapped[str] = mapped_column(String(200), primary_key=True)
    alias: Mapped[str] = mapped_column(String(200), primary_key=True)
    version_id: Mapped[int] = mapped_column(ForeignKey("version.id"), index=True)
    moved_at: Mapped[datetime]


class AliasHistoryRow(Base):
    """One move of an alias; never changed or removed."""

    __tablename__ = "alias_history"
    __table_args__ = (Index(None, "kind", "name", "alias"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(String(16))
    name: Mapped[str] = mapped_column(String(200))
    alias: Mapped[str] = mapped_column(String(200))
    version_id: Mapped[int] = mapped_column(ForeignKey("version.id"))
    moved_at: Mapped[datetime]
    forced: Mapped[bool] = mapped_column(default=False, server_default=false())


class ProtectionRow(Base):
    """That an alias may only move onto a version that passes a gate."""

    __tablename__ = "protection"
    alias: Mapped[str] = mapped_column(String(200), primary_key=True)
    gate: Mapped[str] = mapped_column(Text)
    created: Mapped[datetime]


class TagRow(Base):
    """A word that somebody put on a version."""

    __tablename__ = "tag"
    __table_args__ = (Index(None, "tag", "version_id"),)
    version_id: Mapped[int] = mapped_column(ForeignKey("version.id"), primary_key=True)
    tag: Mapped[str] = mapped_column(String(200), primary_key=True)


class WordRow(Base):
    """A word of a version's name or manifest; what free text is searched in."""

    __tablename__ = "word"
    # Compared by code point on every database, so that the words with one beginning stand together.
    word: Mapped[str] = mapped_column(
        String(64).with_variant(String(64, collation="C"), "postgresql"), primary_key=True
    )
    version_id: Mapped[int] = mapped_column(ForeignKey("version.id"), primary_key=True)


class PublicationRow(Base):
    """That a version was published to a repository, and as which commit."""

    __tablename__ = "publication"
    __table_args__ = (UniqueConstraint("version_id", "repo", "commit"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    version_id: Mapped[int] = mapped_column(ForeignKey("version.id"), index=True)
    repo: Mapped[str] = mapped_column(String(200), index=True)
    commit: Mapped[str] = mapped_column(String(64))
    tag: Mapped[str | None] = mapped_column(String(200))
    created: Mapped[datetime]


class RunRow(Base):
    """A run of a pipeline, and its ids elsewhere."""

    __tablename__ = "run"
    id: Mapped[str] = mapped_column(String(200), primary_key=True)
    flow_run_id: Mapped[str | None] = mapped_column(String(200), index=True)
    mlflow_run_id: Mapped[str | None] = mapped_column(String(200), index=True)
    commit: Mapped[str | None] = mapped_column(String(64))
    spec_hash: Mapped[str] = mapped_column(String(128), index=True)
    spec: Mapped[dict[str, Any]]
    state: Mapped[str] = mapped_column(String(16))
    started: Mapped[datetime] = mapped_column(index=True)
    ended: Mapped[datetime | None]


class RunVersionRow(Base):
    """That a run made, or came upon, a version."""

    __tablename__ = "run_version"
    run_id: Mapped[str] = mapped_column(ForeignKey("run.id"), primary_key=True)
    version_id: Mapped[int] = mapped_column(ForeignKey("version.id"), primary_key=True, index=True)
