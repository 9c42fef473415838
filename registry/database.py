"""How the database is reached: URLs, SQLite's settings, reading and writing, errors as sentences."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, NullPool, Pool, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm import Session

from contrans.errors import RegistryError
from registry.masking import masked

BUSY_SECONDS = 30
_MAGIC = b"SQLite format 3\0"
_WRITING = "registry_writing"
_SENTENCES = {  # by the beginning of SQLite's own name of the error
    "SQLITE_BUSY": f"is in use: another program kept it locked for {BUSY_SECONDS} s; try again later",
    "SQLITE_FULL": "has no space left on its disk; free some and try again, nothing was changed",
    "SQLITE_READONLY": "is read-only; check your rights on the file and its folder, nothing was changed",
    "SQLITE_CANTOPEN": "cannot be opened or written; check that its folder exists and your rights there",
    "SQLITE_PERM": "cannot be opened; check your rights on the file and its folder",
    "SQLITE_IOERR": "cannot be read or written; check the disk and its free space",
    "SQLITE_NOTADB": "is not a database; name another file",
    "SQLITE_CORRUPT": "is damaged; restore it from a copy",
}


def home() -> Path:
    """The folder of the user's own registry: `$CONTRANS_HOME`, or `~/.contrans`."""
    return Path(os.environ.get("CONTRANS_HOME") or "~/.contrans").expanduser()


class Database:
    """One SQLite file or PostgreSQL database.

    Args:
        url: A path, a `sqlite:///…` or `postgresql://…` URL, or None for `home()/registry.db`.

    Attributes:
        path: The SQLite file, or None.
        shown: The URL as people may see it.
    """

    def __init__(self, url: str | Path | None) -> None:
        self._url = _url(home() / "registry.db" if url is None else url)
        self.path = Path(str(self._url.database)) if self._url.get_backend_name() == "sqlite" else None
        self.shown = str(self.path) if self.path else self._url.render_as_string(hide_password=True)
        self._engine = self._create()
        self._pid = os.getpid()
        self._inherited: list[Pool] = []

    def is_missing(self) -> bool:
        """Whether there is no SQLite file yet, or only an empty one.

        Raises:
            RegistryError: If the file is no SQLite database or cannot be read.
        """
        if self.path is None:
            return False
        try:
            with self.path.open("rb") as file:
                start = file.read(len(_MAGIC))
        except FileNotFoundError:
            return True
        except OSError as error:
            raise RegistryError(
                f"The registry {self.shown} cannot be read ({error.strerror}); check your rights on it, or name "
                "another file."
            ) from error
        if start not in (_MAGIC, b""):
            raise RegistryError(f"{self.shown} is not a database; name another file for the registry.")
        return not start

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """A session on one consistent state of the database, which for SQLite a transaction is anyway."""
        engine = self._current_engine()
        if self.path is None:
            engine = engine.execution_options(isolation_level="REPEATABLE READ")
        with self.sentences(), Session(engine, expire_on_commit=False) as session:
            yield session

    @contextmanager
    def writing(self) -> Iterator[Session]:
        """A session that holds SQLite's write lock from the start; all of it is kept, or none."""
        engine = self._current_engine().execution_options(**{_WRITING: True})
        with self.sentences(), Session(engine, expire_on_commit=False) as session, session.begin():
            yield session

    @contextmanager
    def migrating(self) -> Iterator[Connection]:
        """A transaction for changing tables, apart from the pool, without SQLite's foreign-key checks.

        Rebuilding a table, as SQLite needs for most changes, would drop rows that refer to it.
        """
        engine = self._create(poolclass=NullPool, foreign_keys=False)
        with (
            self.sentences(),
            engine.execution_options(**{_WRITING: True}).connect() as connection,
            connection.begin(),
        ):
            yield connection

    @contextmanager
    def sentences(self) -> Iterator[None]:
        """Turns the database's errors into `RegistryError`."""
        try:
            yield
        except DBAPIError as error:
            raise RegistryError(self.sentence(error.orig)) from error
        except PoolTimeoutError as error:
            raise RegistryError(f"The registry {self.shown} is in use by too many threads; use fewer.") from error

    def close(self) -> None:
        """Closes the connections; the next use opens new ones."""
        self._engine.dispose()

    def sentence(self, error: BaseException | None) -> str:
        """Says what a driver's error means and what to do, without the password."""
        name = getattr(error, "sqlite_errorname", "") or ""
        for start, sentence in _SENTENCES.items():
            if name.startswith(start):
                return f"The registry {self.shown} {sentence}."
        # Only the driver's first line: SQLAlchemy's own text would add the statement with its values.
        detail = masked(str(error).strip().partition("\n")[0]) or "the connection was lost"
        if self._url.password:
            detail = detail.replace(str(self._url.password), "***")
        if "OperationalError" in {kind.__name__ for kind in type(error).__mro__}:
            hint = "check its address, your rights and that its server is up"
            return f"The registry {self.shown} cannot be used ({detail}); {hint}."
        return f"The registry {self.shown} refused the request ({detail}); nothing was changed."

    def _current_engine(self) -> Engine:
        if os.getpid() != self._pid:
            # Connections must not cross a fork. They are kept from being closed, since that would
            # talk to the parent's server or files.
            self._inherited.append(self._engine.pool)
            self._engine.dispose(close=False)
            self._pid = os.getpid()
        return self._engine

    def _create(self, *, poolclass: type[Pool] | None = None, foreign_keys: bool = True) -> Engine:
        options: dict[str, Any] = {} if poolclass is None else {"poolclass": poolclass}
        try:
            if self.path is not None:
                engine = create_engine(self._url, **options)
                _tune_sqlite(engine, foreign_keys=foreign_keys)
                return engine
            return create_engine(self._url, pool_pre_ping=True, connect_args={"connect_timeout": 10}, **options)
        except ImportError as error:
            raise RegistryError(
                "A registry on PostgreSQL needs the package psycopg; install 'contrans[postgres]'."
            ) from error


def _url(url: str | Path) -> URL:
    if isinstance(url, Path) or "://" not in url:
        return URL.create("sqlite", database=str(Path(url).expanduser().absolute()))
    try:
        found = make_url(url)
        backend = found.get_backend_name()
        found.get_dialect()
    except (ArgumentError, NoSuchModuleError, ValueError):
        # Without the cause: its message could hold the whole URL, password included.
        raise RegistryError(
            f"{masked(url)!r} is not a database URL; give a path, sqlite:///FILE or "
            "postgresql://USER:PASSWORD@HOST/DATABASE."
        ) from None
    except ImportError as error:
        raise RegistryError(
            "A registry on PostgreSQL needs the package psycopg; install 'contrans[postgres]'."
        ) from error
    if backend == "postgresql":
        return found.set(drivername="postgresql+psycopg")
    if backend != "sqlite":
        raise RegistryError(f"The registry runs on SQLite and PostgreSQL, not on {backend}; give such a URL.")
    if not found.database or found.database.startswith((":memory:", "file:")) or found.query:
        raise RegistryError("The registry on SQLite is a plain file that several programs share; give sqlite:///FILE.")
    return URL.create("sqlite", database=str(Path(found.database).expanduser().absolute()))


def _tune_sqlite(engine: Engine, *, foreign_keys: bool) -> None:
    def connect(connection: Any, record: Any) -> None:
        connection.isolation_level = None  # else the driver begins transactions when it likes
        for pragma in (
            f"busy_timeout={BUSY_SECONDS * 1000}",
            f"foreign_keys={'ON' if foreign_keys else 'OFF'}",
            "synchronous=NORMAL",
        ):
            connection.execute(f"PRAGMA {pragma}")

    def begin(connection: Connection) -> None:
        writing = connection.get_execution_options().get(_WRITING, False)
        # A transaction that reads first and then writes fails at once if another one wrote between.
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")

    event.listen(engine, "connect", connect)
    event.listen(engine, "begin", begin)
