"""Files of learned profilers: arrays and a JSON header, without pickled objects."""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from nasmw.errors import ProfilerError
from nasmw.profilers.learned.predictor import Arrays
from nasmw.space import Space

__all__ = ["FORMAT", "read", "read_header", "write"]

FORMAT = 1
KIND = "nasmw learned profiler"


def write(path: str | os.PathLike[str], header: dict[str, Any], arrays: Arrays) -> None:
    """Write a header and arrays to a file in numpy's npz format; a file that is there is replaced at once.

    Raises:
        ProfilerError: If an array holds Python objects.
    """
    for name, array in arrays.items():
        if array.dtype.hasobject:
            raise ProfilerError(f"the array {name!r} holds Python objects, which are not written to files")
    text = json.dumps({"kind": KIND, "format": FORMAT, **header}, indent=1)
    target = Path(path)
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        with open(partial, "wb") as file:
            np.savez_compressed(file, header=np.frombuffer(text.encode(), dtype=np.uint8), **arrays)  # type: ignore[arg-type]
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)


def read_header(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the header of a file.

    Raises:
        FileNotFoundError: If there is no file.
        ProfilerError: If it is no learned profiler, or of a later format.
    """
    return _read(path, arrays=False)[0]


def read(path: str | os.PathLike[str], space: Space) -> tuple[dict[str, Any], Arrays]:
    """Return the header and the arrays of a file.

    Raises:
        FileNotFoundError: If there is no file.
        ProfilerError: If it is no learned profiler, of a later format, or about another space.
    """
    header, arrays = _read(path, arrays=True)
    if header["space"] != space.fingerprint:
        raise ProfilerError(
            f"{os.fspath(path)!r} was saved for the space {header['space_name']!r} with fingerprint {header['space']}; "
            f"{space!r} has {space.fingerprint}: names, options or conditions of the choices differ"
        )
    return header, arrays


def _read(path: str | os.PathLike[str], *, arrays: bool) -> tuple[dict[str, Any], Arrays]:
    what = repr(os.fspath(path))
    try:
        with open(path, "rb") as raw, np.load(raw, allow_pickle=False) as file:
            header = json.loads(file["header"].tobytes())
            if header["kind"] != KIND:
                raise ProfilerError(f"{what} is no saved learned profiler")
            if header["format"] > FORMAT:
                raise ProfilerError(
                    f"{what} has format {header['format']}, this version reads up to {FORMAT}; update nasmw"
                )
            found = {name: file[name] for name in file.files if name != "header"} if arrays else {}
    except (zipfile.BadZipFile, ValueError, KeyError, EOFError, TypeError, AttributeError, IndexError) as error:
        if isinstance(error, ProfilerError):
            raise
        raise ProfilerError(
            f"{what} is no saved learned profiler, or it is damaged ({type(error).__name__}: {error})"
        ) from None
    return header, found
