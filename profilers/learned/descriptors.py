"""HardwareModel: latencies on devices that were never measured, from what is published about them."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np

from nasmw.candidates import Candidates, Floats
from nasmw.errors import OrderError, ProfilerError
from nasmw.profiler import Profiler
from nasmw.profilers.learned import files
from nasmw.profilers.learned.layers import LayerWork
from nasmw.profilers.learned.predictor import Arrays
from nasmw.space import Space

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["GPUS", "DescriptorProfiler", "DeviceMeasurements", "HardwareDescriptor", "HardwareModel"]

KINDS = ("macs", "depthwise macs", "elements")
"""What a device may be better or worse at than its bandwidth says."""
COLUMNS = (
    ("pointwise macs", "macs", 1e8),
    ("depthwise macs", "depthwise macs", 1e7),
    ("other macs", "macs", 1e7),
    ("pointwise elements", "elements", 1e6),
    ("depthwise elements", "elements", 1e6),
    ("other elements", "elements", 1e6),
)
"""The columns of work, of which kind each is, and the unit that it is counted in."""
WEIGHTS_PRIOR = (-1.0, 2.0)
INTENSITY_WIDTH = 0.05
CACHE_WIDTH = 2.0
SOFTWARE_WIDTH = 0.3
HOST_WIDTH = 0.5
LAUNCH_MS = 0.08
ERROR = 0.05
SHARPNESS = 4.0
EFFECTIVE = 10.0
"""How many independent samples a table counts as: residuals of one device have much in common."""
MOST_ROWS = 100
ITERATIONS = 200


def _positive(instance: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0.0 < value < math.inf:
        raise ProfilerError(f"HardwareDescriptor({attribute.name}=...) takes a number above 0, got {value!r}")


@attrs.frozen
class HardwareDescriptor:
    """What is published about a device.

    Attributes:
        name: Its name.
        cores: Arithmetic units, each with one multiply-add a clock cycle in float32.
        clock_mhz: The greatest clock rate that the maker promises ("boost").
        memory_gb: Its memory in gigabytes.
        bandwidth_gbs: What its memory transfers, gigabytes a second.
        cache_mb: The cache that all cores share, in megabytes.
        launch_us: Microseconds in which the *host* starts one operation, or None where it is not known. Processor and
            software decide on it, not the device. One network in a batch of 1, its latency over the number of its
            operations, tells it.
    """

    name: str
    cores: int = attrs.field(validator=_positive)
    clock_mhz: float = attrs.field(validator=_positive)
    memory_gb: float = attrs.field(validator=_positive)
    bandwidth_gbs: float = attrs.field(validator=_positive)
    cache_mb: float = attrs.field(validator=_positive)
    launch_us: float | None = attrs.field(default=None, validator=attrs.validators.optional(_positive))

    @property
    def teraflops(self) -> float:
        """Two operations for each core and cycle, 10^12 a second."""
        return 2.0 * self.cores * self.clock_mhz * 1e-6

    def scaled(self) -> Floats:
        """Return logarithms of arithmetic per byte of bandwidth, and of the cache, ``(2,)``."""
        return np.log([1e3 * self.teraflops / self.bandwidth_gbs, self.cache_mb])


GPUS: Mapping[str, HardwareDescriptor] = {
    descriptor.name: descriptor
    for descriptor in (
        HardwareDescriptor("RTX 2080 Ti", 4352, 1545, 11, 616, 5.5),
        HardwareDescriptor("Titan RTX", 4608, 1770, 24, 672, 6),
        HardwareDescriptor("Titan Xp", 3840, 1582, 12, 547.7, 3),
        HardwareDescriptor("V100", 5120, 1380, 16, 900, 6),
        HardwareDescriptor("P40", 3840, 1531, 24, 346, 3),
    )
}
"""Some GPUs. Sources, all by NVIDIA: the whitepapers on the Turing architecture (2018, appendix A and B: RTX 2080 Ti
reference card, Titan RTX's chip), Tesla V100 (2017, table 1; the PCIe card's clock from its data sheet), the product
pages of Titan RTX and Titan Xp, and the data sheet of Tesla P40 (2016)."""


@attrs.frozen(eq=False)
class DeviceMeasurements:
    """Latencies of networks on one device.

    Attributes:
        hardware: The device.
        batch: The number of images in a batch.
        candidates: ``n`` networks.
        milliseconds: ``(n,)``, of a whole batch.
        software: A name for what measured: runtimes differ. Measurements with one name have the runtime in common; on
            one device also the host.
    """

    hardware: HardwareDescriptor
    batch: int
    candidates: Candidates
    milliseconds: Floats
    software: str = ""

    def __attrs_post_init__(self) -> None:
        values = np.asarray(self.milliseconds, dtype=np.float64)
        if values.shape != (len(self.candidates),) or not np.isfinite(values).all() or (values <= 0).any():
            raise ProfilerError(
                f"measurements on {self.hardware.name!r} are one positive number for each of {len(self.candidates)} "
                f"candidates, got {values.shape}" + (", some not positive" if values.size else "")
            )
        if len(values) < 3:
            raise ProfilerError(f"measurements on {self.hardware.name!r} are of at least 3 networks, got {len(values)}")
        _check_batch(self.batch)


def _check_batch(batch: object) -> None:
    if isinstance(batch, bool) or not isinstance(batch, int) or batch < 1:
        raise ProfilerError(f"a batch is a whole number of at least 1, got {batch!r}")


class HardwareModel:
    """Latencies across devices: fitted to some of them, it predicts others of which only the descriptors are known.

    A batch takes the time of the work or of the launches, whichever is longer (rounded off where they are close). Work
    is a weighted sum of multiply-adds and of elements read and written, times the batch, over the bandwidth; the
    weights are common to all devices. Each kind of work has a factor for the device: powers of its arithmetic per byte
    and of its cache, with priors around no influence (a narrow one for the former, since these networks are bound by
    memory), and one for the software. Launches are one per operation, at a rate that the host decides on: it is learnt
    for each measured device; for another one it is `HardwareDescriptor.launch_us`, or else what is usual.

    Args:
        space: A space that describes its layers.

    Raises:
        ProfilerError: If the space does not describe its layers.

    References:
        Williams, Waterman, Patterson, Roofline: An Insightful Visual Performance Model for Multicore Architectures,
        Communications of the ACM 2009, for the shape of the model.

    Example:
        >>> from nasmw.spaces import compofa
        >>> space = compofa(resolutions=(160, 224))
        >>> networks = space.sample(20, np.random.default_rng(0))
        >>> work = LayerWork().amounts(networks)[:, 0]
        >>> seen = [
        ...     DeviceMeasurements(GPUS[name], 64, networks, 64e-6 * work / GPUS[name].bandwidth_gbs)
        ...     for name in ("V100", "Titan RTX")
        ... ]
        >>> new = HardwareModel(space).fit(seen).on(GPUS["RTX 2080 Ti"], batch=64)
        >>> expected = 64e-6 * work / GPUS["RTX 2080 Ti"].bandwidth_gbs
        >>> bool(np.abs(new.profile_batch(networks) / expected - 1.0).max() < 0.1)
        True
    """

    def __init__(self, space: Space) -> None:
        self.space = space
        self._names = LayerWork().names(space)
        self._state: Arrays = {}
        self._software: tuple[str, ...] = ()
        self._relative_std = math.nan

    def __repr__(self) -> str:
        return f"<HardwareModel on {self.space.name!r}{'' if self._state else ', not fitted'}>"

    def work(self, candidates: Candidates) -> tuple[Floats, Floats]:
        """Return the work of candidates in six columns, ``(n, 6)``, and the number of their operations, ``(n,)``."""
        values = LayerWork().amounts(Candidates.of(self.space, candidates.codes))

        def column(name: str) -> Floats:
            return values[:, self._names.index(name)] if name in self._names else np.zeros(len(values))

        found = {name: column(name) for name, _, _ in COLUMNS if not name.startswith("other")}
        for what in ("macs", "elements"):
            found[f"other {what}"] = column(what) - found[f"pointwise {what}"] - found[f"depthwise {what}"]
        return np.stack([found[name] / unit for name, _, unit in COLUMNS], axis=1), column("number")

    def fit(self, measurements: Iterable[DeviceMeasurements], *, calibrate: bool = True) -> HardwareModel:
        """Learn from measured devices, from scratch; return the model.

        Args:
            measurements: Of at least two devices; of each at most 100 networks are used.
            calibrate: Whether the standard deviation is found, by leaving out one device after another.

        Raises:
            ProfilerError: If there are fewer than two devices, or candidates are of another space.
        """
        tables = list(measurements)
        for table in tables:
            if getattr(table.candidates.space, "fingerprint", "") != self.space.fingerprint:
                raise ProfilerError(f"{self!r} was given candidates of {table.candidates.space!r}")
        devices = list(dict.fromkeys(table.hardware.name for table in tables))
        if len(devices) < 2:
            raise ProfilerError(f"a model of hardware is learnt from at least two devices, got {devices}")
        self._relative_std = math.nan
        if calibrate and len(devices) > 2:
            errors = []
            for left in devices:
                rest = HardwareModel(self.space)
                rest._learn([table for table in tables if table.hardware.name != left])
                for table in tables:
                    if table.hardware.name == left:
                        own = rest.on(table.hardware, table.batch, software=table.software)
                        rows = _rows(len(table.milliseconds))
                        said = own.profile_batch(table.candidates[rows])
                        errors.append(float(np.mean(np.log(said / np.asarray(table.milliseconds)[rows]) ** 2)))
            self._relative_std = math.sqrt(float(np.mean(errors)))
        self._learn(tables)
        return self

    def _learn(self, tables: Sequence[DeviceMeasurements]) -> None:
        import torch

        self._software = tuple(dict.fromkeys(table.software for table in tables))
        hosts = list(dict.fromkeys((table.hardware.name, table.software) for table in tables))
        distinct = {table.hardware.name: table.hardware for table in tables}
        centre = np.mean([hardware.scaled() for hardware in distinct.values()], axis=0)
        double = torch.float64
        data = []
        for table in tables:
            rows = _rows(len(table.milliseconds))
            work, number = self.work(table.candidates[rows])
            data.append(
                (
                    torch.from_numpy(work * (100.0 * table.batch / 10.0 / table.hardware.bandwidth_gbs)),
                    torch.from_numpy(number),
                    torch.from_numpy(np.log(np.asarray(table.milliseconds, dtype=np.float64)[rows])),
                    torch.from_numpy(table.hardware.scaled() - centre),
                    self._software.index(table.software),
                    hosts.index((table.hardware.name, table.software)),
                )
            )
        weights = torch.full((len(COLUMNS),), WEIGHTS_PRIOR[0], dtype=double, requires_grad=True)
        powers = torch.zeros(len(KINDS), 2, dtype=double, requires_grad=True)
        software = torch.zeros(len(self._software), len(KINDS), dtype=double, requires_grad=True)
        launches = torch.full((len(hosts),), math.log(LAUNCH_MS), dtype=double, requires_grad=True)
        usual = torch.full((), math.log(LAUNCH_MS), dtype=double, requires_grad=True)
        widths = torch.tensor([INTENSITY_WIDTH, CACHE_WIDTH], dtype=double)

        def loss() -> Tensor:
            total = (
                ((powers / widths) ** 2).sum()
                + ((software / SOFTWARE_WIDTH) ** 2).sum()
                + (((launches - usual) / HOST_WIDTH) ** 2).sum()
                + (((weights - WEIGHTS_PRIOR[0]) / WEIGHTS_PRIOR[1]) ** 2).sum()
            ) / 2.0
            for work, number, logarithms, scaled, used, host in data:
                said = _log_time(work, number, weights, powers @ scaled + software[used], launches[host])
                error = (said - logarithms) / ERROR
                total = total + EFFECTIVE * (torch.sqrt(1.0 + error**2) - 1.0).mean()
            return total

        variables = [weights, powers, software, launches, usual]
        optimizer = torch.optim.LBFGS(variables, max_iter=ITERATIONS, line_search_fn="strong_wolfe")

        def closure() -> Tensor:
            optimizer.zero_grad()
            result = loss()
            result.backward()
            return result

        optimizer.step(closure)
        names = ("weights", "powers", "software", "launches", "usual")
        self._state = {name: variable.detach().numpy().copy() for name, variable in zip(names, variables, strict=True)}
        self._state["centre"] = centre

    def on(
        self, hardware: HardwareDescriptor, batch: int, *, software: str | None = None, name: str = "latency_ms"
    ) -> DescriptorProfiler:
        """Return a profiler of a device.

        Args:
            hardware: The device; it need not be among those that were measured.
            batch: The number of images in a batch.
            software: What it would be measured by; an unknown name, or None, for one like the average.
            name: The name of the metric.

        Raises:
            OrderError: If the model was not fitted.
            ProfilerError: If the batch is below 1.
        """
        if not self._state:
            raise OrderError(f"{self!r} has learnt nothing yet; call fit(measurements)")
        _check_batch(batch)
        return DescriptorProfiler(self, hardware, batch, software=software, name=name)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write what was learnt to a file that holds no pickled objects.

        Raises:
            OrderError: If the model was not fitted.
        """
        if not self._state:
            raise OrderError(f"{self!r} has learnt nothing yet; call fit(measurements)")
        header = {
            "space": self.space.fingerprint,
            "space_name": self.space.name,
            "software_names": list(self._software),
            "relative_std": None if math.isnan(self._relative_std) else self._relative_std,
            "encoding_fingerprint": LayerWork().fingerprint(self.space),
            "model": "hardware",
        }
        files.write(path, header, self._state)

    @classmethod
    def load(cls, path: str | os.PathLike[str], space: Space) -> HardwareModel:
        """Return the model that `save` wrote; it predicts the same to the last bit.

        Raises:
            FileNotFoundError: If there is no file.
            ProfilerError: If it is no such file, or about another space.
        """
        header, arrays = files.read(path, space)
        with files.damaged(path):
            if header.get("model") != "hardware":
                raise ProfilerError(f"{os.fspath(path)!r} was saved by no HardwareModel; use LearnedProfiler.load")
            made = cls(space)
            if header["encoding_fingerprint"] != LayerWork().fingerprint(space):
                raise ProfilerError(
                    f"{os.fspath(path)!r} was saved for networks of other costs than those of {space!r}"
                )
            made._state = arrays
            made._software = tuple(header["software_names"])
            made._relative_std = math.nan if header["relative_std"] is None else header["relative_std"]
            return made


def _rows(n: int) -> Any:
    """Return which of `n` rows are used, the same ones each time."""
    return np.sort(np.random.default_rng(0).permutation(n)[:MOST_ROWS])


def _log_time(work: Tensor, number: Tensor, weights: Tensor, factors: Tensor, launch: Tensor) -> Tensor:
    """Return logarithms of milliseconds: the greater one of work and launches, rounded off."""
    import torch

    kinds = [KINDS.index(kind) for _, kind, _ in COLUMNS]
    busy = torch.log(work @ torch.exp(weights + factors[kinds]))
    started = launch + torch.log(number)
    return torch.logaddexp(SHARPNESS * busy, SHARPNESS * started) / SHARPNESS


class DescriptorProfiler(Profiler):
    """Latency on one device as a `HardwareModel` predicts it from the device's descriptor; made by `HardwareModel.on`.

    It does not learn from measurements. As the source of a `TransferProfiler` it is corrected by them.

    Attributes:
        hardware: The device.
        batch: The number of images in a batch.
    """

    def __init__(
        self,
        model: HardwareModel,
        hardware: HardwareDescriptor,
        batch: int,
        *,
        software: str | None = None,
        name: str = "latency_ms",
    ) -> None:
        super().__init__(name, "ms", space=model.space, kind="learned", device=f"{hardware.name}, batch {batch}")
        self.hardware = hardware
        self.batch = batch
        self._model = model
        self._relative_std = model._relative_std
        state = model._state
        own = (
            np.zeros(len(KINDS))
            if software not in model._software
            else state["software"][model._software.index(software)]
        )
        self._factors = state["powers"] @ (hardware.scaled() - state["centre"]) + own
        self._launch = float(state["usual"]) if hardware.launch_us is None else math.log(1e-3 * hardware.launch_us)

    @property
    def fixed(self) -> bool:
        """True: it follows from what the model had learnt."""
        return True

    def _profile_batch(self, candidates: Candidates) -> Floats:
        work, number = self._model.work(candidates)
        kinds = [KINDS.index(kind) for _, kind, _ in COLUMNS]
        rates = np.exp(self._model._state["weights"] + self._factors[kinds])
        busy = (work * rates).sum(axis=1) * (100.0 * self.batch / 10.0 / self.hardware.bandwidth_gbs)
        started = np.exp(self._launch) * number
        return np.asarray(np.exp(np.logaddexp(SHARPNESS * np.log(busy), SHARPNESS * np.log(started)) / SHARPNESS))

    def std(self, candidates: Candidates) -> Floats | None:
        """Return the error on devices left out, as a share of each value, ``(n,)``; None where it was not found."""
        if math.isnan(self._relative_std):
            return None
        return self._relative_std * self.profile_batch(candidates)
