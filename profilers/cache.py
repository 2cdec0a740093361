"""Tables on disk: what was found by probing once is found again in the next run."""

from __future__ import annotations

import hashlib
import os
import tempfile
import warnings
from pathlib import Path

from nasmw.cost import CostTable, MaxTable
from nasmw.errors import ProfilerError
from nasmw.space import Space

__all__ = ["cache_folder", "load_table", "save_table", "table_path"]

FORMAT = 1


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


def load_table(path: Path, space: Space, *, maximum: bool) -> CostTable | MaxTable | None:
    """Return a table from its file, or None where there is none that can be read."""
    try:
        return MaxTable.load(path, space) if maximum else CostTable.load(path, space)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, KeyError, EOFError, ProfilerError) as error:
        warnings.warn(f"the cached table {path.name!r} cannot be read and is made anew: {error}", stacklevel=2)
        return None


def save_table(path: Path, table: CostTable | MaxTable) -> None:
    """Write a table to its file, whole or not at all; a folder that cannot be written to is a warning."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, suffix=".part")
        os.close(handle)
        try:
            table.save(name)
            os.replace(name, path)
        finally:
            Path(name).unlink(missing_ok=True)
    except OSError as error:
        warnings.warn(
            f"tables cannot be kept in {str(path.parent)!r} ({error}), so the next run probes again; set NASMW_CACHE "
            "to a folder that can be written to",
            stacklevel=2,
        )
