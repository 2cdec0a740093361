"""Reads npz files, with one clear error for all that can be wrong with them."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from nasmw.errors import ProfilerError

__all__ = ["read_arrays"]

BROKEN = (EOFError, KeyError, TypeError, ValueError, zipfile.BadZipFile, zlib.error)


def read_arrays(path: str | os.PathLike[str], needed: Iterable[str], kind: str) -> dict[str, npt.NDArray[Any]]:
    """Return the arrays of an npz file, without pickled objects.

    Args:
        path: The file.
        needed: The arrays that it is to have.
        kind: What the file is to be, for messages.

    Raises:
        ProfilerError: If it is no npz file, a part of one, or lacks an array.
        OSError: If it cannot be read.
    """
    what = repr(os.fspath(path))
    try:
        with open(path, "rb") as opened, np.load(opened, allow_pickle=False) as file:
            found = {name: file[name] for name in file.files}
    except BROKEN as error:
        raise ProfilerError(f"{what} is no {kind}: it is no npz file, or not all of one") from error
    if missing := set(needed) - set(found):
        raise ProfilerError(f"{what} is no {kind}: it lacks the arrays {sorted(missing)}")
    return found
