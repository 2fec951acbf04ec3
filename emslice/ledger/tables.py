"""The ledger's tables, and transactions on the database that holds them.

A transaction that returned is durable. SQLite keeps a rollback journal: the old pages are flushed
to it before new ones are written, and the commit is the journal's removal. ``synchronous=EXTRA``
is FULL plus a flush of the folder after that removal, without which a power cut could bring the
journal, and with it the old state, back. Never WAL: it needs memory shared by all who open the
file, which hosts on a network file system do not have.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Engine,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    create_engine,
    event,
    insert,
    inspect,
    make_url,
    select,
)
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, NoSuchModuleError

from emslice.errors import ConfigError, StorageError

SCHEMA = 1
BUSY_S = 30.0
"""How long a transaction waits for another one before it gives up."""

METADATA = MetaData()
ABOUT = Table(
    "about",
    METADATA,
    Column("name", String, primary_key=True),
    Column("value", String, nullable=False),
)
LEASE = Table(
    "lease",
    METADATA,
    Column("id", Integer, primary_key=True, autoincrement=False),  # one row, 1
    Column("number", BigInteger, nullable=False),  # highest fencing number given out
    Column("owner", String),  # null: nobody holds it
    Column("host", String),
    Column("machine", String),
    Column("pid", BigInteger),
    Column("started", BigInteger),
    Column("since", Float),  # seconds since 1970, like all times here
    Column("expires", Float),
)
ATTEMPT = Table(
    "attempt",
    METADATA,
    Column(
        "id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=False
    ),
    Column("stage", String, nullable=False),
    Column("fingerprint", String, nullable=False),
    Column("key", String, nullable=False),
    Column("worker", String, nullable=False),
    Column("started", String, nullable=False),
    Column("seconds", Float, nullable=False),
    Column("peak_bytes", BigInteger, nullable=False),
    Column("outcome", String, nullable=False),
    Column("error", Text),
    Column("facts", Text, nullable=False),
    Index("attempt_by_task", "fingerprint", "outcome", "key"),
)


def _of_one_task(name: str, *more: Column[Any]) -> Table:
    """Table with at most one row a task, which points at the attempt that made it."""
    return Table(
        name,
        METADATA,
        # The primary key, so that deleting an attempt finds the row that points at it.
        Column("attempt_id", ForeignKey(ATTEMPT.c.id), primary_key=True, autoincrement=False),
        Column("fingerprint", String, nullable=False),
        Column("key", String, nullable=False),
        *more,
        UniqueConstraint("fingerprint", "key"),
    )


DONE = _of_one_task("done")
QUARANTINE = _of_one_task("quarantine", Column("reason", Text, nullable=False))


class Database:
    """Transactions, short ones, for any number of threads.

    Writers take turns: threads by a lock, processes by the database. A transaction that raises
    leaves nothing behind.
    """

    def __init__(self, url_or_path: str | Path, create: bool = True) -> None:
        """Open, and create unless there is one or ``create`` is off.

        Raises
        ------
        ConfigError
            No such place, not a ledger, or one from a later emslice.
        """
        self.place, self._engine = _engine(url_or_path, create)
        self._turn = threading.Lock()
        try:
            self._check_schema(create)
        except BaseException:
            self.close()
            raise

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Transaction that sees one state of the ledger. While it lasts, no writer can commit."""
        with self._translated(), self._engine.begin() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """Transaction that is alone from its start: what it reads is what it changes."""
        writer = self._engine.execution_options(emslice_write=True)
        with self._turn, self._translated(), writer.begin() as connection:
            yield connection

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except IntegrityError:
            raise  # our mistake, not the store's
        except DBAPIError as error:
            hint = ""
            if "locked" in str(error.orig):
                hint = f" for {BUSY_S:.0f} s by another process, which may be stopped or hung"
            raise StorageError(f"ledger {self.place}: {error.orig}{hint}") from error

    def _check_schema(self, create: bool) -> None:
        try:
            with self.reading() as connection:
                found = _schema(connection)
            if found is None and create:
                with self.writing() as connection:
                    found = _schema(connection)
                    if found is None:
                        found = _create(connection, self.place)
        except StorageError as error:
            if "not a database" not in str(error):
                raise
            found = None
        if found is None:
            raise ConfigError(f"{self.place}: not a ledger of emslice. Give the folder of a run.")
        if found > SCHEMA:
            raise ConfigError(
                f"{self.place}: the ledger has schema {found}, this emslice knows {SCHEMA}. "
                f"Update emslice."
            )


def _schema(connection: Connection) -> int | None:
    if not inspect(connection).has_table(ABOUT.name):
        return None
    found = connection.scalar(select(ABOUT.c.value).where(ABOUT.c.name == "schema"))
    return None if found is None else int(found)


def _create(connection: Connection, place: str) -> int:
    if names := inspect(connection).get_table_names():
        raise ConfigError(f"{place}: a database of something else; it holds the table {names[0]}.")
    METADATA.create_all(connection)
    connection.execute(insert(LEASE).values(id=1, number=0))
    connection.execute(insert(ABOUT).values(name="schema", value=str(SCHEMA)))
    return SCHEMA


def _engine(url_or_path: str | Path, create: bool) -> tuple[str, Engine]:
    """(name for people, without a password; engine)."""
    text = str(url_or_path)
    if "://" not in text:
        text = f"sqlite:///{Path(text).absolute()}"
    try:
        url = make_url(text)
        if url.get_backend_name() != "sqlite":
            engine = create_engine(url)
            return url.render_as_string(hide_password=True), engine
    except (ArgumentError, NoSuchModuleError, ImportError) as error:
        raise ConfigError(
            f"ledger {text.partition('://')[0]}://...: {error}. "
            f"Give the path of an SQLite file, or a URL whose driver is installed."
        ) from error
    path = Path(url.database or ":memory:")
    if path.name == ":memory:" or not path.parent.is_dir():
        raise ConfigError(f"ledger {path}: there is no folder {path.parent}")
    if not create and not path.exists():
        raise ConfigError(f"{path}: there is no ledger. Give the folder of a run.")
    engine = create_engine(url, connect_args={"timeout": BUSY_S})
    event.listen(engine, "connect", _on_connect)
    event.listen(engine, "begin", _on_begin)
    return str(path), engine


def _on_connect(connection: Any, _: object) -> None:
    # Python's sqlite3 would begin transactions by itself, too late and of the wrong kind.
    connection.isolation_level = None
    for pragma in ("journal_mode=DELETE", "synchronous=EXTRA", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}").close()


def _on_begin(connection: Connection) -> None:
    # A reader that turns writer cannot wait for another writer without a deadlock: say it first.
    write = connection.get_execution_options().get("emslice_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")
