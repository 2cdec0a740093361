"""LearnedProfiler: predicts a metric from architectures whose values are known."""

from __future__ import annotations

import os
import reprlib
from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypeVar, get_args

import attrs
import numpy as np
import numpy.typing as npt

from nasmw.candidates import Architecture, Candidates, Codes, Floats, Outcomes, Status
from nasmw.cost import CostTable
from nasmw.errors import OrderError, ProfilerError
from nasmw.profiler import Bounds, Profiler
from nasmw.profilers.learned import files
from nasmw.profilers.learned.calibration import Calibration, cross_validated
from nasmw.profilers.learned.encoding_text import default_encoding, make_encoding
from nasmw.profilers.learned.encodings import Encoding, Features
from nasmw.profilers.learned.predictor import Arrays, Linear, Prediction, Predictor, as_numbers, make_predictor
from nasmw.space import Space

__all__ = ["LearnedProfiler", "Samples", "Transform"]

Transform = Literal["none", "log"]
Self = TypeVar("Self", bound="LearnedProfiler")
PREDICTOR = "predictor/"
BLOCK = 4096
"""So many candidates are encoded and predicted at a time, for the sake of memory."""


@attrs.frozen(eq=False)
class Samples:
    """What a profiler has learnt from.

    Attributes:
        codes: ``(n, d)``, the architectures.
        values: ``(n,)`` float64, in the profiler's unit.
        weights: ``(n,)`` float64 above 0, how much each counts.
    """

    codes: Codes
    values: Floats
    weights: Floats

    def __len__(self) -> int:
        return len(self.values)

    def __add__(self, other: Samples) -> Samples:
        return Samples(
            np.concatenate([self.codes, other.codes]),
            np.concatenate([self.values, other.values]),
            np.concatenate([self.weights, other.weights]),
        )


@attrs.frozen(eq=False)
class _Fitted:
    """What a fit gave: the predictor, and how its values become those of the metric."""

    predictor: Predictor
    middle: float
    scale: float
    calibration: Calibration
    table: CostTable | None


def _positive(weight: float) -> float:
    if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not 0.0 < weight < np.inf:
        raise ProfilerError(f"update_weight is a number above 0, got {weight!r}")
    return weight


class LearnedProfiler(Profiler):
    """Predicts a metric, such as the latency on a device, from architectures for which it is known.

    A predictor learns from an encoding of the architectures. Its uncertainty is calibrated on samples that it has not
    seen, so that `interval` holds as often as it says. `update` adds measurements during a search.

    A linear predictor on an additive encoding is an exact sum of tables: then `table` is a `CostTable`, `bounds` are
    exact, and once the profiler is frozen (`freeze`), limits on it are met by construction.

    Args:
        space: The space whose architectures are profiled.
        predictor: A `Predictor`, or the name of one: ``"ridge"``, ``"boosting"``, ``"mlp"``, ``"gp"``.
        encoding: An `Encoding`, or the text of one, such as ``"slots + slots * resolution^2"``; None for slots, with
            the square of the resolution where the space has one.
        name: The name of the metric.
        unit: Its unit.
        device: What it was measured on.
        metric: The name of the raw metric that `update` learns from, as the evaluation returns it; in a search it has
            to differ from `name`. ``"measured_"`` and the name by default.
        transform: ``"log"`` learns logarithms of the values, which must be positive: errors are relative then.
        update_weight: How much a measurement that `update` adds counts beside one that `fit` was given; more than 1
            where these come from another device or from a simulation.
        given: Encodings that the text names and that are no ready ones, such as values of the user's own.

    Attributes:
        encoding: The encoding.
        metric: As above.
        transform: As above.
        update_weight: As above.
        frozen: Whether `update` changes nothing.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ProfilerError: If a name is unknown, or the space lacks what the encoding encodes.

    Example:
        >>> from nasmw.testing import TableProfiler, toy_space
        >>> space = toy_space()
        >>> known = space.sample(200, np.random.default_rng(0))
        >>> latency = LearnedProfiler(space, "ridge").fit(known, TableProfiler(space).profile_batch(known))
        >>> round(latency.profile({"width": 8, "depth": 1, "block0.op": "pool"}), 2)
        16.0
    """

    def __init__(
        self,
        space: Space,
        predictor: Predictor | str | type[Predictor] = "ridge",
        encoding: Encoding | str | None = None,
        *,
        name: str = "latency_ms",
        unit: str = "ms",
        device: str | None = None,
        metric: str | None = None,
        transform: Transform = "none",
        update_weight: float = 1.0,
        given: Mapping[str, Encoding] | None = None,
    ) -> None:
        if not isinstance(space, Space):
            raise TypeError(f"{type(self).__name__} takes a Space first, got {type(space).__name__}")
        super().__init__(name, unit, space=space, kind="learned", device=device)
        if transform not in get_args(Transform):
            raise ProfilerError(
                f"the transform of a learned profiler is one of {get_args(Transform)}, got {transform!r}"
            )
        for word, text in (("unit", unit), ("device", "" if device is None else device)):
            if not isinstance(text, str):
                raise TypeError(f"the {word} of a learned profiler is a string, got {text!r}")
        if metric is not None and (not isinstance(metric, str) or not metric):
            raise ProfilerError(f"the metric to learn from is named by a non-empty string, got {metric!r}")
        self.encoding = default_encoding(space) if encoding is None else make_encoding(encoding, given)
        self.encoding.plan(space)
        self.metric = metric or f"measured_{name}"
        self.transform: Transform = transform
        self.update_weight = float(_positive(update_weight))
        self.frozen = False
        self.table: CostTable | None = None
        self._predictor = make_predictor(predictor)
        self._fitted: _Fitted | None = None
        self._samples = self._no_samples()

    def _no_samples(self) -> Samples:
        space = self._space()
        return Samples(np.zeros((0, len(space)), dtype=space.dtype), np.zeros(0), np.zeros(0))

    def __repr__(self) -> str:
        on = f" on {self.device}" if self.device else ""
        how = f"{self._predictor.kind} of {self.encoding}"
        return f"<{type(self).__name__} {self.name!r}{f' [{self.unit}]' if self.unit else ''}{on}: {how}>"

    # -- what it is ---------------------------------------------------------------------------------------------

    @property
    def fixed(self) -> bool:
        """Whether it is frozen, so that `update` changes nothing."""
        return self.frozen

    @property
    def fitted(self) -> bool:
        """Whether there is something to predict with."""
        return self._fitted is not None

    @property
    def samples(self) -> Samples:
        """What it has learnt from; rows that `update` added come last."""
        return self._samples

    @property
    def predictor(self) -> Predictor:
        """The predictor, as fitted last."""
        return self._predictor if self._fitted is None else self._fitted.predictor

    def __deepcopy__(self, memo: dict[int, Any]) -> LearnedProfiler:
        """Return a copy that learns for itself; learning replaces what was learnt, hence both may hold it."""
        copied = object.__new__(type(self))
        vars(copied).update(vars(self))
        return copied

    def freeze(self: Self) -> Self:
        """Have `update` change nothing from now on, so that limits may be met by construction; return the profiler.

        Raises:
            OrderError: If it was not fitted.
        """
        self._ready()
        self.frozen = True
        return self

    def _ready(self) -> _Fitted:
        if self._fitted is None:
            raise OrderError(f"{self!r} has learnt nothing yet; call fit(architectures, values) or load a saved one")
        return self._fitted

    # -- learning -----------------------------------------------------------------------------------------------

    def fit(
        self: Self,
        architectures: Candidates | Codes | Iterable[Architecture],
        values: npt.ArrayLike,
        *,
        weights: npt.ArrayLike | None = None,
    ) -> Self:
        """Learn from architectures whose values are known, from scratch; return the profiler.

        Args:
            architectures: ``n`` of them: candidates, ``(n, d)`` codes, or mappings.
            values: ``(n,)``, in the profiler's unit.
            weights: ``(n,)`` numbers above 0, how much each sample counts; 1 by default.

        Raises:
            OrderError: If the profiler is frozen.
            SpaceError: If an architecture is not of the space.
            ProfilerError: If candidates are of another space, there are too few, or values are not finite, all equal,
                or not positive where logarithms are learnt.
        """
        if self.frozen:
            raise OrderError(f"{self!r} is frozen: strategies may rely on its table; make another LearnedProfiler")
        samples = self._checked(architectures, values, weights)
        self._learn(samples)
        return self

    def update(self, outcomes: Outcomes) -> None:
        """Learn from finished trials that have the metric `metric` (or one of the profiler's own name).

        They are added to the samples, and the predictor is fitted anew; outcomes without the metric change nothing.
        Before the first fit they are collected until they suffice for one. Does nothing once frozen.

        Raises:
            ProfilerError: If a value does not fit the metric, such as one that is not positive under logarithms.
        """
        if self.frozen:
            return
        values = outcomes.metrics.get(self.metric, outcomes.metrics.get(self.name))
        if values is None:
            return
        finished = np.array([status is Status.COMPLETED for status in outcomes.status])
        rows = np.flatnonzero(finished & np.isfinite(values))
        if not len(rows):
            return
        samples = self._samples + self._checked(
            outcomes.candidates[rows], values[rows], np.full(len(rows), self.update_weight), any_number=True
        )
        enough = len(samples) >= self._predictor.minimum and np.ptp(samples.values) > 0 and self._scaled(samples)[2] > 0
        if self._fitted is not None or enough:
            self._learn(samples)
        else:
            self._samples = samples

    def _checked(
        self,
        architectures: Candidates | Codes | Iterable[Architecture],
        values: npt.ArrayLike,
        weights: npt.ArrayLike | None,
        *,
        any_number: bool = False,
    ) -> Samples:
        codes = self._candidates(architectures).codes
        numbers = as_numbers(f"values of {self.name!r}", values)
        if numbers.shape != (len(codes),):
            raise ProfilerError(f"{self!r} takes one value per architecture, got {numbers.shape} for {len(codes)}")
        if not np.isfinite(numbers).all():
            wrong = np.flatnonzero(~np.isfinite(numbers))
            raise ProfilerError(
                f"{len(wrong)} of {len(numbers)} values of {self.name!r} are not finite, the first in row {wrong[0]} "
                f"({numbers[wrong[0]]}); leave these architectures out"
            )
        if self.transform == "log" and (numbers <= 0).any():
            wrong = np.flatnonzero(numbers <= 0)
            raise ProfilerError(
                f"logarithms are learnt of positive values only; row {wrong[0]} has {numbers[wrong[0]]}; "
                "check the measurements, or use transform='none'"
            )
        if not any_number:
            if len(numbers) < self._predictor.minimum:
                raise ProfilerError(
                    f"{self!r} needs at least {self._predictor.minimum} samples to learn from, got {len(numbers)}"
                )
            if np.ptp(numbers) == 0:
                raise ProfilerError(
                    f"all {len(numbers)} values of {self.name!r} are {numbers[0]:g}: nothing can be learnt from a "
                    "constant; check the measurement, or measure architectures that differ more"
                )
        factors = np.ones(len(numbers)) if weights is None else as_numbers("weights", weights)
        if factors.shape != numbers.shape or not np.isfinite(factors).all() or (factors <= 0).any():
            raise ProfilerError(f"weights are {len(numbers)} finite numbers above 0, got {reprlib.repr(weights)}")
        return Samples(codes, numbers, factors)

    def _candidates(self, architectures: Candidates | Codes | Iterable[Architecture]) -> Candidates:
        space = self._space()
        if isinstance(architectures, Candidates):
            own = architectures.space is space
            if not own and getattr(architectures.space, "fingerprint", "") != space.fingerprint:
                raise ProfilerError(f"{self!r} is about {space!r}, and was given candidates of {architectures.space!r}")
            return architectures if own else Candidates.of(space, architectures.codes)
        return space.candidates(architectures)

    def _learn(self, samples: Samples) -> None:
        """Fit the predictor anew to all samples, and calibrate it."""
        standard, middle, scale, weights = self._scaled(samples)
        if not scale:
            raise ProfilerError(
                f"nothing can be learnt from values of {self.name!r} between {samples.values.min():g} and "
                f"{samples.values.max():g}, or from their weights: float64 cannot tell by how much they differ; give "
                "them in another unit"
            )
        features = self.encoding.encode(Candidates.of(self._space(), samples.codes))
        predictor = self._predictor.fresh()
        predictor.fit(features, standard, weights)
        apart = predictor.left_out()
        if apart is None:
            apart = cross_validated(
                self._predictor.fresh, features, standard, weights, predictor.folds, predictor.folds_used
            )
        calibration = Calibration.of(standard[apart.rows] - apart.prediction.mean, apart.prediction.spread)
        self._set(predictor, middle, scale, calibration, samples)
        self.version += 1

    def _scaled(self, samples: Samples) -> tuple[Floats, float, float, Floats]:
        """Return values of mean 0 and standard deviation 1, that mean and deviation before (0 if none), and weights."""
        target = np.log(samples.values) if self.transform == "log" else samples.values
        with np.errstate(all="ignore"):
            weights = samples.weights / samples.weights.mean()
            middle = float(np.average(target, weights=weights))
            scale = float(np.sqrt(np.average((target - middle) ** 2, weights=weights)))
            standard = (target - middle) / scale
        known = np.isfinite(standard).all() and np.isfinite(scale) and weights.min() > 0
        return standard, middle, scale if known else 0.0, weights

    def _set(
        self, predictor: Predictor, middle: float, scale: float, calibration: Calibration, samples: Samples
    ) -> None:
        linear = predictor.linear() if self.transform == "none" else None
        self.table = None if linear is None else self._as_table(linear, middle, scale)
        self._fitted = _Fitted(predictor, middle, scale, calibration, self.table)
        self._samples = samples

    def _as_table(self, linear: Linear, middle: float, scale: float) -> CostTable | None:
        space = self._space()
        terms = self.encoding.terms(space, linear.weights * scale)
        return None if terms is None else CostTable(space, terms, linear.constant * scale + middle, name=self.name)

    # -- predicting ---------------------------------------------------------------------------------------------

    def _profile(self, architecture: Architecture) -> float:
        self._ready()
        if self.table is not None:
            return self.table.value(architecture)
        return super()._profile(architecture)

    def _profile_batch(self, candidates: Candidates) -> Floats:
        self._ready()
        if self.table is not None:
            return self.table.evaluate(candidates)
        middle = self._predicted(candidates).mean
        return np.exp(middle) if self.transform == "log" else middle

    def _predicted(self, candidates: Candidates) -> Prediction:
        """Return means and spreads before the transform is undone, in its unit."""
        fitted = self._ready()
        candidates = self._candidates(candidates)
        means, spreads = [np.zeros(0)], [np.zeros(0)]
        for start in range(0, len(candidates), BLOCK):
            block = candidates if len(candidates) <= BLOCK else candidates[start : start + BLOCK]
            said = fitted.predictor.predict(self.encoding.encode(block))
            means.append(said.mean * fitted.scale + fitted.middle)
            spreads.append(said.spread * fitted.scale)
        return Prediction(np.concatenate(means), np.concatenate(spreads))

    def std(self, candidates: Candidates) -> Floats:
        """Return the standard deviation of a single measurement around each value, ``(n,)``.

        It is calibrated: 1.645 of it to each side hold 90 % of new measurements of architectures like the samples.
        Under logarithms it is half the difference of both sides.
        """
        fitted = self._ready()
        said = self._predicted(candidates)
        std = said.spread * fitted.calibration.std
        return np.exp(said.mean) * np.sinh(std) if self.transform == "log" else std

    def interval(self, candidates: Candidates, coverage: float = 0.9) -> tuple[Floats, Floats]:
        """Return between what a measurement will be with a probability of `coverage`.

        The promise is about architectures drawn like the samples; see `Calibration.quantile`.

        Args:
            candidates: ``n`` candidates.
            coverage: Above 0 and below 1.

        Returns:
            The lower and the upper ends, each ``(n,)``.

        Raises:
            ProfilerError: If the coverage is out of range.
        """
        fitted = self._ready()
        quantile = fitted.calibration.quantile(coverage)
        said = self._predicted(candidates)
        low, high = said.mean - quantile * said.spread, said.mean + quantile * said.spread
        return (np.exp(low), np.exp(high)) if self.transform == "log" else (low, high)

    def bounds(self) -> Bounds | None:
        """Return the least and greatest value over the space, exactly, where the profiler is a table; else None."""
        return None if self.table is None else self.table.bounds()

    # -- files --------------------------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the profiler, with what it has learnt from, to a file that holds no pickled objects.

        Raises:
            OrderError: If it was not fitted.
        """
        fitted = self._ready()
        space = self._space()
        header = {
            "space": space.fingerprint,
            "space_name": space.name,
            "name": self.name,
            "unit": self.unit,
            "device": self.device,
            "metric": self.metric,
            "transform": self.transform,
            "update_weight": self.update_weight,
            "frozen": self.frozen,
            "version": self.version,
            "encoding": str(self.encoding),
            "encoding_fingerprint": self.encoding.fingerprint(space),
            "predictor": {"kind": fitted.predictor.kind, "parameters": fitted.predictor.parameters},
            "samples": len(self._samples),
        }
        arrays = {f"{PREDICTOR}{name}": array for name, array in fitted.predictor.state().items()}
        arrays["scaling"] = np.array([fitted.middle, fitted.scale])
        arrays["scores"] = fitted.calibration.scores
        arrays |= {"codes": self._samples.codes, "values": self._samples.values, "weights": self._samples.weights}
        files.write(path, header, arrays)

    @classmethod
    def load(
        cls, path: str | os.PathLike[str], space: Space, *, given: Mapping[str, Encoding] | None = None
    ) -> LearnedProfiler:
        """Return the profiler that `save` wrote; it predicts the same to the last bit.

        Args:
            path: The file.
            space: The space that it is about.
            given: As for the constructor: encodings by name that files do not hold.

        Raises:
            FileNotFoundError: If there is no file.
            ProfilerError: If it is no such file, has a later format, or is about another space.
        """
        header, arrays = files.read(path, space)
        with files.damaged(path):
            return cls._loaded(path, space, header, arrays, given)

    @classmethod
    def _loaded(
        cls,
        path: str | os.PathLike[str],
        space: Space,
        header: Mapping[str, Any],
        arrays: Arrays,
        given: Mapping[str, Encoding] | None,
    ) -> LearnedProfiler:
        if header.get("encoding", "transfer(").startswith(("transfer(", "sources(")):
            raise ProfilerError(
                f"{os.fspath(path)!r} was saved by another class; load it by "
                "TransferProfiler.load(path, space, source), MultiSourceProfiler.load(path, space, sources), "
                "GraphSources.load(path, space), SourceDevices.load(path, space) or HardwareModel.load(path, space)"
            )
        made = cls(
            space,
            make_predictor(header["predictor"]["kind"], **header["predictor"]["parameters"]),
            header["encoding"],
            name=header["name"],
            unit=header["unit"],
            device=header["device"],
            metric=header["metric"],
            transform=header["transform"],
            update_weight=header["update_weight"],
            given=given,
        )
        made._restore(path, header, arrays)
        return made

    def _restore(self, path: str | os.PathLike[str], header: Mapping[str, Any], arrays: Arrays) -> None:
        """Take back what `save` wrote."""
        space = self._space()
        if self.encoding.fingerprint(space) != header["encoding_fingerprint"]:
            raise ProfilerError(
                f"{os.fspath(path)!r} was saved for a space whose networks cost something else: the encoding "
                f"{header['encoding']!r} gives other numbers on {space!r} (another width or input size?)"
            )
        with files.damaged(path):
            predictor = self._predictor.fresh()
            state = {name[len(PREDICTOR) :]: array for name, array in arrays.items() if name.startswith(PREDICTOR)}
            groups = self.encoding.groups(space)
            predictor.restore(state, groups)
            # What does not fit together is to be found now, not at the first prediction.
            predictor.predict(Features(np.zeros((1, self.encoding.width(space))), groups))
            middle, scale = arrays["scaling"].tolist()
            samples = Samples(arrays["codes"], arrays["values"], arrays["weights"])
            self._set(predictor, middle, scale, Calibration(arrays["scores"]), samples)
        self._predictor = predictor
        self.version = header["version"]
        self.frozen = header["frozen"]
