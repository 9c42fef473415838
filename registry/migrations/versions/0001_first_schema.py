"""First schema: versions of six kinds, files, lineage, results, names, aliases, publications, runs."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.schema import SchemaItem

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def _table(name, columns, *, key, references=None, unique=(), indexes=()):
    """Creates a table whose constraints all have names, so that later migrations can change them.

    `columns` maps names to types (a trailing "?" allows NULL), `references` maps columns to
    "table.column" or several columns, joined by a space, to as many targets.
    """
    parts: list[SchemaItem] = [
        sa.Column(column.rstrip("?"), kind, nullable=column.endswith("?")) for column, kind in columns
    ]
    parts.append(sa.PrimaryKeyConstraint(*key, name=f"pk_{name}"))
    for own, other in (references or {}).items():
        label = f"fk_{name}_{own.replace(' ', '_')}"
        parts.append(sa.ForeignKeyConstraint(own.split(), other.split(), name=label))
    parts += [sa.UniqueConstraint(*group, name=f"uq_{name}_{'_'.join(group)}") for group in unique]
    op.create_table(name, *parts)
    for group in indexes:
        op.create_index(f"ix_{name}_{'_'.join(group)}", name, list(group))


def _one_each(*columns):
    return [(column,) for column in columns]


ID, WORD, NAME, COMMIT, DIGEST = sa.Integer(), sa.String(16), sa.String(200), sa.String(64), sa.String(64)
HASH, TEXT, SIZE, NUMBER, TIME = sa.String(128), sa.Text(), sa.BigInteger(), sa.Double(), sa.DateTime(True)

TABLES = (  # in the order in which they can be created
    "blob",
    "concept",
    "run",
    "version_name",
    "version",
    "alias",
    "alias_history",
    "file",
    "lineage_edge",
    "publication",
    "run_version",
    "model",
    "text_set",
    "validation",
    "result",
    "concept_version",
    "map_version",
    "transplant_version",
)


def upgrade() -> None:
    _versions()
    _around_versions()
    _kinds()


def _versions() -> None:
    _table("blob", [("sha256", DIGEST), ("size", SIZE)], key=["sha256"])
    _table("concept", [("name", NAME), ("family?", NAME), ("description?", TEXT)], key=["name"])
    _table(
        "run",
        [
            ("id", NAME),
            ("flow_run_id?", NAME),
            ("mlflow_run_id?", NAME),
            ("commit?", COMMIT),
            ("spec_hash", HASH),
            ("spec", sa.JSON()),
            ("state", WORD),
            ("started", TIME),
            ("ended?", TIME),
        ],
        key=["id"],
        indexes=_one_each("flow_run_id", "mlflow_run_id", "spec_hash", "started"),
    )
    _table("version_name", [("kind", WORD), ("name", NAME), ("last", sa.Integer())], key=["kind", "name"])
    _table(
        "version",
        [
            ("id", ID),
            ("kind", WORD),
            ("name", NAME),
            ("number", sa.Integer()),
            ("digest", DIGEST),
            ("manifest", sa.JSON()),
            ("created", TIME),
        ],
        key=["id"],
        references={"kind name": "version_name.kind version_name.name"},
        unique=[("digest",), ("kind", "name", "number")],
    )


def _around_versions() -> None:
    _table(
        "alias",
        [("kind", WORD), ("name", NAME), ("alias", NAME), ("version_id", ID), ("moved_at", TIME)],
        key=["kind", "name", "alias"],
        references={"kind name": "version_name.kind version_name.name", "version_id": "version.id"},
        indexes=_one_each("alias", "version_id"),
    )
    _table(
        "alias_history",
        [("id", ID), ("kind", WORD), ("name", NAME), ("alias", NAME), ("version_id", ID), ("moved_at", TIME)],
        key=["id"],
        references={"version_id": "version.id"},
        indexes=[("kind", "name", "alias")],
    )
    _table(
        "file",
        [("version_id", ID), ("filename", NAME), ("sha256", DIGEST), ("size", SIZE)],
        key=["version_id", "filename"],
        references={"version_id": "version.id", "sha256": "blob.sha256"},
        indexes=_one_each("sha256"),
    )
    _table(
        "lineage_edge",
        [("child_id", ID), ("role", NAME), ("parent_id", ID)],
        key=["child_id", "role"],
        references={"child_id": "version.id", "parent_id": "version.id"},
        indexes=_one_each("parent_id"),
    )
    _table(
        "publication",
        [
            ("id", ID),
            ("version_id", ID),
            ("repo", NAME),
            ("commit", COMMIT),
            ("tag?", NAME),
            ("created", TIME),
        ],
        key=["id"],
        references={"version_id": "version.id"},
        unique=[("version_id", "repo", "commit")],
        indexes=_one_each("version_id", "repo"),
    )
    _table(
        "run_version",
        [("run_id", NAME), ("version_id", ID)],
        key=["run_id", "version_id"],
        references={"run_id": "run.id", "version_id": "version.id"},
        indexes=_one_each("version_id"),
    )


def _kinds() -> None:
    _table(
        "model",
        [
            ("id", ID),
            ("reference", TEXT),
            ("revision?", TEXT),
            ("fingerprint?", HASH),
            ("family?", NAME),
            ("hidden_size?", sa.Integer()),
            ("n_blocks?", sa.Integer()),
            ("licence?", TEXT),
        ],
        key=["id"],
        references={"id": "version.id"},
        indexes=_one_each("reference", "fingerprint", "family"),
    )
    _table(
        "text_set",
        [("id", ID), ("hash", HASH), ("n_texts?", sa.Integer()), ("split?", NAME), ("licence?", TEXT)],
        key=["id"],
        references={"id": "version.id"},
        indexes=_one_each("hash"),
    )
    _table(
        "validation",
        [("id", ID), ("protocol", NAME), ("split?", NAME)],
        key=["id"],
        references={"id": "version.id"},
        indexes=_one_each("protocol"),
    )
    _table(
        "result",
        [
            ("id", ID),
            ("validation_id", ID),
            *((column, NAME) for column in ("concept", "protocol", "split", "arm", "metric")),
            *((column, NUMBER) for column in ("dose?", "value?", "low?", "high?")),
            ("n?", sa.Integer()),
        ],
        key=["id"],
        references={"validation_id": "validation.id"},
        indexes=[("validation_id",), ("concept",), ("metric", "value")],
    )
    _table(
        "concept_version",
        [("id", ID), ("concept", NAME), ("model_id?", ID), ("estimator?", NAME)],
        key=["id"],
        references={"id": "version.id", "concept": "concept.name", "model_id": "model.id"},
        indexes=_one_each("concept", "model_id", "estimator"),
    )
    _table(
        "map_version",
        [("id", ID), ("source_model_id?", ID), ("target_model_id?", ID), ("estimator?", NAME)],
        key=["id"],
        references={"id": "version.id", "source_model_id": "model.id", "target_model_id": "model.id"},
        indexes=_one_each("source_model_id", "target_model_id", "estimator"),
    )
    _table(
        "transplant_version",
        [("id", ID), ("concept", NAME), ("vector_id?", ID), ("map_id?", ID), ("target_model_id?", ID)],
        key=["id"],
        references={
            "id": "version.id",
            "concept": "concept.name",
            "vector_id": "concept_version.id",
            "map_id": "map_version.id",
            "target_model_id": "model.id",
        },
        indexes=_one_each("concept", "vector_id", "map_id", "target_model_id"),
    )


def downgrade() -> None:
    for name in reversed(TABLES):
        op.drop_table(name)
