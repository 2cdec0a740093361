"""Tables on disk: what was found by probing once is found again in the next run."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import time
import warnings
import zipfile
import zlib
from pathlib import Path

import attrs

from nasmw.cost import CostTable, MaxTable
from nasmw.space import Space

__all__ = ["Kept", "cache_folder", "load_table", "save_table", "table_path"]

FORMAT = 2
UNCOUNTED = "uncounted.json"
PART = ".part"
LEFT_SECONDS = 3600


def cache_folder() -> Path:
    """Return where tables are kept: ``$NASMW_CACHE``, or ``nasmw`` in ``$XDG_CACHE_HOME`` or ``~/.cache``."""
    if chosen := os.environ.get("NASMW_CACHE"):
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "nasmw"


def table_path(space: Space, metric: str, *details: object) -> Path:
    """Return the file of a table: its name follows from the space, the metric and what else the table depends on."""
    text = "\n".join(map(repr, (FORMAT, space.name, metric, *details)))
    return cache_folder() / f"{metric}-{space.fingerprint}-{hashlib.sha256(text.encode()).hexdigest()[:16]}.npz"


@attrs.frozen(eq=False)
class Kept:
    """What is kept of a space.

    Attributes:
        table: The table.
        uncounted: The operators of the probed networks that nothing is known about.
    """

    table: CostTable | MaxTable
    uncounted: frozenset[str] = frozenset()


def load_table(path: Path, space: Space, *, maximum: bool) -> Kept | None:
    """Return what a file holds, or None where there is none that can be read."""
    try:
        table = MaxTable.load(path, space) if maximum else CostTable.load(path, space)
        with zipfile.ZipFile(path) as file:
            return Kept(table, frozenset(json.loads(file.read(UNCOUNTED))))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        warnings.warn(f"the cached table {path.name!r} cannot be read and is made anew: {error}", stacklevel=2)
        return None


def save_table(path: Path, kept: Kept) -> None:
    """Write a table to its file, whole or not at all; a folder that cannot be written to is a warning."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _drop_leftovers(path.parent)
        handle, name = tempfile.mkstemp(dir=path.parent, suffix=PART)
        os.close(handle)
        try:
            kept.table.save(name)
            with zipfile.ZipFile(name, "a") as file:
                file.writestr(UNCOUNTED, json.dumps(sorted(kept.uncounted)))
            os.replace(name, path)
        finally:
            Path(name).unlink(missing_ok=True)
    except OSError as error:
        warnings.warn(
            f"tables cannot be kept in {str(path.parent)!r} ({error}), so the next run probes again; set NASMW_CACHE "
            "to a folder that can be written to",
            stacklevel=2,
        )


def _drop_leftovers(folder: Path) -> None:
    """Delete what processes left behind that were ended while they wrote a table."""
    for path in folder.glob(f"*{PART}"):
        try:
            if time.time() - path.stat().st_mtime > LEFT_SECONDS:
                path.unlink()
        except FileNotFoundError:  # another process was faster
            continue
