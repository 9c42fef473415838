"""The same pages on PostgreSQL, where its programs are installed: what SQLite forgives, it does not."""

from pathlib import Path

import pytest
from sqlalchemy import insert
from starlette.testclient import TestClient

from contrans.errors import RegistryError
from contrans.models import load_model
from registry import Registry
from registry.browse import Reader, create_app
from registry.schema import TagRow
from tests.browse.conftest import ADDRESS, Filled
from tests.browse.material import fill
from tests.browse.test_pages import PAGES
from tests.registry.conftest import fresh_postgres_url, postgres_server

__all__ = ["fresh_postgres_url", "postgres_server"]


def test_pages_are_those_of_sqlite_and_nothing_can_be_written(
    fresh_postgres_url: str,
    filled: Filled,
    client: TestClient,
    tmp_path: Path,
) -> None:
    with Registry.open(fresh_postgres_url, blobs=tmp_path) as registry:
        fill(registry, load_model(str(filled.folder / "tiny")))
    with Reader.open(fresh_postgres_url, blobs=tmp_path) as reader:
        app = TestClient(create_app(reader), base_url=ADDRESS)
        for address in PAGES:
            answer = app.get(address)
            assert answer.status_code == 200, address
            assert answer.text.count("<tr") == client.get(address).text.count("<tr"), address
        for query in ("text=ang&alias=production", "where=gain_recovered+%3E+.8&family=emotion", "sort=gain&every=1"):
            found = app.get(f"/?{query}", headers={"HX-Request": "true"}).text
            assert found.count("<tr") == client.get(f"/?{query}", headers={"HX-Request": "true"}).text.count("<tr")
        statement = insert(TagRow).values(version_id=1, tag="mine")
        with pytest.raises(RegistryError, match="read-only transaction"), reader.session() as session:
            session.execute(statement)
