"""How latencies are measured: the protocol, in one place.

- **Networks** have weights with which activations keep an ordinary size (`nasmw.devices.weights`) and run on one fixed
  input of normal numbers.
- **Devices** each have a process of their own, with one thread that is pinned to one core unless asked otherwise; only
  one of them runs at a time. Pinned to the same core, they see the same core.
- **A visit** is some runs to warm up, which are not timed, and some that are, each by the clock and by processor time.
  Its value is a low quantile of its runs: a disturbance only ever makes a run longer.
- **A round** visits every network on every device. Networks come in random order, and for each the devices too, so that
  what drifts meets all alike. Values from several rounds are minutes apart, which values from one visit are not.
- **The anchor**, one fixed network, is visited every few visits, once for each place (this machine, another host, a
  GPU), on the first device there. What it takes on a quiet machine, the reference, is a low quantile of its visits.
- **A visit is disturbed** if the anchor before or after it took longer than the reference by more than a tenth (another
  clock rate, a busy neighbour), or if its runs took longer by the clock than their processor time by more than a
  twentieth (something else ran on the core; not asked of a GPU). After the rounds, networks that lack undisturbed
  visits are visited in further rounds, a bounded number of times.
- **The latency** is a low quantile of the undisturbed visits by the clock; the spread beside it is their interquartile
  range. If every visit was disturbed, it is the same quantile of all of them, and `Measurements.unsettled` says so.
- **A failure** (a crash, a hang, an answer that makes no sense) is a `DeviceError`; it never becomes a number.
- **Repeatability** is stated by `nasmw.devices.noise.noise_report`: the rank agreement of the latencies from two halves
  of the visits.
"""

from __future__ import annotations

import contextlib
import datetime
import logging
import platform
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from nasmw.candidates import Floats
from nasmw.devices.base import Artifact, Device, key_of
from nasmw.devices.measurements import Measurements
from nasmw.devices.session import Session
from nasmw.errors import DeviceError

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["Protocol", "anchor_network", "measure"]

ANCHOR = "(anchor)"

logger = logging.getLogger(__name__)


@attrs.frozen(kw_only=True)
class Protocol:
    """The numbers of the protocol.

    Attributes:
        rounds: How many undisturbed visits each network is to have on each device.
        repeats: How many further rounds there may be for those that lack some.
        runs: The timed runs of a visit.
        warmup: The runs before them.
        anchor_every: The visits between two of the anchor.
        quantile: The low quantile, of runs, visits and the anchor alike.
        anchor_tolerance: What the anchor may take, as a multiple of its reference.
        wall_tolerance: What runs may take by the clock, as a multiple of their processor time.

    Raises:
        ValueError: If a number is out of range.
    """

    rounds: int = 5
    repeats: int = 3
    runs: int = 10
    warmup: int = 3
    anchor_every: int = 8
    quantile: float = 0.1
    anchor_tolerance: float = 1.1
    wall_tolerance: float = 1.05

    def __attrs_post_init__(self) -> None:
        for name, least in (("rounds", 1), ("repeats", 0), ("runs", 1), ("warmup", 0), ("anchor_every", 1)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ValueError(f"the protocol takes {name} as a whole number of at least {least}, got {value!r}")
        for name in ("anchor_tolerance", "wall_tolerance"):
            if not getattr(self, name) >= 1.0:
                raise ValueError(f"the protocol takes {name} of at least 1, got {getattr(self, name)!r}")
        if not 0.0 <= self.quantile <= 0.5:
            raise ValueError(f"the protocol takes a low quantile, from 0 to 0.5, got {self.quantile!r}")


def measure(
    artifacts: Mapping[str, Artifact | Mapping[str, Artifact]],
    devices: Sequence[Device | Session],
    *,
    rounds: int = 5,
    repeats: int = 3,
    runs: int = 10,
    warmup: int = 3,
    anchor_every: int = 8,
    quantile: float = 0.1,
    anchor_tolerance: float = 1.1,
    wall_tolerance: float = 1.05,
    anchor: Mapping[str, Artifact] | None = None,
    reference: Mapping[str, float] | None = None,
    seed: int = 0,
    progress: bool = True,
) -> Measurements:
    """Measure networks on devices by the protocol that this module's docstring describes.

    Args:
        artifacts: For each network, by name, what each device exported it to, by the name of the device; for one device
            the artifact itself will do.
        devices: The devices; of a session that is open already, its process is used and kept, with the anchor in it.
        rounds: See `Protocol`, as for the other numbers.
        repeats: See `Protocol`.
        runs: See `Protocol`.
        warmup: See `Protocol`.
        anchor_every: See `Protocol`.
        quantile: See `Protocol`.
        anchor_tolerance: See `Protocol`.
        wall_tolerance: See `Protocol`.
        anchor: What the anchor was exported to, by the name of the device, for at least the first device of each place;
            None takes `anchor_network`, or the one that an open session has.
        reference: What the anchor took in earlier runs, in milliseconds by the name of the device; a lower one counts,
            so infinity is none.
        seed: What the order of visits is drawn from.
        progress: Whether to show a progress bar.

    Returns:
        The measurements, visit by visit.

    Raises:
        DeviceError: If a device fails; if an artifact is missing; if two devices have one name.
        ValueError: If a number is out of range.
    """
    protocol = Protocol(
        rounds=rounds,
        repeats=repeats,
        runs=runs,
        warmup=warmup,
        anchor_every=anchor_every,
        quantile=quantile,
        anchor_tolerance=anchor_tolerance,
        wall_tolerance=wall_tolerance,
    )
    for name, milliseconds in (reference or {}).items():
        if not milliseconds > 0.0:
            raise ValueError(f"measure takes a reference of positive milliseconds, got {milliseconds!r} for {name!r}")
    owners = [item.device if isinstance(item, Session) else item for item in devices]
    exported = _by_device(artifacts, owners)
    begin = datetime.datetime.now(datetime.timezone.utc)
    with contextlib.ExitStack() as stack:
        sessions = [item if isinstance(item, Session) else stack.enter_context(item.open()) for item in devices]
        bar = stack.enter_context(
            tqdm(total=len(artifacts) * len(owners) * rounds, disable=not progress, desc="measuring", unit=" visits")
        )
        about = {owner.name: session.describe() for owner, session in zip(owners, sessions, strict=True)}
        course = _Course(tuple(artifacts), owners, sessions, protocol, np.random.default_rng(seed), bar)
        stack.callback(course.forget)
        course.prepare(exported, anchor or {}, reference or {})
        course.run()
        end = {owner.name: session.describe() for owner, session in zip(owners, sessions, strict=True)}
    environment = {
        "begin": begin.isoformat(timespec="seconds"),
        "end": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "protocol": attrs.asdict(protocol),
        "seed": seed,
        "devices": {name: {**found, "key": key_of(name, found)} for name, found in about.items()},
        "load_at_end": {name: found.get("load") for name, found in end.items()},
        "exported_by": {"python": platform.python_version(), **_versions()},
    }
    found = course.measurements(environment)
    if found.unsettled.any():
        logger.warning(
            "%d of %d latencies come from disturbed visits alone: measure again on a quieter machine",
            found.unsettled.sum(),
            found.unsettled.size,
        )
    return found


def _by_device(
    artifacts: Mapping[str, Artifact | Mapping[str, Artifact]], devices: Sequence[Device]
) -> dict[str, Mapping[str, Artifact]]:
    """Return each network's artifacts by device, once it is certain that all are there."""
    names = [device.name for device in devices]
    if not names or not artifacts:
        raise DeviceError("to measure takes at least one network and one device")
    if len(set(names)) < len(names):
        raise DeviceError(f"two devices have the same name, among {', '.join(names)}; give one of them a `name`")
    exported = {}
    for network, found in artifacts.items():
        if not isinstance(network, str) or not network or network == ANCHOR:
            raise DeviceError(f"a network is named by a string, and by another one than {ANCHOR!r}; got {network!r}")
        exported[network] = {names[0]: found} if isinstance(found, Artifact) else found
        if not isinstance(exported[network], Mapping):
            raise TypeError(
                f"measure takes what `Device.export` made of the network {network!r}, got {type(found).__name__}"
            )
        if lacking := [name for name in names if not isinstance(exported[network].get(name), Artifact)]:
            raise DeviceError(f"the network {network!r} was not exported for {', '.join(lacking)}")
    return exported


def _versions() -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for package in ("nasmw", "numpy", "torch", "onnx"):
        with contextlib.suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


class _Course:
    """The course of one run: what has been visited, and what comes next."""

    def __init__(
        self,
        names: tuple[str, ...],
        devices: Sequence[Device],
        sessions: Sequence[Session],
        protocol: Protocol,
        rng: np.random.Generator,
        bar: tqdm[Any],
    ) -> None:
        self.names = names
        self.devices = devices
        self.sessions = sessions
        self.protocol = protocol
        self.rng = rng
        self.bar = bar
        places = [device.place for device in devices]
        self.anchored = [places.index(place) for place in places]  # the device whose anchor speaks for each
        self.anchor_visits: dict[int, list[float]] = {number: [] for number in sorted(set(self.anchored))}
        self.earlier = np.full(len(devices), np.inf)
        shape = (len(devices), len(names), protocol.rounds + protocol.repeats)
        self.wall, self.cpu, self.ratio, self.anchor = (np.full(shape, np.nan) for _ in range(4))
        self.visits = np.zeros(shape[:2], dtype=np.int64)

    def prepare(
        self,
        artifacts: Mapping[str, Mapping[str, Artifact]],
        anchor: Mapping[str, Artifact],
        reference: Mapping[str, float],
    ) -> None:
        """Load every network on every device, and the anchor where it is needed."""
        for number in self.anchor_visits:
            device, session = self.devices[number], self.sessions[number]
            if device.name in anchor:
                with _about("the anchor"):
                    session.prepare(ANCHOR, anchor[device.name])
            elif ANCHOR not in session:
                with _about("the anchor"):
                    session.prepare(ANCHOR, device.export(*anchor_network()))
        for number, device in enumerate(self.devices):
            self.earlier[number] = reference.get(self.devices[self.anchored[number]].name, np.inf)
            for name in self.names:
                with _about(name):
                    self.sessions[number].prepare(name, artifacts[name][device.name])
                self.bar.set_postfix_str(f"loading {name} on {device.name}", refresh=False)
                self.bar.update(0)
        self.bar.set_postfix_str("", refresh=False)

    def forget(self) -> None:
        """Drop the networks from sessions that stay open; one that fails now has been reported, or is ended."""
        for session in self.sessions:
            for name in self.names:
                with contextlib.suppress(DeviceError):
                    session.forget(name)

    def run(self) -> None:
        """Make the rounds, and further ones for what they left disturbed."""
        everything = np.ones(self.visits.shape, dtype=np.bool_)
        for _ in range(self.protocol.rounds):
            self._round(everything)
        for _ in range(self.protocol.repeats):
            lacking = self.measurements({}).accepted.sum(axis=2) < self.protocol.rounds
            if not lacking.any():
                break
            self.bar.total = (self.bar.total or 0) + int(lacking.sum())
            self._round(lacking)

    def measurements(self, environment: Mapping[str, Any]) -> Measurements:
        """Return what has been found so far."""
        quantile = self.protocol.quantile
        found = {number: float(np.quantile(visits, quantile)) for number, visits in self.anchor_visits.items()}
        reference = np.minimum(np.array([found[number] for number in self.anchored]), self.earlier)
        most = int(self.visits.max())
        return Measurements(
            self.names,
            tuple(device.name for device in self.devices),
            self.wall[:, :, :most],
            self.cpu[:, :, :most],
            self.ratio[:, :, :most],
            self.anchor[:, :, :most],
            reference,
            {"protocol": attrs.asdict(self.protocol), **environment},
        )

    def _round(self, wanted: npt.NDArray[np.bool_]) -> None:
        before = self._visit_anchors()
        for block in _batched(list(self._order(wanted)), self.protocol.anchor_every):
            for number, network in block:
                self._visit(number, network)
            after = self._visit_anchors()
            for number, network in block:
                self.anchor[number, network, self.visits[number, network] - 1] = max(before[number], after[number])
            before = after

    def _order(self, wanted: npt.NDArray[np.bool_]) -> Iterator[tuple[int, int]]:
        for network in self.rng.permutation(len(self.names)):
            for number in self.rng.permutation(len(self.devices)):
                if wanted[number, network]:
                    yield int(number), int(network)

    def _visit(self, number: int, network: int) -> None:
        with _about(self.names[network]):
            sample = self.sessions[number].measure(self.names[network], self.protocol.runs, self.protocol.warmup)
        place = number, network, self.visits[number, network]
        self.wall[place] = np.quantile(sample.wall_ms, self.protocol.quantile)
        self.cpu[place] = np.quantile(sample.cpu_ms, self.protocol.quantile)
        cpu = max(float(sample.cpu_ms.sum()), sys.float_info.min)
        self.ratio[place] = float(sample.wall_ms.sum()) / cpu if self.devices[number].on_cpu else 1.0
        self.visits[number, network] += 1
        self.bar.update()

    def _visit_anchors(self) -> Floats:
        """Return what the anchor takes now, ``(devices,)``."""
        for number, visits in self.anchor_visits.items():
            with _about("the anchor"):
                sample = self.sessions[number].measure(ANCHOR, self.protocol.runs, self.protocol.warmup)
            visits.append(float(np.quantile(sample.wall_ms, self.protocol.quantile)))
        return np.array([self.anchor_visits[number][-1] for number in self.anchored])


@contextlib.contextmanager
def _about(network: str) -> Iterator[None]:
    """Name the network in an error of a device."""
    try:
        yield
    except DeviceError as error:
        raise DeviceError(f"{network}: {error}") from error


def _batched(slots: list[tuple[int, int]], size: int) -> Iterator[list[tuple[int, int]]]:
    for begin in range(0, len(slots), size):
        yield slots[begin : begin + size]


def anchor_network() -> tuple[nn.Module, Tensor]:
    """Return the anchor and its example: five 3x3 convolutions of 32 channels, 39 million multiply-adds."""
    import torch
    from torch import nn

    from nasmw.devices.weights import sensible_weights

    layers: list[nn.Module] = [nn.Conv2d(3, 32, 3, padding=1), nn.ReLU()]
    for _ in range(4):
        layers += [nn.Conv2d(32, 32, 3, padding=1), nn.ReLU()]
    network = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10))
    example = torch.zeros(1, 3, 32, 32)
    return sensible_weights(network, example), example
