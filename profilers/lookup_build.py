"""build_latency_table: a table of latencies for any space, from measurements on a device."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import attrs
import numpy as np

from nasmw.candidates import Candidates, Floats
from nasmw.devices.base import Device
from nasmw.errors import ProfilerError
from nasmw.profilers.device_meter import Meter, StoreLike
from nasmw.profilers.inputs import ExampleLike
from nasmw.profilers.lookup import described_parts, required_layers
from nasmw.profilers.lookup_choices import ChoiceParts
from nasmw.profilers.lookup_file import LatencyTable
from nasmw.profilers.lookup_fit import FOLDS, Fit, cross_validated
from nasmw.profilers.lookup_samples import draw
from nasmw.space import Space
from nasmw.spaces.layers import Layer, Placed

__all__ = ["build_latency_table"]


def build_latency_table(
    space: Space,
    device: Device | str,
    example_input: ExampleLike,
    *,
    networks: int = 40,
    resolution: str | None = "resolution",
    rounds: int = 5,
    runs: int = 10,
    store: StoreLike = True,
    seed: int = 0,
    progress: bool = True,
) -> LatencyTable:
    """Measure a space on a device; return its table of latencies, to be saved and to make a `LookupTableProfiler` of.

    Where a space describes its layers, each distinct one (a block at its place, say) is measured once, by itself. That
    is not what it takes within a network: alone it pays for being called and for bringing its input into the runtime's
    own layout, and it finds its data in the cache. So some whole networks are measured too, spread over the
    multiply-adds, and from them it is fitted what a layer takes in a network: a factor times what it takes alone (one
    for all, or one for each kind), perhaps less a constant, perhaps with a small deviation of its own, and an overhead
    that all networks have. Networks that were left out decide between these; how far off they are is the table's
    `relative_error`, cross-validated.

    Where a space does not describe its layers, the same is done with what its tables of multiply-adds are made of: each
    combination of the few choices that decide one part. Then every latency comes from whole networks, and it takes
    more of them.

    Everything measured is kept in the store: whoever is interrupted goes on where it was, and a second space with the
    same layers needs its own networks only.

    Args:
        space: The space, made with a `build`.
        device: The device, or the name of a registered one.
        example_input: A tensor of the shape that the networks take, with the batch size to measure.
        networks: How many whole networks are measured, at least 5; 200 or so where the layers are not described.
        resolution: The choice whose option is the height and width of the input, where the space has it.
        rounds: The undisturbed visits that each network and layer is to have.
        runs: The timed runs of a visit.
        store: Where measurements are kept: a path or a `MeasurementStore`; True for the one in nasmw's cache folder,
            False for none.
        seed: What the networks are drawn from.
        progress: Whether to show what is measured.

    Raises:
        ProfilerError: If the space cannot build networks; if it describes its layers for images of another size; if
            the measurements are too noisy to fit anything to.
        DeviceError: If the device fails.

    Example:
        >>> import torch
        >>> from nasmw.profilers import LookupTableProfiler
        >>> from nasmw.spaces import nasbench201
        >>> from nasmw.testing import FakeDevice
        >>> space = nasbench201(cells=1)
        >>> table = build_latency_table(
        ...     space, FakeDevice(), torch.zeros(1, 3, 32, 32), networks=10, store=False, progress=False
        ... )
        >>> latency = LookupTableProfiler(space, table)
        >>> latency.relative_error < 0.01
        True
    """
    if isinstance(networks, bool) or not isinstance(networks, int) or networks < FOLDS:
        raise ProfilerError(f"a table needs at least {FOLDS} whole networks to be fitted, got {networks!r}")
    begin = time.monotonic()
    meter = Meter(space, device, example_input, resolution=resolution, rounds=rounds, runs=runs, store=store)
    try:
        sample = draw(
            meter._needed_space(),
            networks,
            "stratified by MACs",
            meter.example,
            np.random.default_rng(seed),
            resolution=meter.resolution,
        )
        if len(sample) < FOLDS:
            raise ProfilerError(f"{space!r} has fewer than the {FOLDS} networks that a fit takes; measure all of them")
        described = space.parts is not None and all(part.layers is not None for part in space.parts())
        build = _from_layers if described else _from_choices
        entries, fit, about = build(meter, sample, seed, progress)
        if not fit.parts.any():
            raise ProfilerError(
                f"what {len(sample)} networks of {space!r} took on {meter.device!r} has nothing to do with what their "
                "parts took: the machine was busy, or these are too few; measure on a quiet machine, into another store"
            )
    finally:
        meter.close()
    return LatencyTable(
        meter.device.key,
        network=space.name,
        overhead=fit.overhead,
        relative_error=fit.relative_error,
        notes={
            "networks measured": len(sample),
            "fit": fit.model,
            "relative_error": "root mean square on networks left out, by cross-validation",
            "input": list(meter.example.shape),
            "protocol": f"{rounds} rounds of {runs} runs",
            "seconds": round(time.monotonic() - begin, 1),
            **about,
        },
        **entries,
    )


def _from_layers(
    meter: Meter, sample: Candidates, seed: int, progress: bool
) -> tuple[dict[str, Any], Fit, dict[str, Any]]:
    """Return the entries of a table over layers, their fit, and what is to be noted."""
    space = meter._needed_space()
    required = list({placed.key: placed for placed in required_layers(space)}.values())
    _check_images(meter, space, required)
    alone = meter.layers(required, progress=progress)
    latencies = np.array([one.latency_ms for one in meter.networks(sample, progress=progress)])
    number = {placed.key: place for place, placed in enumerate(required)}
    counts = np.zeros((len(sample), len(required)))
    for row, codes in enumerate(sample.codes):
        options = {choice.name: choice.options[code] for choice, code in zip(space.choices, codes, strict=True)}
        for part in described_parts(space):
            for placed in part.layers(*[options[name] for name in part.scope]) if part.layers else ():
                counts[row, number[placed.key]] += 1
    fit = cross_validated(
        counts,
        latencies,
        np.array([alone[placed.key].latency_ms for placed in required]),
        [[type(placed.layer).__name__ for placed in required], [_sort_of(placed.layer) for placed in required]],
        np.ones(len(required)),
        seed,
    )
    layers = {placed.key: float(ms) for placed, ms in zip(required, fit.parts, strict=True)}
    return {"layers": layers}, fit, {"layers measured": len(required)}


def _sort_of(layer: Layer) -> str:
    """Return what a layer is apart from its sizes: its class, kernel, stride, activation and so on."""
    settings = attrs.asdict(layer, filter=lambda attribute, _: attribute.name not in SIZES)  # type: ignore[arg-type]
    return f"{type(layer).__name__} {settings}"


def _check_images(meter: Meter, space: Space, required: Sequence[Placed]) -> None:
    size = tuple(meter.example.shape[-2:])
    described = {placed.image for placed in required}
    if meter.resolution is None and described != {size}:
        raise ProfilerError(
            f"{space!r} describes its layers for images of {' and '.join(f'{h}x{w}' for h, w in sorted(described))}, "
            f"and the example input has the shape {tuple(meter.example.shape)}; give an example of that size"
        )


def _from_choices(
    meter: Meter, sample: Candidates, seed: int, progress: bool
) -> tuple[dict[str, Any], Fit, dict[str, Any]]:
    """Return the entries of a table over choices, their fit, and what is to be noted."""
    space = meter._needed_space()
    parts = ChoiceParts.of(space, meter.example, resolution=meter.resolution)
    latencies = np.array([one.latency_ms for one in meter.networks(sample, progress=progress)])
    counts = parts.counts(sample.codes)
    guess: Floats = parts.macs * float(np.median(latencies) / max(np.median(counts @ parts.macs), 1.0))
    # What has no multiply-adds, pooling say, takes time all the same.
    guess = np.where(parts.present, np.maximum(guess, FLOOR * float(np.median(latencies)) / len(space)), 0.0)
    fit = cross_validated(counts, latencies, guess, [parts.kinds], np.zeros(len(guess)), seed)
    return {"choices": parts.latencies(fit.parts)}, fit, {"combinations of choices fitted": len(guess)}


SIZES = ("inputs", "outputs", "hidden", "channels")
"""The settings of a layer that are sizes."""
FLOOR = 0.2
"""What a part without multiply-adds is expected to take, in shares of a network's latency for each choice."""
