"""The file: its tables, how it is opened, and the one place where an error of SQLite becomes a `HistoryError`.

Every operation opens the file anew and is one transaction, so that runs which use it at once wait for each other for
milliseconds, a killed one leaves nothing half written, and no connection crosses a fork.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Literal

from bocr_onnx.errors import HistoryError

APPLICATION_ID = int.from_bytes(b"BOCR")
SCHEMA = 2
BUSY_S = 30.0
HINT = "Use another file: `history=FILE`, or none: `history=none`"

_TRIALS = """CREATE TABLE trials (
        search_key TEXT NOT NULL, number INTEGER NOT NULL, widths TEXT NOT NULL, use REAL NOT NULL,
        quantities TEXT NOT NULL, score REAL, objective REAL, first REAL, seconds REAL NOT NULL, state TEXT NOT NULL,
        PRIMARY KEY (search_key, number)) WITHOUT ROWID"""

_TABLES = (
    "CREATE TABLE meta (schema INTEGER NOT NULL)",
    """CREATE TABLE searches (
        key TEXT PRIMARY KEY NOT NULL, model_sha256 TEXT NOT NULL, model TEXT NOT NULL, data_digest TEXT NOT NULL,
        recover TEXT NOT NULL, strategy TEXT NOT NULL, seed TEXT NOT NULL, grid INTEGER NOT NULL,
        budget TEXT NOT NULL, group_names TEXT NOT NULL, full TEXT NOT NULL, features TEXT NOT NULL,
        published TEXT NOT NULL, allocation TEXT NOT NULL, version TEXT NOT NULL, created TEXT NOT NULL)""",
    _TRIALS,
    "CREATE INDEX searches_by_model ON searches (model_sha256, data_digest)",
    f"INSERT INTO meta VALUES ({SCHEMA})",
    f"PRAGMA application_id = {APPLICATION_ID}",
    f"PRAGMA user_version = {SCHEMA}",
)

_MIGRATIONS: dict[int, tuple[str, ...]] = {
    1: (  # each quantity had a column of its own
        "ALTER TABLE trials RENAME TO trials_1",
        _TRIALS,
        """INSERT INTO trials SELECT search_key, number, widths, use,
            CASE WHEN typeof(macs) || typeof(params) || typeof(size_bytes) = 'integerintegerinteger'
            THEN printf('{"macs":%d,"params":%d,"size_bytes":%d}', macs, params, size_bytes) ELSE '' END,
            score, objective, first, seconds, state FROM trials_1""",
        "DROP TABLE trials_1",
    )
}
"""Statements that make the next schema of an older one."""


@contextmanager
def transaction(path: Path, kind: Literal["DEFERRED", "IMMEDIATE"]) -> Iterator[sqlite3.Connection]:
    """Yields a connection to the history; the block is one transaction, undone where it raises.

    Args:
        path: The file; made, with its folders, where it does not exist.
        kind: DEFERRED to read, IMMEDIATE to write.

    Raises:
        HistoryError: The file is not a history, is of a newer bocr-onnx, is damaged, or may not be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(path, timeout=BUSY_S, isolation_level=None)) as connection:
            _prepare(connection, path)
            connection.execute(f"BEGIN {kind}")
            yield connection
            connection.execute("COMMIT")
    except (sqlite3.Error, OSError) as error:
        raise HistoryError(f"history {path} must be a usable file of bocr-onnx, got: {error}", hint=HINT) from error


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    """Makes the tables where the file is blank, and refuses a file that is not ours; such a one is not changed."""
    if _blank(connection):
        connection.execute("BEGIN IMMEDIATE")
        if _blank(connection):  # else another run has just made it
            for statement in _TABLES:
                connection.execute(statement)
        connection.execute("COMMIT")
    if _number(connection, "PRAGMA application_id") != APPLICATION_ID:
        raise HistoryError(f"history {path} must be a history of bocr-onnx, got another database", hint=HINT)
    schema = _migrated(connection)
    if schema > SCHEMA:
        raise HistoryError(
            f"history {path} must be of schema {SCHEMA}, got {schema}, of a newer bocr-onnx",
            hint=f"pip install -U bocr-onnx. {HINT}",
        )
    if schema != SCHEMA:
        raise HistoryError(f"history {path} must be of schema {SCHEMA}, got {schema}", hint=HINT)
    with suppress(sqlite3.OperationalError):  # another run has it open; it works without, only slower
        connection.execute("PRAGMA journal_mode = WAL")


def _migrated(connection: sqlite3.Connection) -> int:
    """Returns the schema of the file, brought to this version where an older one can be."""
    if _number(connection, "PRAGMA user_version") in _MIGRATIONS:
        connection.execute("BEGIN IMMEDIATE")
        while (schema := _number(connection, "PRAGMA user_version")) in _MIGRATIONS:  # else another run was first
            for statement in (*_MIGRATIONS[schema], f"UPDATE meta SET schema = {schema + 1}"):
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {schema + 1}")
        connection.execute("COMMIT")
    return _number(connection, "PRAGMA user_version")


def _blank(connection: sqlite3.Connection) -> bool:
    known = ("PRAGMA application_id", "PRAGMA user_version", "SELECT count(*) FROM sqlite_master")
    return not any(_number(connection, query) for query in known)


def _number(connection: sqlite3.Connection, query: str) -> int:
    return int(connection.execute(query).fetchone()[0])
