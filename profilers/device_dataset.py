"""create_dataset: latencies of many networks of a space, measured on a device, as a file."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import attrs
import numpy as np

from nasmw.candidates import Candidates, Codes, Floats
from nasmw.devices.base import Device
from nasmw.errors import ProfilerError
from nasmw.profilers.device_meter import Meter, StoreLike
from nasmw.profilers.inputs import ExampleLike
from nasmw.profilers.lookup import required_layers
from nasmw.profilers.lookup_samples import Sampler, draw
from nasmw.space import Space

__all__ = ["MeasuredDataset", "create_dataset"]

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
        about: The device, the input, the sampler and its seed, and what the machine was, as JSON holds them.
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
        with np.load(path, allow_pickle=False) as file:
            if missing := {"format", "header", *ARRAYS} - set(file.files):
                raise ProfilerError(
                    f"{what} is no data set of measured networks: it lacks the arrays {sorted(missing)}"
                )
            if int(file["format"]) > FORMAT:
                raise ProfilerError(
                    f"{what} has format {int(file['format'])}, this nasmw reads up to {FORMAT}; update nasmw"
                )
            return cls(*(file[name] for name in ARRAYS), **json.loads(str(file["header"])))


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

    Args:
        space: The space, made with a `build`.
        device: The device, or the name of a registered one.
        n: How many networks; all of a space that has no more.
        sampler: ``"random"`` or ``"stratified by MACs"``, see `nasmw.profilers.lookup_samples.draw`.
        path: The npz file to write; `MeasuredDataset.load` reads it.
        example_input: A tensor of the shape that the networks take, with the batch size to measure.
        resolution: The choice whose option is the height and width of the input, where the space has it.
        rounds: The undisturbed visits that each network is to have.
        runs: The timed runs of a visit.
        store: Where measurements are kept: a path or a `MeasurementStore`; True for the one in nasmw's cache folder.
        seed: What the networks are drawn from.
        progress: Whether to print the cost and to show how far it is.

    Raises:
        ProfilerError: If there is no such sampler, `n` is no positive number, or there is no store.
        DeviceError: If the device fails.
    """
    if isinstance(n, bool) or not isinstance(n, int) or n < 1:
        raise ProfilerError(f"a data set has a positive number of networks, got {n!r}")
    if store is False:
        raise ProfilerError("a data set is measured into a store, so that it can be resumed; name a file, store=...")
    if not Path(path).parent.is_dir():
        raise ProfilerError(
            f"there is no folder {str(Path(path).parent)!r} to write {Path(path).name!r} to; make it first"
        )
    meter = Meter(space, device, example_input, resolution=resolution, rounds=rounds, runs=runs, store=store)
    try:
        sample = draw(space, n, sampler, meter.example, np.random.default_rng(seed))
        if progress:
            print(_cost(meter, sample))
        measured = meter.networks(sample, progress=progress)
        about = {
            "space": space.name,
            "device": meter.device.key,
            "input": list(meter.example.shape),
            "protocol": f"{rounds} rounds of {runs} runs",
            "sampler": sampler,
            "seed": seed,
            "first": min(one.taken for one in measured),
            "last": max(one.taken for one in measured),
            "environment": meter.environment,
        }
    finally:
        meter.close()
    dataset = MeasuredDataset(
        sample.codes,
        np.array([one.latency_ms for one in measured]),
        np.array([one.spread_ms for one in measured]),
        space.fingerprint,
        space.describe(),
        about,
    )
    dataset.save(path)
    return dataset


def _cost(meter: Meter, sample: Candidates) -> str:
    """Return what measuring these networks will cost, and what a table would, after measuring a few."""
    space = meter._needed_space()
    known = meter.known_networks(sample)
    missing = sample[~known]
    lines = [f"{len(sample)} networks of {space.name} on {meter.device.name}: {int(known.sum())} are measured already."]
    if len(missing) <= 1 + TRIED:
        return lines[0]
    meter.networks(missing[:1])  # the device's process starts before the clock does
    each = _seconds(lambda: meter.networks(missing[1 : 1 + TRIED])) / TRIED
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
