"""The history of searches: they begin, their trials are added, and later searches ask what is known.

What a search asks for (`same`, `others`) leaves damaged rows out; what a person asks for (`list`, `show`, `export`)
names the damaged search; `forget` reads nothing but keys, so that it can remove that one.
"""

from __future__ import annotations

from pathlib import Path
from typing import TextIO

from bocr_onnx.errors import OutputError, UsageError
from bocr_onnx.graph import check_writable, write_text
from bocr_onnx.search.history import rows
from bocr_onnx.search.history.recall import recall_others, recall_same
from bocr_onnx.search.history.records import HistoryRow, SearchRecord, StoredSearch, StoredTrial
from bocr_onnx.search.history.schema import transaction
from bocr_onnx.search.history.stored import find_key, read_lines, read_stored
from bocr_onnx.search.prior import PriorSearch
from bocr_onnx.search.trial import Trial

EXPORT_SCHEMA = 1


class History:
    """A file of searches; several runs may use it at once.

    Every method raises `HistoryError` where the file cannot be used: it is not a history, is of a newer bocr-onnx, is
    damaged, may not be written, or another run holds it for too long.

    Args:
        path: The SQLite file; made, with its folders, by the first operation.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).absolute()

    def begin(self, record: SearchRecord) -> None:
        """Writes a search; the same search again takes its place and keeps its trials."""
        marks = ", ".join("?" * len(rows.SEARCH_COLUMNS))
        update = ", ".join(f"{c} = excluded.{c}" for c in rows.SEARCH_COLUMNS[1:])
        query = f"INSERT INTO searches ({rows.SEARCHES}) VALUES ({marks}) ON CONFLICT (key) DO UPDATE SET {update}"
        with transaction(self.path, "IMMEDIATE") as connection:
            connection.execute(query, rows.search_values(record))

    def add(self, key: str, stored: StoredTrial) -> None:
        """Writes a trial that ended, in place of one of the same number.

        Does nothing for a trial that was not scored, or not to a finite value, and for a search that was never begun
        or has been forgotten since.
        """
        if not rows.is_kept(stored.trial):
            return
        marks = ", ".join("?" * len(rows.TRIAL_COLUMNS))
        query = f"INSERT OR REPLACE INTO trials ({rows.TRIALS}) SELECT {marks} FROM searches WHERE key = ?"
        with transaction(self.path, "IMMEDIATE") as connection:
            connection.execute(query, (*rows.trial_values(key, stored), key))

    def same(
        self,
        model_sha256: str,
        data_digest: str,
        recover: str,
        group_names: tuple[str, ...],
        full: tuple[int, ...],
        *,
        without: str,
    ) -> tuple[Trial, ...]:
        """Returns the COMPLETE trials of one model on one set of images: values of the same function.

        They may have any budget, strategy and seed; oldest search first, numbered anew from 0. Each policy appears
        once: its first trial.

        Args:
            model_sha256: Digest of the model.
            data_digest: Digest of the images.
            recover: Recovery of the emitted model.
            group_names: Groups of channels.
            full: Channels of each group.
            without: Key of the search that is left out.
        """
        groups = rows.dumps(group_names), rows.dumps(full)
        with transaction(self.path, "DEFERRED") as connection:
            return recall_same(connection, (model_sha256, data_digest, recover), groups, without)

    def others(self, model_sha256: str, *, limit: int = 5) -> tuple[PriorSearch, ...]:
        """Returns the newest search of every other model, newest first.

        Those with fewer than 10 COMPLETE trials are left out, and those whose features another version has computed.

        Args:
            model_sha256: Digest of the model that is searched now.
            limit: Searches to return at most.
        """
        with transaction(self.path, "DEFERRED") as connection:
            return recall_others(connection, model_sha256, limit)

    def list(self) -> tuple[HistoryRow, ...]:
        """Returns every search in a line, newest first."""
        with transaction(self.path, "DEFERRED") as connection:
            return read_lines(connection, self.path)

    def show(self, prefix: str) -> StoredSearch:
        """Returns the search whose key begins with `prefix`, and its trials.

        Raises:
            UsageError: There is none, or several.
        """
        with transaction(self.path, "DEFERRED") as connection:
            return read_stored(connection, find_key(connection, prefix), self.path)

    def export(self, to: Path | TextIO) -> int:
        """Writes everything as JSON, oldest search first, and returns the number of searches.

        Raises:
            OutputError: The file cannot be written, or is the history.
        """
        if isinstance(to, Path) and check_writable(to).resolve() == self.path.resolve():
            raise OutputError(f"output {to} must not be the history itself", hint="Name another file with -o")
        with transaction(self.path, "DEFERRED") as connection:
            keys = [key for (key,) in connection.execute("SELECT key FROM searches ORDER BY created, rowid")]
            searches = [read_stored(connection, key, self.path).as_json() for key in keys]
        text = rows.dumps({"schema": EXPORT_SCHEMA, "searches": searches}) + "\n"
        if isinstance(to, Path):
            write_text(to, text)
        else:
            to.write(text)
        return len(searches)

    def forget(self, prefix: str | None = None, *, model_sha256: str | None = None, everything: bool = False) -> int:
        """Removes searches with their trials and returns how many: one by its key, those of a model, or all.

        Raises:
            UsageError: None or several of the three are given, or `prefix` is of no search or of several.
        """
        if (prefix is not None) + (model_sha256 is not None) + everything != 1:
            raise UsageError("what to forget must be one of a key, a model and everything")
        with transaction(self.path, "IMMEDIATE") as connection:
            wanted = model_sha256 if prefix is None else find_key(connection, prefix)
            where = "? IS NULL" if everything else "model_sha256 = ?" if prefix is None else "key = ?"
            chosen = f"SELECT key FROM searches WHERE {where}"
            connection.execute(f"DELETE FROM trials WHERE search_key IN ({chosen})", (wanted,))
            return connection.execute(f"DELETE FROM searches WHERE {where}", (wanted,)).rowcount
