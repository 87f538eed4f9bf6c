"""One private SQLite file: opened, checked, and written row by row.

Law: a file that others could read or write, that somebody else made, or that a newer vcfwd wrote
is refused with a sentence, never repaired and never overwritten.  One process holds a file at a
time.  A transaction is in the kernel's hands when it returns, so it survives the end of this
process, however it ends; what survives the end of the machine is the file system's matter.
"""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

from forwarder.errors import HostError

APPLICATION_ID = 0x76636677
"""SQLite's application_id of all files of vcfwd: "vcfw"."""
BUSY_S = 2.0
"""Seconds to wait for an old process that is just ending."""

COLUMN = {
    "int": "INTEGER",
    "int | None": "INTEGER",
    "str": "TEXT",
    "bytes": "BLOB",
    "float": "REAL",
}

Record = TypeVar("Record")


class StoreError(HostError):
    """A file of state cannot be used; the sentence says which, why, and what to do."""


def private_directory(path: Path) -> None:
    """Makes the directory (mode 0700), or checks that nobody else could put files into it."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = path.stat()
    except OSError as error:
        raise StoreError(f"{path}: cannot be made: {error.strerror}") from error
    if found.st_uid not in (0, os.geteuid()):
        raise StoreError(f"{path} belongs to user {found.st_uid}: choose a directory of your own")
    if found.st_mode & 0o022:
        raise StoreError(
            f"{path} can be written to by others (mode {stat.S_IMODE(found.st_mode):04o}): "
            f"chmod go-w {path}"
        )


def _check_file(path: Path) -> None:
    """Makes the file (mode 0600), or checks whose it is."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        pass
    except OSError as error:
        raise StoreError(f"{path}: cannot be made: {error.strerror}") from error
    found = path.lstat()
    if not stat.S_ISREG(found.st_mode):
        raise StoreError(f"{path} is not a regular file: remove it")
    if found.st_uid != os.geteuid():
        raise StoreError(f"{path} belongs to user {found.st_uid}: run as that user, or remove it")
    if found.st_mode & 0o077:
        raise StoreError(
            f"{path} is open to others (mode {stat.S_IMODE(found.st_mode):04o}), and what they "
            "could have read or written is not to be trusted: remove it"
        )


Upgrades = Mapping[int, Sequence[str] | None]
"""By an earlier schema: the statements that lead to the next one; None: what is in a file of it is
thrown away.  A schema that is not named is refused."""


class Database:
    """Tables of flat records; the first field of a record is its key."""

    def __init__(
        self,
        path: Path,
        schema: int,
        tables: dict[str, type[Any]],
        upgrades: Upgrades,
        *,
        synchronous: str,
    ) -> None:
        self.path = path
        self._tables = tables
        self._upgrades = upgrades
        private_directory(path.parent)
        _check_file(path)
        try:
            self._open(schema, synchronous)
        except sqlite3.OperationalError as error:
            if "locked" in str(error):
                raise StoreError(f"{path} is in use: does another vcfwd run here?") from error
            raise StoreError(f"{path}: {error}") from error
        except sqlite3.DatabaseError as error:
            raise StoreError(f"{path} is damaged ({error}): remove it") from error

    def _open(self, schema: int, synchronous: str) -> None:
        self._db = sqlite3.connect(self.path, isolation_level=None, timeout=BUSY_S)
        try:
            self._db.execute("PRAGMA locking_mode = EXCLUSIVE")
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute(f"PRAGMA synchronous = {synchronous}")
            self._db.execute("PRAGMA secure_delete = ON")
            self._db.execute("BEGIN IMMEDIATE")
            self._check_schema(schema)
            self._db.execute("COMMIT")
        except BaseException:
            self._db.close()
            raise

    def _check_schema(self, schema: int) -> None:
        found = self._pragma("user_version")
        empty = self._db.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0] == 0
        if empty and found == 0:
            self._create()
            self._db.execute(f"PRAGMA user_version = {schema}")
            self._db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        elif self._pragma("application_id") != APPLICATION_ID:
            raise StoreError(f"{self.path} is a database of another program: move it away")
        elif found > schema:
            raise StoreError(
                f"{self.path} was written by a newer vcfwd (schema {found}, this one knows "
                f"{schema}): start that version, or remove the file and lose what is in it"
            )
        elif found < schema:
            self._upgrade(found, schema)

    def _create(self) -> None:
        for name, kind in self._tables.items():
            self._db.execute(f"CREATE TABLE {name} ({_columns(kind)})")

    def _upgrade(self, found: int, schema: int) -> None:
        """In the transaction that opens the file: all of it, or nothing."""
        for version in range(found, schema):
            if version not in self._upgrades:
                raise StoreError(
                    f"{self.path} was written by an older vcfwd (schema {found}, this one needs "
                    f"{schema}): remove the file and lose what is in it"
                )
        for version in range(found, schema):
            statements = self._upgrades[version]
            if statements is None:
                named = "SELECT name FROM sqlite_schema WHERE type = 'table'"
                for (name,) in self._db.execute(named).fetchall():
                    self._db.execute(f'DROP TABLE "{name}"')
                self._create()
                break
            for statement in statements:
                self._db.execute(statement)
        self._db.execute(f"PRAGMA user_version = {schema}")

    def _pragma(self, name: str) -> int:
        return int(self._db.execute(f"PRAGMA {name}").fetchone()[0])

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All that is written inside, or nothing (StoreError)."""
        try:
            self._db.execute("BEGIN IMMEDIATE")
            yield
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            self._undo()
            raise StoreError(f"{self.path} cannot be written: {error}") from error
        except BaseException:
            self._undo()
            raise

    def _undo(self) -> None:
        if self._db.in_transaction:
            self._db.execute("ROLLBACK")

    def put(self, table: str, records: Sequence[Any]) -> None:
        """Inserts, or replaces what has the same key."""
        if records:
            names = [f.name for f in fields(self._tables[table])]
            marks = ", ".join("?" * len(names))
            rows = [tuple([getattr(record, name) for name in names]) for record in records]
            self._db.executemany(f"INSERT OR REPLACE INTO {table} VALUES ({marks})", rows)

    def delete(self, table: str, keys: Iterable[int | str]) -> None:
        """Removes; keys that are not there are no fault."""
        key = fields(self._tables[table])[0].name
        self._db.executemany(f"DELETE FROM {table} WHERE {key} = ?", [(k,) for k in keys])

    def clear(self, table: str) -> None:
        self._db.execute(f"DELETE FROM {table}")

    def all(self, table: str, kind: type[Record]) -> tuple[Record, ...]:
        """Every record, by key."""
        key = fields(self._tables[table])[0].name
        try:
            rows = self._db.execute(f"SELECT * FROM {table} ORDER BY {key}").fetchall()
            return tuple(kind(*row) for row in rows)
        except (sqlite3.DatabaseError, TypeError) as error:
            raise StoreError(f"{self.path} is damaged ({error}): remove it") from error

    def close(self) -> None:
        self._db.close()


def _columns(kind: type[Any]) -> str:
    first, *rest = fields(kind)
    columns = [f"{first.name} {COLUMN[str(first.type)]} PRIMARY KEY"]
    for f in rest:
        null = "" if "None" in str(f.type) else " NOT NULL"
        columns.append(f"{f.name} {COLUMN[str(f.type)]}{null}")
    return ", ".join(columns)
