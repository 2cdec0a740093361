"""DeviceProfiler: how long whole networks take on a device, measured."""

from __future__ import annotations

import numpy as np
from torch import nn

from nasmw.candidates import Architecture, Candidates, Floats
from nasmw.devices.base import Device
from nasmw.profiler import Profiler
from nasmw.profilers.device_meter import Meter, StoreLike
from nasmw.profilers.inputs import ExampleLike
from nasmw.space import Space

__all__ = ["DeviceProfiler"]


class DeviceProfiler(Profiler):
    """Milliseconds that networks take on a device, each measured as a whole.

    A network is built, given weights as measurements want them, exported and measured by the protocol of
    `nasmw.devices.measuring`, in the process of the device. Each architecture is measured once: a run keeps the value
    in its log, and a store keeps it for all runs, under the device and the space; inactive choices make no difference
    to it, the resolution does. The store knows a space by its choices, its name, and what three of its networks consist
    of; after a change that does not show there, in a `forward` say, name another store.

    Measuring takes a second or so for each network. In a chain it belongs behind what is cheap, or into a `Verify`;
    for a search that asks for thousands, `build_latency_table` makes a table.

    Args:
        space: The space whose architectures are measured, made with a `build`; None to measure networks only.
        device: The device, or the name of a registered one.
        example_input: A tensor of the shape that the networks take, with the batch size to measure.
        name: The name of the metric.
        resolution: The choice whose option is the height and width of the input, where the space has it.
        rounds: The undisturbed visits that each network is to have.
        runs: The timed runs of a visit.
        store: Where measurements are kept: a path or a `MeasurementStore`; True for the one in nasmw's cache folder,
            False for none.

    Raises:
        ProfilerError: If the space cannot build networks, or the example is not one tensor.
        MissingExtraError: If what the device needs is not installed.
        DeviceError: While profiling, if the device fails.

    Example:
        >>> import torch
        >>> from nasmw.testing import FakeDevice, toy_space
        >>> latency = DeviceProfiler(toy_space(), FakeDevice(), torch.zeros(1, 3, 8, 8), store=False)
        >>> latency, round(latency.profile({"width": 8, "depth": 1, "block0.op": "pool"}), 4)
        (<DeviceProfiler 'latency_ms' [ms] on fake-fp32>, 0.2339)
    """

    def __init__(
        self,
        space: Space | None,
        device: Device | str,
        example_input: ExampleLike,
        *,
        name: str = "latency_ms",
        resolution: str | None = "resolution",
        rounds: int = 5,
        runs: int = 10,
        store: StoreLike = True,
    ) -> None:
        self.meter = Meter(space, device, example_input, resolution=resolution, rounds=rounds, runs=runs, store=store)
        super().__init__(name, "ms", space=space, kind="measured", device=self.meter.device.name)

    def close(self) -> None:
        """End the device's process; the next measurement starts another one."""
        self.meter.close()

    def _profile(self, architecture: Architecture) -> float:
        return self.meter.networks(self._space().candidates([architecture]))[0].latency_ms

    def _profile_batch(self, candidates: Candidates) -> Floats:
        self._space()
        return np.array([one.latency_ms for one in self.meter.networks(candidates)])

    def _profile_model(self, model: nn.Module) -> float:
        return self.meter.network(model).latency_ms

    def std(self, candidates: Candidates) -> Floats:
        """Return by how much a repetition may differ, ``(n,)``: what the spread of the visits is one of.

        Candidates that have not been measured are measured.
        """
        self._space()
        return np.array([one.spread_ms for one in self.meter.networks(candidates)])
