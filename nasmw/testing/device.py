"""FakeDevice: a device without a process, whose latencies are computed; for tests of what measures."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from nasmw.devices.base import Artifact, Device
from nasmw.devices.session import Sample, Session
from nasmw.errors import DeviceError

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["FakeDevice", "fake_latency"]

FILE = "latency.json"


def fake_latency(model: nn.Module, example: Tensor) -> float:
    """Return milliseconds that a network might take: 0.2, 0.01 for each layer, and 1 for every million multiply-adds.

    Layers are convolutions and linear layers; others take no time. The latency of a network is thus that of its
    layers, apart from what every network costs alike.

    Args:
        model: The network.
        example: What it is run on.
    """
    import torch
    from torch import nn

    layers: list[float] = []

    def note(module: nn.Module, args: Any, output: Tensor) -> None:
        weights = next(module.parameters())
        layers.append(weights.numel() * (output.numel() // len(weights)) * 1e-6 + 0.01)

    handles = [m.register_forward_hook(note) for m in model.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    try:
        with torch.no_grad():
            model.eval()(example)
    finally:
        for handle in handles:
            handle.remove()
    return 0.2 + sum(layers)


class FakeDevice(Device):
    """Measures nothing: the latency of a network is what a function says, with noise where it is wanted.

    Attributes:
        exported: The number of networks exported so far.
        measured: The number of requests to measure so far.

    Args:
        latency: Takes a network and its example input, returns milliseconds.
        noise: The standard deviation of a run, relative to the latency; runs are only ever slower.
        version: The version of the runtime that it pretends to have.
        fails_after: The number of requests to measure that it answers before it fails; None for any number.
        **common: What every `Device` takes.

    Example:
        >>> import torch
        >>> device = FakeDevice()
        >>> with device.open() as session:
        ...     _ = session.prepare("linear", device.export(torch.nn.Linear(100, 10), torch.zeros(1, 100)))
        ...     print(session.measure("linear", runs=2).wall_ms)
        [0.211 0.211]
    """

    runtime: ClassVar[str] = "fake"
    extra: ClassVar[str] = "test"
    far: ClassVar[str] = ""

    def __init__(
        self,
        latency: Callable[[nn.Module, Tensor], float] = fake_latency,
        *,
        noise: float = 0.0,
        version: str = "1",
        fails_after: int | None = None,
        **common: Any,
    ) -> None:
        super().__init__(**common)
        self.latency = latency
        self.noise = noise
        self.version = version
        self.fails_after = fails_after
        self.exported = 0
        self.measured = 0

    @property
    def variant(self) -> str:
        """What sets it apart: nothing."""
        return "fp32"

    def export(self, model: nn.Module, example: Tensor) -> Artifact:
        """Return an artifact that holds the latency; see `Device.export`."""
        self.exported += 1
        training = model.training
        try:
            content = {"network": repr(model), "latency_ms": self.latency(model, example)}
        except DeviceError:
            raise
        except RuntimeError as error:  # of PyTorch, where the network does not run
            raise DeviceError(f"{type(model).__name__} cannot be exported: {error}") from error
        finally:
            model.train(training)
        return Artifact({FILE: json.dumps(content).encode()}, [tuple(example.shape)])

    def open(self) -> Session:
        """Return a session without a process."""
        return _FakeSession(self)


class _FakeSession(Session):
    device: FakeDevice

    def __init__(self, device: FakeDevice) -> None:
        super().__init__(device)
        self._rng = np.random.default_rng(0)

    def describe(self) -> dict[str, Any]:
        return {
            "runtime": "fake",
            "version": self.device.version,
            "precision": "fp32",
            "threads": self.device.threads,
            "cpu": "no processor",
        }

    def prepare(self, key: str, artifact: Artifact) -> float:
        self._artifacts[key] = artifact
        return 0.0

    def measure(self, key: str, runs: int = 10, warmup: int = 3) -> Sample:
        device = self.device
        if device.fails_after is not None and device.measured >= device.fails_after:
            raise DeviceError(f"{device!r} fails after {device.fails_after} requests to measure, as it was told")
        device.measured += 1
        latency: float = json.loads(self._artifacts[key].files[FILE])["latency_ms"]
        times = latency * (1.0 + device.noise * np.abs(self._rng.standard_normal(runs)))
        return Sample(times, times)

    def forget(self, key: str) -> None:
        self._artifacts.pop(key, None)
