"""Tags, concepts and words that versions are found by, protected aliases; indexes that a search reads alone."""

import re

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_BATCH = 500
NEW_INDEXES = {  # table → columns of each
    "version": [("kind", "id"), ("name", "id")],
    "lineage_edge": [("parent_id", "child_id")],
}
OLD_INDEXES = {"result": [("concept",), ("metric", "value")], "lineage_edge": [("parent_id",)]}


def upgrade() -> None:
    version = sa.ForeignKeyConstraint(["version_id"], ["version.id"], name="fk_tag_version_id")
    op.create_table(
        "tag",
        sa.Column("version_id", sa.Integer(), nullable=False),
        sa.Column("tag", sa.String(200), nullable=False),
        sa.PrimaryKeyConstraint("version_id", "tag", name="pk_tag"),
        version,
    )
    op.create_index("ix_tag_tag_version_id", "tag", ["tag", "version_id"])
    op.create_table(
        "protection",
        sa.Column("alias", sa.String(200), nullable=False),
        sa.Column("gate", sa.Text(), nullable=False),
        sa.Column("created", sa.DateTime(True), nullable=False),
        sa.PrimaryKeyConstraint("alias", name="pk_protection"),
    )
    word = op.create_table(
        "word",
        sa.Column("word", sa.String(64).with_variant(sa.String(64, collation="C"), "postgresql"), nullable=False),
        sa.Column("version_id", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("word", "version_id", name="pk_word"),
        sa.ForeignKeyConstraint(["version_id"], ["version.id"], name="fk_word_version_id"),
    )
    op.create_table(
        "about",
        sa.Column("concept", sa.String(200), nullable=False),
        sa.Column("version_id", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("concept", "version_id", name="pk_about"),
        sa.ForeignKeyConstraint(["version_id"], ["version.id"], name="fk_about_version_id"),
    )
    for table, key in (("concept_version", "id"), ("transplant_version", "id"), ("result", "validation_id")):
        op.execute(f"INSERT INTO about (concept, version_id) SELECT DISTINCT concept, {key} FROM {table}")
    with op.batch_alter_table("validation") as batch:
        batch.add_column(sa.Column("transplant_id", sa.Integer(), nullable=True))
        batch.create_foreign_key("fk_validation_transplant_id", "transplant_version", ["transplant_id"], ["id"])
    op.create_index("ix_validation_transplant_id", "validation", ["transplant_id"])
    op.execute(
        "UPDATE validation SET transplant_id = (SELECT parent_id FROM lineage_edge "
        "JOIN transplant_version ON transplant_version.id = lineage_edge.parent_id "
        "WHERE child_id = validation.id AND role = 'transplant')"
    )
    op.add_column("alias_history", sa.Column("forced", sa.Boolean(), nullable=False, server_default=sa.false()))
    _exchange(OLD_INDEXES, NEW_INDEXES)
    op.create_index("ix_result_measured", "result", ["metric", "arm", "value", "low", "high", "split", "validation_id"])
    _fill(word)


def downgrade() -> None:
    op.drop_index("ix_result_measured", "result")
    _exchange(NEW_INDEXES, OLD_INDEXES)
    op.drop_index("ix_validation_transplant_id", "validation")
    with op.batch_alter_table("validation") as batch:
        batch.drop_constraint("fk_validation_transplant_id", type_="foreignkey")
        batch.drop_column("transplant_id")
    with op.batch_alter_table("alias_history") as batch:
        batch.drop_column("forced")
    for name in ("about", "word", "protection", "tag"):
        op.drop_table(name)


def _exchange(old, new) -> None:
    for table, groups in old.items():
        for group in groups:
            op.drop_index(f"ix_{table}_{'_'.join(group)}", table)
    for table, groups in new.items():
        for group in groups:
            op.create_index(f"ix_{table}_{'_'.join(group)}", table, list(group))


def _fill(word) -> None:
    connection, last = op.get_bind(), 0
    version = sa.table("version", sa.column("id"), sa.column("name"), sa.column("manifest", sa.JSON()))
    while True:
        page = sa.select(version).where(version.c.id > last).order_by(version.c.id).limit(_BATCH)
        rows = connection.execute(page).all()
        if not rows:
            return
        found = [{"word": w, "version_id": row.id} for row in rows for w in _words(row.name, row.manifest)]
        if found:
            connection.execute(sa.insert(word), found)
        last = rows[-1].id


def _words(name, manifest) -> list[str]:
    """What `registry.words` did when this migration was written: a migration does the same for ever."""
    texts, waiting = [name], [manifest]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            texts.append(value)
        elif isinstance(value, dict):
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
    words = {w: None for text in texts for w in re.findall(r"[^\W_]+", text.casefold())}
    return [w for w in words if len(w) <= 64 and not re.fullmatch(r"[0-9a-f]{32,}", w)][:256]
