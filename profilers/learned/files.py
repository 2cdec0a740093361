"""Files of learned profilers: arrays and a JSON header, without pickled objects."""

from __future__ import annotations

import contextlib
import json
import os
import struct
import threading
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from nasmw.errors import NasmwError, ProfilerError
from nasmw.profilers.learned.predictor import Arrays
from nasmw.space import Space

__all__ = ["FORMAT", "damaged", "read", "read_header", "write"]

FORMAT = 1
KIND = "nasmw learned profiler"
WRONG = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    NotImplementedError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)
"""What reading a damaged file may raise: parts that are missing, of another kind, or no archive at all."""


@contextlib.contextmanager
def damaged(path: str | os.PathLike[str]) -> Iterator[None]:
    """Say of whatever goes wrong inside that the file is damaged, but for errors of our own."""
    try:
        yield
    except WRONG as error:
        if isinstance(error, NasmwError):
            raise
        raise ProfilerError(
            f"{os.fspath(path)!r} is no saved learned profiler, or it is damaged ({type(error).__name__}: {error})"
        ) from error


def write(path: str | os.PathLike[str], header: dict[str, Any], arrays: Arrays) -> None:
    """Write a header and arrays to a file in numpy's npz format; a file that is there is replaced at once.

    Raises:
        ProfilerError: If an array holds Python objects.
    """
    for name, array in arrays.items():
        if array.dtype.hasobject:
            raise ProfilerError(f"the array {name!r} holds Python objects, which are not written to files")
    text = json.dumps({"kind": KIND, "format": FORMAT, **header}, indent=1, default=_plain)
    target = Path(path)
    partial = target.with_name(f".{target.name}.{os.getpid()}-{threading.get_ident()}.partial")
    try:
        with open(partial, "wb") as file:
            np.savez_compressed(file, header=np.frombuffer(text.encode(), dtype=np.uint8), **arrays)  # type: ignore[arg-type]
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)


def _plain(value: Any) -> Any:
    """Return one of NumPy's numbers as Python's own."""
    if isinstance(value, np.generic):
        return value.item()
    raise ProfilerError(f"{value!r} cannot be written to a file: it is a {type(value).__name__}")


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
    if not isinstance(space, Space):
        raise TypeError(f"a saved profiler is read for a Space, got {space!r}")
    header, arrays = _read(path, arrays=True)
    if header["space"] != space.fingerprint:
        raise ProfilerError(
            f"{os.fspath(path)!r} was saved for the space {header['space_name']!r} with fingerprint {header['space']}; "
            f"{space!r} has {space.fingerprint}: names, options or conditions of the choices differ"
        )
    return header, arrays


def _read(path: str | os.PathLike[str], *, arrays: bool) -> tuple[dict[str, Any], Arrays]:
    what = repr(os.fspath(path))
    with damaged(path), open(path, "rb") as raw, np.load(raw, allow_pickle=False) as file:
        header = json.loads(file["header"].tobytes())
        if header["kind"] != KIND:
            raise ProfilerError(f"{what} is no saved learned profiler")
        if header["format"] > FORMAT:
            raise ProfilerError(
                f"{what} has format {header['format']}, this version reads up to {FORMAT}; update nasmw"
            )
        if missing := {"space", "space_name"}.difference(header):
            raise KeyError(*missing)
        found = {name: file[name] for name in file.files if name != "header"} if arrays else {}
    return header, found
