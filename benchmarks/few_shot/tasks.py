"""The twelve published transfer tasks on NAS-Bench-201 and FBNet, and tables of their devices."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from functools import cache

import attrs
import numpy as np
import numpy.typing as npt
from tables.files import arrays, path_of

from nasmw import Candidates, Space
from nasmw.candidates import Floats
from nasmw.spaces import fbnet, nasbench201

__all__ = ["SOURCE_SAMPLES", "Devices", "Task", "devices_of", "published_tasks"]

Rows = npt.NDArray[np.intp]

SOURCE_SAMPLES = {"nb201": 900, "fbnet": 800}
"""So many networks are measured on every source device, the same ones on all of them."""
FBNET_32 = (1, 1, 1, 2, 2, 1, 2, 1)


@attrs.frozen(eq=False)
class Devices:
    """Networks of a space, and what they take on devices.

    Attributes:
        name: ``"nb201"`` or ``"fbnet"``.
        candidates: ``n`` networks: all of NAS-Bench-201, 5,000 of FBNet.
        milliseconds: By device ``(n,)`` float64, NaN where not measured.
        eagle: The devices whose tables are EAGLE's; the others are HELP's.
    """

    name: str
    candidates: Candidates
    milliseconds: dict[str, Floats]
    eagle: tuple[str, ...] = ()

    @property
    def space(self) -> Space:
        """The space."""
        space = self.candidates.space
        assert isinstance(space, Space)
        return space

    def matrix(self, names: Sequence[str]) -> Floats:
        """Return the columns of some devices, ``(n, k)``."""
        return np.stack([self.milliseconds[name] for name in names], axis=1)


@attrs.frozen(eq=False)
class Task:
    """From some devices to others.

    Attributes:
        name: Such as ``"N1"``.
        devices: The tables.
        sources: Names of devices that are known.
        targets: Names of devices of which few networks are measured.
    """

    name: str
    devices: Devices
    sources: tuple[str, ...]
    targets: tuple[str, ...]

    def source_rows(self, seed: int) -> Rows:
        """Return which networks are measured on all sources: random ones that every source has."""
        known = np.flatnonzero(np.isfinite(self.devices.matrix(self.sources)).all(axis=1))
        count = min(SOURCE_SAMPLES[self.devices.name], len(known))
        return np.sort(np.random.default_rng([seed, 1]).choice(known, count, replace=False))


@cache
def devices_of(name: str, folder: str | None = None) -> Devices:
    """Read the tables of a space.

    Args:
        name: ``"nb201"`` or ``"fbnet"``.
        folder: The data folder; by default what ``NASMW_DATA`` names.

    Raises:
        MissingDataError: If a file is missing.
    """
    space = nasbench201() if name == "nb201" else fbnet(100, 32, 1504, FBNET_32)
    networks, latency = arrays(f"latency/{name}_archs.npz", folder), arrays(f"latency/{name}_latency.npz", folder)
    options = list(space.choices[0].options)
    code_of = np.array([options.index(option) for option in networks["op_names"].tolist()], dtype=space.dtype)
    columns = latency["latency_ms"].astype(np.float64).T
    by_device = dict(zip(latency["devices"].tolist(), columns, strict=True))
    tables = latency.get("source", np.full(len(by_device), "HELP")).tolist()
    eagle = tuple(device for device, table in zip(by_device, tables, strict=True) if table == "EAGLE")
    return Devices(name, Candidates.of(space, code_of[networks["ops"]]), by_device, eagle)


def published_tasks(folder: str | os.PathLike[str] | None = None) -> dict[str, Task]:
    """Return the twelve tasks by name; sources of which no table is to be had are left out.

    Raises:
        MissingDataError: If a file is missing.
    """
    folder = None if folder is None else os.fspath(folder)
    found = {}
    for name, told in json.loads(path_of("latency/tasks.json", folder).read_text())["tasks"].items():
        devices = devices_of(told["space"], folder)
        sources = tuple(device for device in told["source"] if device not in told["missing_devices"])
        found[name] = Task(name, devices, sources, tuple(told["target"]))
    return found
