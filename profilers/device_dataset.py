"""create_dataset: latencies of many networks of a space, measured on a device, as a file."""

from __future__ import annotations

import json
import logging
import os
import time
from pathlib import Path
from typing import Any

import attrs
import numpy as np

from nasmw.candidates import Candidates, Codes, Floats
from nasmw.devices.base import Device
from nasmw.errors import DeviceError, ProfilerError
from nasmw.profilers.arrays import read_arrays
from nasmw.profilers.device_meter import Meter, StoreLike
from nasmw.profilers.device_store import Measured
from nasmw.profilers.inputs import ExampleLike
from nasmw.profilers.lookup import required_layers
from nasmw.profilers.lookup_samples import Sampler, draw
from nasmw.space import Space

__all__ = ["MeasuredDataset", "create_dataset"]

logger = logging.getLogger(__name__)

FORMAT = 1
ARRAYS = ("codes", "latency_ms", "spread_ms")
TRIED = 3
"""How many networks and layers are measured before the cost is told."""
TABLE_NETWORKS = 40


@attrs.frozen(eq=False, repr=False)
class MeasuredDataset:
    """Networks of a space and what they take on a device.

    Attributes:
        codes: ``(n, d)`` the architectures.
        latency_ms: ``(n,)`` milliseconds.
        spread_ms: ``(n,)`` by how much a repetition may differ, one standard deviation in milliseconds.
        fingerprint: Of the space.
        choices: Names, options and conditions of the space's choices, as `Space.describe` gives them.
        about: The device, the input, the sampler and its seed, what the machine was, and under ``"failed"`` the
            networks on which the device failed, as architecture and reason; as JSON holds them.
    """

    codes: Codes
    latency_ms: Floats
    spread_ms: Floats
    fingerprint: str
    choices: list[dict[str, Any]]
    about: dict[str, Any]

    def __len__(self) -> int:
        return len(self.codes)

    def __repr__(self) -> str:
        return f"<MeasuredDataset of {len(self)} networks of {self.about['space']!r} on {self.about['device']}>"

    def candidates(self, space: Space) -> Candidates:
        """Return the architectures as candidates of their space, with the latencies as the column ``latency_ms``.

        Raises:
            ProfilerError: If it is another space.
        """
        if space.fingerprint != self.fingerprint:
            raise ProfilerError(
                f"{self!r} is about a space with the fingerprint {self.fingerprint}; {space!r} has {space.fingerprint}"
            )
        return Candidates.of(space, self.codes, {"latency_ms": self.latency_ms})

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the data to an npz file, without pickled objects; whole or not at all."""
        rest = {"fingerprint": self.fingerprint, "choices": self.choices, "about": self.about}
        part = Path(f"{os.fspath(path)}.part")
        try:
            with open(part, "wb") as file:
                np.savez_compressed(
                    file,
                    format=np.array(FORMAT),
                    header=np.array(json.dumps(rest)),
                    **{name: getattr(self, name) for name in ARRAYS},
                )
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> MeasuredDataset:
        """Return the data that `save` wrote.

        Raises:
            ProfilerError: If the file is no such data, or has a later format.
        """
        what = repr(os.fspath(path))
        file = read_arrays(path, ("format", "header", *ARRAYS), "data set of measured networks")
        try:
            if (version := int(file["format"])) > FORMAT:
                raise ProfilerError(f"{what} has format {version}, this nasmw reads up to {FORMAT}; update nasmw")
            fields: dict[str, Any] = {**{name: file[name] for name in ARRAYS}, **json.loads(str(file["header"]))}
            made = cls(**fields)
        except (TypeError, json.JSONDecodeError) as error:
            raise ProfilerError(f"{what} is no data set of measured networks: {error}") from error
        if len({len(getattr(made, name)) for name in ARRAYS}) > 1:
            raise ProfilerError(f"{what} is no data set of measured networks: its arrays differ in length")
        return made


def create_dataset(
    space: Space,
    device: Device | str,
    n: int,
    sampler: Sampler,
    path: str | os.PathLike[str],
    *,
    example_input: ExampleLike,
    resolution: str | None = "resolution",
    rounds: int = 5,
    runs: int = 10,
    store: StoreLike = True,
    seed: int = 0,
    progress: bool = True,
) -> MeasuredDataset:
    """Measure networks of a space on a device and write them to a file.

    A few are measured first, and what the rest will cost is printed, beside what a table of latencies would cost
    instead. Every network is kept in the store as it is measured: whoever is interrupted calls this again, with the
    same arguments, and it goes on.

    Networks on which the device fails are left out, with a warning; the reasons are in the data set. They are tried
    again by the next call.

    Args:
        space: The space, made with a `build`.
        device: The device, or the name of a registered one.
        n: How many networks; all of a space that has no more.
        sampler: ``"random"`` or ``"stratified by MACs"``, see `nasmw.profilers.lookup_samples.draw`.
        path: The npz file to write; `MeasuredDataset.load` reads it. A file that is there already is replaced if it
            is about the same space, device, input and protocol.
        example_input: A tensor of the shape that the networks take, with the batch size to measure.
        resolution: The choice whose option is the height and width of the input, where the space has it.
        rounds: The undisturbed visits that each network is to have.
        runs: The timed runs of a visit.
        store: Where measurements are kept: a path or a `MeasurementStore`; True for the one in nasmw's cache folder.
        seed: What the networks are drawn from.
        progress: Whether to print the cost and to show how far it is.

    Raises:
        ProfilerError: If there is no such sampler, `n` is no positive number, there is no store, or `path` is
            something else already.
        DeviceError: If the device fails on five networks in a row.
    """
    if isinstance(n, bool) or not isinstance(n, (int, np.integer)) or n < 1:
        raise ProfilerError(f"a data set has a positive number of networks, got {n!r}")
    if store is False:
        raise ProfilerError("a data set is measured into a store, so that it can be resumed; name a file, store=...")
    path = Path(path)
    if not path.parent.is_dir():
        raise ProfilerError(f"there is no folder {str(path.parent)!r} to write {path.name!r} to; make it first")
    if not os.access(path.parent, os.W_OK):
        raise ProfilerError(f"the folder {str(path.parent)!r} cannot be written to; name another one")
    meter = Meter(space, device, example_input, resolution=resolution, rounds=rounds, runs=runs, store=store)
    try:
        space = meter._needed_space()
        about: dict[str, Any] = {
            "space": space.name,
            "device": meter.device.key,
            "input": list(meter.example.shape),
            "protocol": f"{rounds} rounds of {runs} runs",
        }
        replaced = _replaced(path, space, about)
        rng = np.random.default_rng(seed)
        sample = draw(space, int(n), sampler, meter.example, rng, resolution=meter.resolution)
        if progress:
            print(_cost(meter, sample))
        attempts = meter.attempts(sample, progress=progress)
        kept = [row for row, one in enumerate(attempts) if isinstance(one, Measured)]
        measured = [one for one in attempts if isinstance(one, Measured)]
        failed = [
            {"architecture": architecture, "reason": str(one)}
            for architecture, one in zip(sample, attempts, strict=True)
            if isinstance(one, DeviceError)
        ]
        if not measured:
            raise DeviceError(f"{meter.device!r} fails on all {len(failed)} networks; the first: {failed[0]['reason']}")
        if failed:
            logger.warning(
                "%r fails on %d of %d networks, which are left out; the first: %s",
                meter.device,
                len(failed),
                len(sample),
                failed[0]["reason"],
            )
        about |= {
            "failed": failed,
            "sampler": sampler,
            "seed": seed,
            "first": min(one.taken for one in measured),
            "last": max(one.taken for one in measured),
            "environment": meter.environment or replaced.get("environment", {}),  # where all was measured before
        }
    finally:
        meter.close()
    dataset = MeasuredDataset(
        sample.codes[kept],
        np.array([one.latency_ms for one in measured]),
        np.array([one.spread_ms for one in measured]),
        space.fingerprint,
        space.describe(),
        about,
    )
    dataset.save(path)
    return dataset


def _replaced(path: Path, space: Space, about: dict[str, Any]) -> dict[str, Any]:
    """Return what is said about the data set that is written over; refuse to write over anything else."""
    if not path.exists():
        return {}
    if path.is_dir():
        raise ProfilerError(f"{str(path)!r} is a folder; name a file")
    try:
        there = MeasuredDataset.load(path)
    except ProfilerError as error:
        raise ProfilerError(f"{error}; name another file to write to, or remove this one") from error
    differing = [what for what, value in about.items() if there.about.get(what) != value]
    if there.fingerprint != space.fingerprint or differing:
        raise ProfilerError(
            f"{str(path)!r} holds {there!r}, another {' and '.join(differing or ['space'])} than what is to be "
            "measured; name another file to write to, or remove this one"
        )
    return there.about


def _cost(meter: Meter, sample: Candidates) -> str:
    """Return what measuring these networks will cost, and what a table would, after measuring a few."""
    space = meter._needed_space()
    known = meter.known_networks(sample)
    missing = sample[~known]
    lines = [f"{len(sample)} networks of {space.name} on {meter.device.name}: {int(known.sum())} are measured already."]
    if len(missing) <= 1 + TRIED:
        return lines[0]
    meter.attempts(missing[:1])  # the device's process starts before the clock does
    each = _seconds(lambda: meter.attempts(missing[1 : 1 + TRIED])) / TRIED
    rest = len(missing) - 1 - TRIED
    lines.append(f"The first took {each:.2g} s each: about {_minutes(each * rest)} for the rest.")
    described = space.parts is not None and all(part.layers is not None for part in space.parts())
    if not described:
        return " ".join(lines)
    layers = list({placed.key: placed for placed in required_layers(space)}.values())
    tried = layers[:: max(1, len(layers) // TRIED)][:TRIED]
    if meter.known_layers(layers) < len(layers):
        one = _seconds(lambda: meter.layers(tried)) / len(tried)
        seconds = one * (len(layers) - meter.known_layers(layers)) + each * TABLE_NETWORKS
        lines.append(
            f"A table instead, for every network of the space: {len(layers)} distinct layers and {TABLE_NETWORKS} "
            f"networks, {meter.protocol.rounds} rounds each, about {_minutes(seconds)} (build_latency_table)."
        )
    return " ".join(lines)


def _seconds(function: Any) -> float:
    begin = time.monotonic()
    function()
    return time.monotonic() - begin


def _minutes(seconds: float) -> str:
    return (
        f"{seconds:.0f} s"
        if seconds < 120
        else f"{seconds / 60:.0f} min"
        if seconds < 7200
        else f"{seconds / 3600:.1f} h"
    )
