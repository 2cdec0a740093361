"""PredictorStore: a folder of learned profilers, by space, device and metric."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import attrs

from nasmw.errors import ProfilerError, did_you_mean
from nasmw.profilers.learned.base import LearnedProfiler
from nasmw.profilers.learned.encodings import Encoding
from nasmw.profilers.learned.files import read_header
from nasmw.space import Space

__all__ = ["PredictorStore", "StoredPredictor"]

SUFFIX = ".npz"
ANY_DEVICE = "any-device"
"""The folder of profilers without a device; a hyphen keeps it apart from the names of devices."""


@attrs.frozen
class StoredPredictor:
    """What a file of a store says of its profiler.

    Attributes:
        path: The file.
        space: The name of the space.
        fingerprint: That of the space.
        device: What was measured on; None where the device does not matter.
        name: The name of the metric.
        unit: Its unit.
        predictor: The name of the predictor.
        encoding: The text of the encoding.
        samples: How many it has learnt from.
        version: How often it was fitted.
    """

    path: Path
    space: str
    fingerprint: str
    device: str | None
    name: str
    unit: str
    predictor: str
    encoding: str
    samples: int
    version: int


class PredictorStore:
    """A folder of learned profilers: one file for each space, device and metric.

    Args:
        folder: The folder; made at the first `save`.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> from nasmw.testing import TableProfiler, toy_space
        >>> space = toy_space()
        >>> known = space.sample(50, np.random.default_rng(0))
        >>> latency = LearnedProfiler(space, device="phone").fit(known, TableProfiler(space).profile_batch(known))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     store = PredictorStore(folder)
        ...     _ = store.save(latency)
        ...     [entry.device for entry in store.list()], store.get(space, "phone").name
        (['phone'], 'latency_ms')
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)

    def __repr__(self) -> str:
        return f"PredictorStore({str(self.folder)!r})"

    def path(self, space: Space, device: str | None, name: str = "latency_ms") -> Path:
        """Return the file of a profiler, whether it is there or not."""
        if not isinstance(space, Space):
            raise TypeError(f"a PredictorStore finds profilers by a Space first, got {space!r}")
        return (
            self.folder
            / f"{_slug(space.name)}-{space.fingerprint}"
            / (ANY_DEVICE if device is None else _slug(device))
            / (_slug(name) + SUFFIX)
        )

    def save(self, profiler: LearnedProfiler) -> Path:
        """Write a profiler to its file, which is replaced if it is there; return the file.

        Raises:
            OrderError: If the profiler was not fitted.
        """
        if not isinstance(profiler, LearnedProfiler):
            raise TypeError(f"a PredictorStore keeps learned profilers, got {profiler!r}")
        path = self.path(profiler._space(), profiler.device, profiler.name)
        path.parent.mkdir(parents=True, exist_ok=True)
        profiler.save(path)
        return path

    def get(
        self,
        space: Space,
        device: str | None = None,
        name: str = "latency_ms",
        *,
        given: Mapping[str, Encoding] | None = None,
    ) -> LearnedProfiler:
        """Return the profiler of a space, a device and a metric.

        Args:
            space: The space.
            device: The device; None for a profiler without one.
            name: The name of the metric.
            given: As for `LearnedProfiler.load`.

        Raises:
            ProfilerError: If there is none; names the near ones.
        """
        path = self.path(space, device, name)
        if not path.is_file():
            there = [f"{entry.name} on {entry.device}" for entry in self._entries(space, damaged=False)]
            near = did_you_mean(f"{name} on {device}", there) if there else "; it has nothing for this space"
            raise ProfilerError(f"{self!r} has no {name!r} on {device!r} for {space!r}{near}")
        return LearnedProfiler.load(path, space, given=given)

    def list(self, space: Space | None = None) -> tuple[StoredPredictor, ...]:
        """Return what the files say, in the order of their paths; those of one space, or of all.

        Raises:
            ProfilerError: If a file is damaged; names it.
        """
        return tuple(self._entries(space))

    def _entries(self, space: Space | None, *, damaged: bool = True) -> Iterator[StoredPredictor]:
        for path in sorted(self.folder.glob(f"*/*/*{SUFFIX}")):
            try:
                header = read_header(path)
            except ProfilerError:
                if damaged:
                    raise
                continue
            if space is None or (header["space"], header["space_name"]) == (space.fingerprint, space.name):
                yield StoredPredictor(
                    path,
                    header["space_name"],
                    header["space"],
                    header["device"],
                    header["name"],
                    header["unit"],
                    header["predictor"]["kind"],
                    header["encoding"],
                    header["samples"],
                    header["version"],
                )


def _slug(text: str) -> str:
    """Return a text as the name of a file; texts that differ have different ones."""
    plain = re.sub(r"[^A-Za-z0-9_.]", "_", text).lstrip(".")[:60]
    return plain if plain and plain == text else f"{plain}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
