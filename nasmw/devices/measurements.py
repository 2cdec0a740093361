"""Measurements: what a run of the protocol found, visit by visit."""

from __future__ import annotations

import json
import os
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import attrs
import numpy as np
import numpy.typing as npt

from nasmw.candidates import Floats
from nasmw.errors import DeviceError, did_you_mean

__all__ = ["Measurements"]

FORMAT = 1
ARRAYS = ("wall_ms", "cpu_ms", "wall_over_cpu", "anchor_ms", "reference_ms")


def quantiles(values: Floats, used: npt.NDArray[np.bool_], quantile: float) -> Floats:
    """Return a quantile of the used values along the last axis, between two of them by linear interpolation.

    Args:
        values: Numbers of any shape.
        used: Which of them count, of the same shape; at least one along the last axis.
        quantile: From 0 to 1.
    """
    ordered = np.sort(np.where(used, values, np.inf), axis=-1)
    place = quantile * (used.sum(axis=-1, keepdims=True) - 1)
    low, high = np.floor(place).astype(np.int64), np.ceil(place).astype(np.int64)
    below = np.take_along_axis(ordered, low, axis=-1)
    above = np.take_along_axis(ordered, high, axis=-1)
    return np.asarray((below + (above - below) * (place - low))[..., 0])


@attrs.frozen(eq=False, repr=False, slots=False)
class Measurements:
    """The latencies of networks on devices, by visit; `nasmw.devices.measuring` says how they come about.

    Attributes:
        names: The networks.
        devices: The names of the devices.
        wall_ms: A low quantile of the runs of each visit by the clock, ``(devices, networks, visits)`` milliseconds,
            NaN where there was no such visit.
        cpu_ms: The same of processor time.
        wall_over_cpu: The time of the visit's runs by the clock, divided by their processor time.
        anchor_ms: The slower one of the anchor's visits before and after.
        reference_ms: What the anchor takes on a quiet machine, ``(devices,)``: a low quantile of its visits.
        environment: The machine, versions, date and protocol, as JSON holds them.
    """

    names: tuple[str, ...]
    devices: tuple[str, ...]
    wall_ms: Floats
    cpu_ms: Floats
    wall_over_cpu: Floats
    anchor_ms: Floats
    reference_ms: Floats
    environment: dict[str, Any]

    @property
    def protocol(self) -> dict[str, Any]:
        """The numbers of the protocol, by name."""
        return dict(self.environment["protocol"])

    @cached_property
    def accepted(self) -> npt.NDArray[np.bool_]:
        """Which visits were not disturbed, ``(devices, networks, visits)``: neither the anchor nor wall/CPU strayed."""
        quiet = self.anchor_ms <= self.protocol["anchor_tolerance"] * self.reference_ms[:, None, None]
        return np.asarray(quiet & (self.wall_over_cpu <= self.protocol["wall_tolerance"]))

    @cached_property
    def used(self) -> npt.NDArray[np.bool_]:
        """Which visits the latencies are taken from: the accepted ones, or all where a network has none."""
        return np.asarray(self.accepted | (~np.isnan(self.wall_ms) & self.unsettled[:, :, None]), dtype=np.bool_)

    @property
    def rejected(self) -> npt.NDArray[np.int64]:
        """The number of visits that were disturbed, ``(devices, networks)``."""
        return np.asarray((~np.isnan(self.wall_ms) & ~self.accepted).sum(axis=2), dtype=np.int64)

    @property
    def unsettled(self) -> npt.NDArray[np.bool_]:
        """Where every visit was disturbed, so that the latency is the least bad one, ``(devices, networks)``."""
        return np.asarray(~self.accepted.any(axis=2), dtype=np.bool_)

    @cached_property
    def latency_ms(self) -> Floats:
        """The latencies, ``(devices, networks)`` milliseconds by the clock: a low quantile of the visits used."""
        return self._quantile(self.protocol["quantile"])

    @cached_property
    def spread_ms(self) -> Floats:
        """The interquartile range of the visits used, ``(devices, networks)`` milliseconds."""
        return self._quantile(0.75) - self._quantile(0.25)

    def latency(self, device: str) -> dict[str, float]:
        """Return the latency of each network on one device, in milliseconds.

        Raises:
            DeviceError: If nothing was measured on such a device.
        """
        if device not in self.devices:
            raise DeviceError(f"nothing was measured on {device!r}{did_you_mean(device, self.devices)}")
        row = self.latency_ms[self.devices.index(device)]
        return dict(zip(self.names, row.tolist(), strict=True))

    def _quantile(self, quantile: float) -> Floats:
        return quantiles(self.wall_ms, self.used, quantile)

    def __repr__(self) -> str:
        return (
            f"<Measurements of {len(self.names)} networks on {', '.join(self.devices)}: "
            f"{int(self.accepted.sum())} visits accepted, {int(self.rejected.sum())} disturbed>"
        )

    @classmethod
    def join(cls, parts: Sequence[Measurements]) -> Measurements:
        """Return the measurements of several runs on the same devices as one.

        The anchor's reference is the lowest of theirs, so a run that was slow from beginning to end is found out.

        Raises:
            DeviceError: If devices or protocols differ, or a network was measured twice.
        """
        if not parts:
            raise DeviceError("there are no measurements to join")
        first, *others = parts
        for part in others:
            if part.devices != first.devices or part.protocol != first.protocol:
                raise DeviceError(
                    "measurements can be joined if devices and protocol are the same, got "
                    f"{first.devices}, {first.protocol} and {part.devices}, {part.protocol}"
                )
        names = [name for part in parts for name in part.names]
        if len(set(names)) < len(names):
            twice = sorted({name for name in names if names.count(name) > 1})
            raise DeviceError(f"measured in several of the parts to join: {', '.join(twice[:5])}")
        visits = max(part.wall_ms.shape[2] for part in parts)

        def stacked(field: str) -> Floats:
            padded = []
            for part in parts:
                values: Floats = getattr(part, field)
                padded.append(np.pad(values, ((0, 0), (0, 0), (0, visits - values.shape[2])), constant_values=np.nan))
            return np.concatenate(padded, axis=1)

        return cls(
            tuple(names),
            first.devices,
            **{field: stacked(field) for field in ARRAYS[:-1]},
            reference_ms=np.min([part.reference_ms for part in parts], axis=0),
            environment={**first.environment, "end": parts[-1].environment.get("end")},
        )

    def save(self, path: str | os.PathLike[str], **more: npt.ArrayLike) -> None:
        """Write everything to an npz file, complete or not at all.

        Args:
            path: The file.
            **more: Further arrays to keep in it, such as the codes of the architectures.
        """
        arrays: Mapping[str, npt.ArrayLike] = {
            "format": FORMAT,
            "names": np.array(self.names),
            "devices": np.array(self.devices),
            "environment": json.dumps(self.environment),
            **{field: getattr(self, field) for field in ARRAYS},
            "latency_ms": self.latency_ms,
            "spread_ms": self.spread_ms,
            "accepted": self.accepted,
        }
        if clash := sorted(set(arrays) & set(more)):
            raise ValueError(f"measurements have arrays called {', '.join(clash)} already; call yours something else")
        partial = f"{os.fspath(path)}.partial"
        with open(partial, "wb") as file:
            np.savez_compressed(file, **arrays, **more)  # type: ignore[arg-type]
        os.replace(partial, path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Measurements:
        """Read a file that `save` wrote.

        Raises:
            DeviceError: If it is no such file.
        """
        try:
            with open(path, "rb") as stream, np.load(stream, allow_pickle=False) as file:
                if int(file["format"]) != FORMAT:
                    raise DeviceError(f"{path}: format {int(file['format'])}, and this version reads {FORMAT}")
                return cls(
                    tuple(file["names"].tolist()),
                    tuple(file["devices"].tolist()),
                    **{field: file[field] for field in ARRAYS},
                    environment=json.loads(str(file["environment"])),
                )
        except (ValueError, TypeError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise DeviceError(f"{path} holds no measurements: {error}") from error
