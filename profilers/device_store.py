"""MeasurementStore: what was measured once on a device is found again, by any process."""

from __future__ import annotations

import contextlib
import datetime
import math
import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import attrs

from nasmw.errors import ProfilerError
from nasmw.profilers.cache import cache_folder

__all__ = ["Measured", "MeasurementStore"]

VERSION = 1
SCHEMA = """
CREATE TABLE IF NOT EXISTS measurements (
    device TEXT NOT NULL,
    subject TEXT NOT NULL,
    key TEXT NOT NULL,
    latency_ms REAL NOT NULL,
    spread_ms REAL NOT NULL,
    taken TEXT NOT NULL,
    PRIMARY KEY (device, subject, key)
) WITHOUT ROWID
"""
PATIENCE = 60.0  # seconds to wait for another process that writes
ASKED_AT_ONCE = 500


@attrs.frozen
class Measured:
    """A measured latency.

    Attributes:
        latency_ms: Milliseconds.
        spread_ms: By how much a repetition may differ, one standard deviation.
        taken: When, in UTC.
    """

    latency_ms: float
    spread_ms: float
    taken: str = attrs.field(
        factory=lambda: datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"), eq=False
    )

    def __attrs_post_init__(self) -> None:
        if not 0 < self.latency_ms < math.inf or not 0 <= self.spread_ms < math.inf:
            raise ProfilerError(f"a measured latency is a positive number of milliseconds, got {self!r}")


class MeasurementStore:
    """Measured latencies in an SQLite file.

    Several processes may use one file. A measurement is in it as a whole or not at all, whenever a process is killed;
    where two processes measure the same thing, the first one to write is believed by both.

    Args:
        path: The file, made where it does not exist; None for ``measurements.db`` in the cache folder of nasmw
            (``$NASMW_CACHE``, or ``nasmw`` in ``$XDG_CACHE_HOME`` or ``~/.cache``).

    Raises:
        ProfilerError: While it is used, if the file is no store, or of a later version.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     store = MeasurementStore(f"{folder}/measurements.db")
        ...     store.put("a phone", "a space", {"0102": Measured(12.5, 0.1)})
        ...     store.get("a phone", "a space", ["0102", "0103"])["0102"].latency_ms
        12.5
    """

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        self.path = Path(path) if path is not None else cache_folder() / "measurements.db"

    def __repr__(self) -> str:
        return f"<MeasurementStore {str(self.path)!r}>"

    def get(self, device: str, subject: str, keys: Sequence[str]) -> dict[str, Measured]:
        """Return what is known, by key.

        Args:
            device: The key of the device.
            subject: What the keys are about: a space and its networks, say.
            keys: What is asked for.
        """
        found: dict[str, Measured] = {}
        if not self.path.exists():
            return found
        with self._open() as file:
            for begin in range(0, len(keys), ASKED_AT_ONCE):
                some = keys[begin : begin + ASKED_AT_ONCE]
                rows = file.execute(
                    "SELECT key, latency_ms, spread_ms, taken FROM measurements WHERE device = ? AND subject = ? "
                    f"AND key IN ({', '.join('?' * len(some))})",
                    (device, subject, *some),
                )
                found.update((key, Measured(*rest)) for key, *rest in rows)
        return found

    def put(self, device: str, subject: str, measured: Mapping[str, Measured]) -> None:
        """Keep measurements, all of them or, if this is interrupted, none; what is known already stays.

        Args:
            device: The key of the device.
            subject: What the keys are about.
            measured: The measurements by key.
        """
        rows = [(device, subject, key, one.latency_ms, one.spread_ms, one.taken) for key, one in measured.items()]
        with self._open() as file, file:
            file.executemany("INSERT OR IGNORE INTO measurements VALUES (?, ?, ?, ?, ?, ?)", rows)

    def check(self) -> None:
        """Check that measurements can be kept here, before they are made.

        Raises:
            ProfilerError: If the file is no store, or cannot be written.
        """
        with self._open() as file:
            file.execute("BEGIN IMMEDIATE")
            file.rollback()

    def count(self, device: str | None = None, subject: str | None = None) -> int:
        """Return the number of measurements, of one device or subject where these are given."""
        if not self.path.exists():
            return 0
        with self._open() as file:
            query = (
                "SELECT count(*) FROM measurements WHERE device = ifnull(?, device) AND subject = ifnull(?, subject)"
            )
            return int(file.execute(query, (device, subject)).fetchone()[0])

    @contextlib.contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        # A connection for each use: it takes far less than a measurement, and survives neither a fork nor a pickle.
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.closing(sqlite3.connect(self.path, timeout=PATIENCE)) as file:
                version = file.execute("PRAGMA user_version").fetchone()[0]
                if version > VERSION:
                    raise ProfilerError(
                        f"{str(self.path)!r} has version {version} of measurements, this nasmw reads up to {VERSION}; "
                        "update nasmw or name another file"
                    )
                if version == 0:
                    with file:
                        file.execute("BEGIN IMMEDIATE")
                        file.execute(SCHEMA)
                        file.execute(f"PRAGMA user_version = {VERSION}")
                yield file
        except (sqlite3.Error, OSError) as error:
            raise ProfilerError(
                f"{str(self.path)!r} cannot be used as a store of measurements: {error}; name another file"
            ) from error
