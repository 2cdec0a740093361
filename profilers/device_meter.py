"""Meter: measures the networks and layers of a space on a device, each once."""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from tqdm import tqdm

from nasmw.candidates import Candidates, Codes
from nasmw.devices.base import Artifact, Device
from nasmw.devices.measuring import Protocol, measure
from nasmw.devices.networks import network_of
from nasmw.devices.registry import get
from nasmw.devices.weights import sensible_weights
from nasmw.errors import DeviceError, ProfilerError
from nasmw.profilers.device_store import Measured, MeasurementStore
from nasmw.profilers.inputs import ExampleInput, ExampleLike, check_resolution
from nasmw.space import Space

if TYPE_CHECKING:
    from nasmw.devices.session import Session
    from nasmw.spaces.layers import Placed

__all__ = ["Meter", "as_device", "as_store", "layer_of", "one_tensor"]

NETWORKS_AT_ONCE = 16
LAYERS_AT_ONCE = 128
FAILURES = 5
"""So many networks in a row on which the device fails are the device's fault."""
IQR_OF_NORMAL = 1.349
"""The interquartile range of a normal distribution, in standard deviations."""

StoreLike = MeasurementStore | str | os.PathLike[str] | bool
Make = Callable[[], tuple[nn.Module, Tensor]]


def as_device(device: Device | str) -> Device:
    """Return a device, or the one that a registered name stands for.

    Raises:
        TypeError: If it is neither.
        DeviceError: If no device has that name.
    """
    if isinstance(device, str):
        return get(device)
    if not isinstance(device, Device):
        raise TypeError(
            f"a device is one of nasmw.devices, such as OnnxRuntime(), or the name of one, got {device!r}; "
            "nasmw.devices.list() says what there is"
        )
    return device


def as_store(store: StoreLike) -> MeasurementStore | None:
    """Return a store from a path; True stands for the one in the cache folder, False for none.

    Raises:
        TypeError: If it is none of these.
    """
    if isinstance(store, bool):
        return MeasurementStore() if store else None
    if not isinstance(store, (MeasurementStore, str, os.PathLike)):
        raise TypeError(f"store=... takes a path, a MeasurementStore, True or False, got {store!r}")
    return store if isinstance(store, MeasurementStore) else MeasurementStore(store)


class Meter:
    """Measures networks and layers of a space on a device; what its store holds is not measured again.

    The store files a network under the device's key, the space's name and fingerprint, what three of its networks
    consist of, the shape of the input and the protocol; the networks themselves by their codes, so that inactive
    choices make no difference and the resolution does. Measurements are stored as they come, some networks at a time:
    whoever is interrupted goes on where it was.

    Args:
        space: The space whose networks are measured, made with a `build`.
        device: The device, or the name of a registered one.
        example_input: A tensor of the shape that the networks take, with the batch size to measure.
        resolution: The choice whose option is the height and width of the input, where the space has it.
        rounds: The undisturbed visits that each network is to have, see `nasmw.devices.measuring`.
        runs: The timed runs of a visit.
        store: Where measurements are kept: a path or a `MeasurementStore`; True for the one in nasmw's cache folder,
            False for none.

    Raises:
        ProfilerError: If the space cannot build networks, or the example is not one tensor.
        MissingExtraError: If what the device needs is not installed.
    """

    def __init__(
        self,
        space: Space | None,
        device: Device | str,
        example_input: ExampleLike,
        *,
        resolution: str | None = "resolution",
        rounds: int = 5,
        runs: int = 10,
        store: StoreLike = True,
    ) -> None:
        if space is not None and not isinstance(space, Space):
            raise TypeError(f"measuring takes a Space first, got {type(space).__name__}")
        if space is not None and not space.buildable:
            raise ProfilerError(
                f"measuring builds the networks of {space!r}, which was made without `build`; "
                "pass Space(choices, build=function)"
            )
        self.space = space
        self.device = as_device(device)
        self.device.require()
        self.example = one_tensor(example_input)
        self.resolution = check_resolution(space, resolution)
        self.protocol = Protocol(rounds=rounds, runs=runs)
        self.store = as_store(store)
        self.reference_ms: float | None = None  # of the protocol's anchor: the best that was seen so far
        self.environment: dict[str, Any] = {}
        self._kept: dict[tuple[str, str], Measured] = {}
        self._session: Session | None = None
        self._closer: weakref.finalize[..., Any] | None = None
        self._owner = os.getpid()
        self._subject: str | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_session": None, "_closer": None}

    def close(self) -> None:
        """End the device's process; the next measurement starts another one. It ends with this object at the latest."""
        if self._closer is not None:
            self._closer()
        self._session = self._closer = None

    # -- what is measured ---------------------------------------------------------------------------------------

    def networks(self, candidates: Candidates, *, progress: bool = False) -> list[Measured]:
        """Return the latency of each candidate's network.

        Raises:
            ProfilerError: If there is no space, or the candidates are of another one.
            DeviceError: If a network cannot be measured; those before it are kept.
        """
        keys = self._keys(candidates)
        found = self._measured(self.subject, self._makes(keys, candidates), NETWORKS_AT_ONCE, _shown(progress))
        return [found[key] for key in keys]

    def attempts(self, candidates: Candidates, *, progress: bool = False) -> list[Measured | DeviceError]:
        """Return the latency of each candidate's network or, where the device fails on it, the error.

        Raises:
            ProfilerError: If there is no space, or the candidates are of another one.
            DeviceError: If the device fails on five networks in a row: then it is the device's fault.
        """
        keys, failed = self._keys(candidates), dict[str, DeviceError]()
        makes = self._makes(keys, candidates)
        found = self._measured(self.subject, makes, NETWORKS_AT_ONCE, _shown(progress), failed)
        return [found[key] if key in found else failed[key] for key in keys]

    def _makes(self, keys: Sequence[str], candidates: Candidates) -> dict[str, Make]:
        return {key: _Network(self, architecture) for key, architecture in zip(keys, candidates, strict=True)}

    def layers(self, placed: Sequence[Placed], *, progress: bool = False) -> dict[str, Measured]:
        """Return the latency of each layer by itself, by its key."""
        makes: dict[str, Make] = {one.key: partial(layer_of, one, self.example.shape[0]) for one in placed}
        return self._measured(self.layer_subject, makes, LAYERS_AT_ONCE, "layers" if progress else "")

    def known_layers(self, placed: Sequence[Placed]) -> int:
        """Return how many of these layers need not be measured any more."""
        return len(self._known(self.layer_subject, list({one.key for one in placed})))

    def known_networks(self, candidates: Candidates) -> npt.NDArray[np.bool_]:
        """Return which of these networks need not be measured any more, ``(n,)``."""
        keys = self._keys(candidates)
        known = self._known(self.subject, list(dict.fromkeys(keys)))
        return np.array([key in known for key in keys], dtype=np.bool_)

    def _keys(self, candidates: Candidates) -> list[str]:
        space = self._needed_space()
        codes = space.canonical(space.check_codes(candidates.codes))
        return [row.tobytes().hex() for row in np.ascontiguousarray(codes)]

    def network(self, model: nn.Module) -> Measured:
        """Return the latency of a network outside any space; it is measured each time, with the weights that it has."""
        return self._measure({"network": lambda: (model, self.example)})["network"]

    # -- how it is filed ----------------------------------------------------------------------------------------

    @property
    def layer_subject(self) -> str:
        """What the store files layers under."""
        return f"layers, batch {self.example.shape[0]}, {self._protocol_text}"

    @property
    def subject(self) -> str:
        """What the store files the networks of the space under."""
        if self._subject is None:
            space = self._needed_space()
            shape = "x".join(map(str, self.example.shape))
            self._subject = (
                f"{space.name} {space.fingerprint}, networks {_witness(space)}, input {shape}, {self._protocol_text}"
            )
        return self._subject

    @property
    def _protocol_text(self) -> str:
        return f"{self.protocol.rounds} rounds of {self.protocol.runs} runs"

    def _needed_space(self) -> Space:
        if self.space is None:
            raise ProfilerError("this was made without a space; pass one to measure architectures")
        return self.space

    # -- how it is done -----------------------------------------------------------------------------------------

    def _known(self, subject: str, keys: Sequence[str]) -> dict[str, Measured]:
        found = {key: self._kept[subject, key] for key in keys if (subject, key) in self._kept}
        if self.store is not None and (rest := [key for key in keys if key not in found]):
            stored = self.store.get(self.device.key, subject, rest)
            self._kept.update({(subject, key): one for key, one in stored.items()})
            found.update(stored)
        return found

    def _measured(
        self,
        subject: str,
        makes: Mapping[str, Make],
        at_once: int,
        shown: str,
        failed: dict[str, DeviceError] | None = None,
    ) -> dict[str, Measured]:
        """Return what is measured already, and measure the rest, some at a time; `shown` names it in a progress bar.

        What the device fails on is added to `failed`, if that is given.
        """
        found = self._known(subject, list(makes))
        missing = [key for key in makes if key not in found]
        if missing and self.store is not None:
            self.store.check()
        with tqdm(total=len(makes), initial=len(found), disable=not shown, desc=f"measuring {shown}", unit="") as bar:
            for begin in range(0, len(missing), at_once):
                some = missing[begin : begin + at_once]
                for new in self._some({key: makes[key] for key in some}, failed):
                    if self.store is not None:
                        self.store.put(self.device.key, subject, new)
                        new = self.store.get(self.device.key, subject, list(new))
                    self._kept.update({(subject, key): one for key, one in new.items()})
                    found.update(new)
                    bar.update(len(new))
        return found

    def _some(self, makes: Mapping[str, Make], failed: dict[str, DeviceError] | None) -> Iterator[dict[str, Measured]]:
        """Yield measurements, of all together or, where the device fails on one of them, of one after another."""
        try:
            together = self._measure(makes)
        except DeviceError:
            if len(makes) == 1 and failed is None:
                raise
        else:
            yield together
            return
        in_a_row = 0
        for key, make in makes.items():
            try:
                one = self._measure({key: make})
            except DeviceError as error:
                in_a_row += 1
                if failed is None or in_a_row >= FAILURES:
                    raise
                failed[key] = error
            else:
                in_a_row = 0
                yield one

    def _measure(self, makes: Mapping[str, Make]) -> dict[str, Measured]:
        name = self.device.name
        artifacts: dict[str, dict[str, Artifact]] = {}
        for key, make in makes.items():
            network = make()
            with _about(makes, key):
                artifacts[key] = {name: self.device.export(*network)}
        with _about(makes, *makes):
            found = measure(
                artifacts,
                [self._opened()],
                rounds=self.protocol.rounds,
                runs=self.protocol.runs,
                reference={} if self.reference_ms is None else {name: self.reference_ms},
                progress=False,
            )
        for key, latency in zip(found.names, found.latency_ms[0].tolist(), strict=True):
            if not 0 < latency < math.inf:
                raise DeviceError(f"{makes[key]}: {self.device!r} says that it takes {latency} ms")
        self.reference_ms = float(found.reference_ms[0])
        self.environment = found.environment
        latencies, spreads = found.latency_ms[0].tolist(), found.spread_ms[0].tolist()
        return {
            key: Measured(latency, spread / IQR_OF_NORMAL)
            for key, latency, spread in zip(found.names, latencies, spreads, strict=True)
        }

    def _opened(self) -> Session:
        """Return the session, which is kept: a process takes a while to start."""
        if self._session is None or self._owner != os.getpid():  # a fork shares its parent's process with it
            self._session, self._owner = self.device.open(), os.getpid()
            self._closer = weakref.finalize(self, _close, self._session, self._owner)
        return self._session


def _shown(progress: bool) -> str:
    return "networks" if progress else ""


def _close(session: Session, owner: int) -> None:
    if owner == os.getpid():
        session.close()


class _Network:
    """Makes the network of an architecture when it is wanted."""

    def __init__(self, meter: Meter, architecture: dict[str, Any]) -> None:
        self.meter = meter
        self.architecture = architecture

    def __call__(self) -> tuple[nn.Module, Tensor]:
        meter = self.meter
        return network_of(meter._needed_space(), self.architecture, meter.example, meter.resolution)

    def __str__(self) -> str:
        return f"the network of {self.architecture!r}"


@contextlib.contextmanager
def _about(makes: Mapping[str, Make], *keys: str) -> Iterator[None]:
    """Name the network in an error of a device, which knows it by its key, one of `keys`."""
    try:
        yield
    except DeviceError as error:
        text = str(error)
        named = [key for key in keys if text.startswith(f"{key}: ")]
        key = named[0] if named else keys[0]
        if not isinstance(makes[key], _Network) or (len(keys) > 1 and not named):
            raise
        raise DeviceError(f"{makes[key]}: {text.removeprefix(f'{key}: ')}") from error


def layer_of(placed: Placed, batch: int) -> tuple[nn.Module, Tensor]:
    """Return a layer by itself, with weights as measurements want them, and what it is applied to.

    Args:
        placed: The layer; its description has `inputs` or `channels`, the number of channels that come in.
        batch: The batch size.

    Raises:
        ProfilerError: If the description has neither.
    """
    layer: Any = placed.layer
    channels = getattr(layer, "inputs", None) or getattr(layer, "channels", None)
    if not isinstance(channels, int):
        raise ProfilerError(
            f"what {placed.key!r} is applied to is not known: its description has neither `inputs` nor "
            "`channels`, the number of channels that come in"
        )
    shape: tuple[int, ...]
    if isinstance(placed.at, int):
        shape = (channels,) if placed.at == 1 else (placed.at, channels)
    else:
        shape = (channels, *placed.at)
    example = torch.zeros(batch, *shape)
    with torch.random.fork_rng(devices=()):
        torch.default_generator.manual_seed(0)
        return sensible_weights(layer.module(), example), example


def one_tensor(example_input: ExampleLike) -> Tensor:
    """Return the tensor that networks are measured on.

    Raises:
        TypeError: If it is no example input.
        ProfilerError: If it is not one tensor, or an empty one.
    """
    example = ExampleInput.of(example_input)
    tensors = example.tensors()
    if len(tensors) != 1 or len(example.args) != 1 or example.kwargs or example.args[0] is not tensors[0]:
        raise ProfilerError(
            "networks are measured on one tensor, such as torch.zeros(1, 3, 224, 224), got arguments of shapes "
            f"{example.shapes()}; TorchLatencyProfiler takes several"
        )
    (tensor,) = tensors
    if not tensor.numel():
        raise ProfilerError(f"networks are measured on an example of at least one element, got one of {tensor.shape}")
    return tensor


def _witness(space: Space) -> str:
    """Return a hash of what three networks of a space consist of: spaces with the same choices differ in them."""
    found = hashlib.sha256(f"{space.builder_name}\n".encode())
    for codes in _corners(space):
        with torch.random.fork_rng(devices=()):
            model = space.build(space.decode(codes))
        shapes = [(name, tuple(tensor.shape)) for name, tensor in model.state_dict().items()]
        found.update(f"{model!r}\n{shapes!r}\n".encode())
    return found.hexdigest()[:16]


def _corners(space: Space) -> Iterator[Codes]:
    last = np.array([len(choice.options) - 1 for choice in space.choices], dtype=space.dtype)
    yield from space.canonical(np.stack([np.zeros_like(last), last]))
    yield from space.sample(1, np.random.default_rng(0)).codes
