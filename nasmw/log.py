"""The log of a run: one SQLite file that holds what was asked, measured, finished and told, in that order.

The log is the state. Events are written in the order in which they happened, and what was written survives the end
of the process at any instant; so replaying the events brings a deterministic chain back to where it was.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sqlite3
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs
import numpy as np

from nasmw.candidates import Candidates, Floats, Status
from nasmw.context import Compute, Funnel, finite
from nasmw.errors import LogError, LogInUseError
from nasmw.space import Space

__all__ = ["Event", "Log", "TrialRecord"]

FORMAT = 1
SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE events (
    seq INTEGER PRIMARY KEY, kind TEXT NOT NULL, number INTEGER, data TEXT, time REAL NOT NULL);
CREATE TABLE trials (
    number INTEGER PRIMARY KEY, seq INTEGER NOT NULL, trace TEXT NOT NULL,
    candidate INTEGER NOT NULL, codes BLOB NOT NULL, columns TEXT NOT NULL,
    status TEXT, metrics TEXT, reason TEXT, traceback TEXT, reports TEXT, started REAL, seconds REAL);
CREATE TABLE recorded (name TEXT, codes BLOB, value REAL NOT NULL, PRIMARY KEY (name, codes)) WITHOUT ROWID;
CREATE TABLE funnel (
    epoch INTEGER, stage TEXT, status TEXT, cause TEXT, number INTEGER NOT NULL,
    PRIMARY KEY (epoch, stage, status, cause)) WITHOUT ROWID;
"""


# `default` turns mappings of other types into dicts.
_json = json.JSONEncoder(default=dict).encode


@attrs.frozen
class Event:
    """One line of the log.

    Attributes:
        seq: Its place in the order.
        kind: ``begin``, ``ask``, ``dry`` (an ask that gave nothing), ``tell``, ``epoch`` (of training before the first
            ask), ``end`` or ``interrupted``.
        number: The trial that it is about, or None.
        data: What else there is to say, by kind.
    """

    seq: int
    kind: str
    number: int | None
    data: dict[str, Any]


@attrs.frozen(eq=False)
class TrialRecord:
    """What is known of one trial.

    Attributes:
        number: Its place in the order of asking, from 0.
        architecture: One option for each active choice.
        status: ``completed``, ``failed`` or ``stopped``; None while it has no result.
        metrics: What the evaluation returned, by name.
        columns: What profilers said when it was asked, by name.
        reason: Why it failed, in one line; else empty.
        traceback: The traceback of a failure; else empty.
        reports: The (step, value) pairs that it reported on the way.
        started: When it started, in seconds since the epoch.
        seconds: How long it took.
    """

    number: int
    architecture: dict[str, Any]
    codes: bytes = attrs.field(repr=False)
    candidate: int = attrs.field(repr=False)
    columns: Mapping[str, float]
    status: Status | None = None
    metrics: Mapping[str, float] = attrs.field(factory=dict)
    reason: str = ""
    traceback: str = attrs.field(default="", repr=False)
    reports: tuple[tuple[int, float], ...] = attrs.field(default=(), repr=False)
    started: float = attrs.field(default=float("nan"), repr=False)
    seconds: float = float("nan")

    @property
    def values(self) -> dict[str, float]:
        """Every number about the trial: what profilers said, and what the evaluation returned."""
        return {**self.columns, **self.metrics}


class Log:
    """One run's log, opened for writing by one process at a time, or for reading by any.

    Args:
        path: The file; None keeps the log in memory.
        readonly: Open an existing log, without the lock.

    Raises:
        LogInUseError: If another run holds it; names process and host.
        LogError: If the file is missing (readonly), is no log, is damaged, or is of a newer format.
    """

    def __init__(self, path: str | os.PathLike[str] | None, *, readonly: bool = False) -> None:
        self.path = None if path is None else Path(path).absolute()
        self._lock: sqlite3.Connection | None = None
        self._committed_all = 0.0
        if self.path is not None and not self.path.parent.is_dir():
            raise LogError(f"the folder of the log does not exist: {self.path.parent}")
        if self.path is not None and self.path.is_dir():
            raise LogError(f"the log is one file, and {self.path} is a folder; name a file in it, such as run.db")
        if readonly and (self.path is None or not self.path.is_file()):
            raise LogError(f"there is no log at {self.path}")
        try:
            with self._clear_errors("open"):
                if not readonly and self.path is not None:
                    self._lock = self._take_lock(self.path)
                target = ":memory:" if self.path is None else f"{self.path.as_uri()}?mode={_mode(self.path, readonly)}"
                self._db = sqlite3.connect(target, uri=True, isolation_level=None, timeout=10)
                self._prepare(readonly)
        except BaseException:
            self.close()
            raise
        self._seq = self._db.execute(
            "SELECT max((SELECT coalesce(max(seq), 0) FROM events), (SELECT coalesce(max(seq), 0) FROM trials))"
        ).fetchone()[0]
        self._epoch = self._db.execute("SELECT coalesce(max(seq), 0) FROM events WHERE kind = 'begin'").fetchone()[0]
        self._values: dict[tuple[str, bytes], float] = {
            (name, codes): value for name, codes, value in self._db.execute("SELECT name, codes, value FROM recorded")
        }
        self._counted: dict[tuple[str, str, str], int] = {}

    def _take_lock(self, path: Path) -> sqlite3.Connection:
        """Hold a write lock on a file beside the log; the operating system frees it however this process ends."""
        lock = sqlite3.connect(f"{path}.lock", isolation_level=None, timeout=0)
        try:
            lock.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            lock.close()
            if "locked" not in str(error):
                raise
            raise LogInUseError(
                f"{path} is in use by {self._holder(path)}; wait for that run, end it, or log to another file"
            ) from None
        return lock

    @staticmethod
    def _holder(path: Path) -> str:
        try:
            with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as db:
                return str(db.execute("SELECT value FROM meta WHERE key = 'holder'").fetchone()[0])
        except (sqlite3.Error, TypeError):
            return "another process"

    def _prepare(self, readonly: bool) -> None:
        tables = {name for (name,) in self._db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if tables and "meta" not in tables:
            raise LogError(f"{self.path} is a database of something else, not a log of nasmw; log to another file")
        if not tables:
            if readonly:
                raise LogError(f"{self.path} is empty: no run has written to it yet")
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("BEGIN")
            for statement in SCHEMA.strip().split(";\n"):
                self._db.execute(statement)
            self._db.execute("INSERT INTO meta VALUES ('format', ?)", (str(FORMAT),))
            self._db.execute("COMMIT")
        found = self._db.execute("SELECT value FROM meta WHERE key = 'format'").fetchone()
        if found is None or int(found[0]) != FORMAT:
            raise LogError(f"{self.path} has log format {found and found[0]}; this version of nasmw reads {FORMAT}")
        if not readonly:
            sound = self._db.execute("PRAGMA quick_check(1)").fetchone()[0]
            if sound != "ok":
                raise sqlite3.DatabaseError(f"malformed ({' '.join(str(sound).split())})")
            self._db.execute("PRAGMA synchronous = NORMAL")
            self._db.execute("PRAGMA wal_autocheckpoint = 4000")
            self.write_meta("holder", f"process {os.getpid()} on {socket.gethostname()}")
            self.commit()

    @contextlib.contextmanager
    def _clear_errors(self, doing: str) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise self._explained(doing, error) from error

    def _explained(self, doing: str, error: sqlite3.Error) -> LogError:
        text = str(error)
        if "full" in text or "disk I/O" in text:
            remedy = "free some space and start again: what had finished is kept, and the run goes on"
        elif "malformed" in text or "not a database" in text:
            remedy = "the file is damaged or no log; restore a copy, try sqlite3's .recover, or log to another file"
        elif "unable to open" in text or "readonly" in text or "read-only" in text:
            remedy = "check that the file and its folder may be written"
        else:
            remedy = "start again: what had finished is kept"
        return LogError(f"cannot {doing} the log {self.path}: {text}; {remedy}")

    def close(self) -> None:
        """Commit, close the file and free the lock."""
        if (db := getattr(self, "_db", None)) is not None:
            if db.in_transaction:
                with contextlib.suppress(sqlite3.Error):
                    db.execute("COMMIT")
            db.close()
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def __enter__(self) -> Log:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    # -- writing ------------------------------------------------------------------------------------------------

    def _write(self, statement: str, values: tuple[Any, ...]) -> None:
        try:
            if not self._db.in_transaction:
                self._db.execute("BEGIN")
            self._db.execute(statement, values)
        except sqlite3.Error as error:
            raise self._explained("write to", error) from error

    def commit(self, funnel: Funnel | None = None) -> None:
        """Make everything written so far outlive this process, with the counts of a funnel, if one is given."""
        if funnel is not None:
            self._count(funnel)
        if self._db.in_transaction:
            try:
                self._db.execute("COMMIT")
            except sqlite3.Error as error:
                raise self._explained("write to", error) from error

    def commit_now_and_then(self, funnel: Funnel) -> None:
        """Commit with the counts of a funnel, unless that was done within the last 20 ms.

        For what a replay asks and counts again in any case: it need not outlive the process, yet others want to see it.
        """
        if time.monotonic() - self._committed_all > 0.02:
            self.commit(funnel)
            self._committed_all = time.monotonic()

    def write_meta(self, key: str, value: str) -> None:
        """Set one entry of the description of the log."""
        self._write("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))

    def event(self, kind: str, number: int | None = None, data: dict[str, Any] | None = None) -> None:
        """Write what happened next."""
        self._seq += 1
        text = None if data is None else _json(data)
        self._write("INSERT INTO events VALUES (?, ?, ?, ?, ?)", (self._seq, kind, number, text, time.time()))
        if kind == "begin":
            self._epoch = self._seq
            self._counted = {}

    def take_back_tells(self, seq: int) -> None:
        """Forget what was told after the event `seq`."""
        self._write("DELETE FROM events WHERE kind = 'tell' AND seq > ?", (seq,))

    def asked(self, record: TrialRecord, data: dict[str, Any]) -> None:
        """Write that a trial was asked: the event and the trial in one row."""
        self._seq += 1
        self._write(
            "INSERT INTO trials (number, seq, trace, candidate, codes, columns) VALUES (?, ?, ?, ?, ?, ?)",
            (record.number, self._seq, _json(data), record.candidate, record.codes, _json(record.columns)),
        )

    def finished(self, record: TrialRecord, *, commit: bool = True) -> None:
        """Write the result of a trial, and commit."""
        self._write(
            "UPDATE trials SET status = ?, metrics = ?, reason = ?, traceback = ?, reports = ?, started = ?, "
            "seconds = ? WHERE number = ?",
            (
                str(record.status),
                _json(record.metrics),
                record.reason,
                record.traceback,
                _json(record.reports),
                record.started,
                record.seconds,
                record.number,
            ),
        )
        if commit:
            self.commit()

    def forget(self, *, values: bool) -> None:
        """Forget the events of a log that holds no trial yet; recorded values and epochs only if `values`."""
        self._write("DELETE FROM events WHERE kind <> 'epoch' OR ?", (values,))
        self._write("DELETE FROM funnel", ())
        if values:
            self._write("DELETE FROM recorded", ())
            self._values.clear()

    def _count(self, funnel: Funnel) -> None:
        """Write the counts of the funnel that have changed."""
        for key, number in funnel.counts.items():
            if self._counted.get(key) != number:
                self._counted[key] = number
                self._write("INSERT OR REPLACE INTO funnel VALUES (?, ?, ?, ?, ?)", (self._epoch, *key, number))

    def recorded(self, name: str, candidates: Candidates, compute: Compute) -> Floats:
        """Return recorded values, ``(n,)``; those missing are computed one by one, written and committed before use."""
        keys = [(name, key) for key in candidates.row_keys()]
        for row, key in enumerate(keys):
            if key not in self._values:
                value = finite(name, candidates[row], compute)
                self._write("INSERT INTO recorded VALUES (?, ?, ?)", (*key, value))
                self.commit()
                self._values[key] = value
        return np.array([self._values[key] for key in keys], dtype=np.float64)

    def note(self, data: Mapping[str, Any]) -> None:
        """Write what came of an epoch of training, and commit."""
        self.event("epoch", None, dict(data))
        self.commit()

    # -- reading ------------------------------------------------------------------------------------------------

    def notes(self) -> list[dict[str, Any]]:
        """Return what came of the epochs of training, in order."""
        return [event.data for event in self.events() if event.kind == "epoch"]

    def meta(self, key: str) -> str | None:
        """Return one entry of the description of the log."""
        with self._clear_errors("read"):
            row = self._db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return None if row is None else str(row[0])

    @property
    def holds_trials(self) -> bool:
        """Whether a trial was ever asked."""
        with self._clear_errors("read"):
            return self._db.execute("SELECT 1 FROM trials LIMIT 1").fetchone() is not None

    def events(self) -> Iterator[Event]:
        """Return all events in order."""
        with self._clear_errors("read"):
            rows = self._db.execute(
                "SELECT seq, kind, number, data FROM events "
                "UNION ALL SELECT seq, 'ask', number, trace FROM trials ORDER BY seq"
            )
            for seq, kind, number, data in rows:
                yield Event(seq, kind, number, json.loads(data) if data else {})

    def trials(self, space: Space) -> list[TrialRecord]:
        """Return all trials in the order of asking."""
        with self._clear_errors("read"):
            rows = self._db.execute(
                "SELECT number, candidate, codes, columns, status, metrics, reason, traceback, reports, started, "
                "seconds FROM trials ORDER BY number"
            ).fetchall()
        return [
            TrialRecord(
                number,
                space.decode(np.frombuffer(codes, dtype=space.dtype)),
                codes,
                candidate,
                json.loads(columns),
                None if status is None else Status(status),
                json.loads(metrics or "{}"),
                reason or "",
                traceback or "",
                tuple((step, value) for step, value in json.loads(reports or "[]")),
                float("nan") if started is None else started,
                float("nan") if seconds is None else seconds,
            )
            for number, candidate, codes, columns, status, metrics, reason, traceback, reports, started, seconds in rows
        ]

    def recorded_values(self) -> dict[str, dict[bytes, float]]:
        """Return what was recorded, by name and by the bytes of the codes."""
        values: dict[str, dict[bytes, float]] = {}
        for (name, codes), value in self._values.items():
            values.setdefault(name, {})[codes] = value
        return values

    def funnel(self) -> dict[tuple[str, str, str], int]:
        """Return the counts of candidates by stage, status and cause, added up over warm restarts."""
        with self._clear_errors("read"):
            rows = self._db.execute(
                "SELECT stage, status, cause, sum(number) FROM funnel GROUP BY stage, status, cause"
            ).fetchall()
        return {(stage, status, cause): number for stage, status, cause, number in rows}


def _mode(path: Path, readonly: bool) -> str:
    """Return how SQLite is to open a log."""
    if not readonly:
        return "rwc"
    # Readers write to files beside the log, unless they may take it that nobody writes to it.
    alone = not os.access(path.parent, os.W_OK) and not os.path.exists(f"{path}-wal")
    return "ro&immutable=1" if alone else "ro"
