"""TransferProfiler: from what is known of one device to another, by a few measurements."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal, get_args

import attrs
import numpy as np
import numpy.typing as npt

from nasmw.candidates import Candidates, Floats
from nasmw.errors import ProfilerError
from nasmw.profiler import Profiler
from nasmw.profilers.learned import files
from nasmw.profilers.learned.base import LearnedProfiler, Transform
from nasmw.profilers.learned.encoding_text import default_encoding, make_encoding
from nasmw.profilers.learned.encodings import Encoding, Features, Group
from nasmw.profilers.learned.layers import LayerCounts, LayerWork, parts_of
from nasmw.profilers.learned.predictor import Arrays, LeftOut, Linear, Prediction, Predictor
from nasmw.profilers.learned.sources import NETWORK, SOURCE, TransferEncoding
from nasmw.space import Space

__all__ = ["Method", "Transfer", "TransferProfiler", "transfer_encoding"]

Method = Literal["auto", "affine", "residual", "fine_tune"]
LEARNT_ON = 400
"""With more samples than this, variances are learnt on so many of them: time grows with the third power."""
NOISE = 0.05
WEIGHTS = (0.15, 0.05)
"""Around these the prior of the noise, and of the weights of the first and each further group that corrects, is
centred, as shares of the values' spread."""
WIDTH = 1.0
"""The standard deviation of their logarithms under the prior."""
STEPS = 2.0 ** np.arange(-4.0, 4.5, 1.0)
CYCLES = 2
FLAT = 10.0
MOST_LEVERAGE = 1.0 - 1e-6


def _method(value: object) -> Method:
    if value not in get_args(Method):
        raise ProfilerError(f"the method of a transfer is one of {get_args(Method)}, got {value!r}")
    return value  # type: ignore[return-value]


@attrs.frozen(eq=False)
class _Model:
    """One way to predict: a line on one source, and groups of columns with learnt variances."""

    source: int
    groups: tuple[Group, ...]
    variances: Floats
    """Of the noise, then of the weights of each group."""

    @property
    def columns(self) -> npt.NDArray[np.intp]:
        return np.concatenate([[self.source], *[np.arange(group.start, group.stop) for group in self.groups]]).astype(
            np.intp
        )

    def design(self, values: Floats) -> Floats:
        """Return the columns such that weights and noise have the variance 1, after one of ones, ``(n, 1 + p)``."""
        sizes = np.concatenate(
            [
                [1.0],
                *[
                    np.full(group.stop - group.start, np.sqrt(variance / self.variances[0]))
                    for group, variance in zip(self.groups, self.variances[1:], strict=True)
                ],
            ]
        )
        return np.concatenate([np.ones((len(values), 1)), values[:, self.columns] * sizes], axis=1)


@attrs.frozen(eq=False)
class _Solved:
    """A model with its weights: those of the design, and the inverse factor of their precision."""

    model: _Model
    weights: Floats
    half: Floats
    left_out: Prediction


@attrs.define(eq=False)
class Transfer(Predictor):
    """A straight line on what a source says, and a correction by further columns; for a `TransferEncoding`.

    The line's two coefficients are free. The correction is a weighted sum of the columns whose weights have a normal
    prior with one variance per group: a Gaussian process with a sum of linear kernels around a line. Variances and
    noise maximise the restricted likelihood times a log-normal prior; so with few samples the correction is small, and
    grows as they tell more. What is learnt is linear in the columns.

    Methods differ in the columns that correct: ``"affine"`` none; ``"residual"`` those of the encoding;
    ``"fine_tune"`` those of the source network's last hidden layer, which is its last layer trained anew with the old
    one as the prior. ``"auto"`` tries all that there are, on every source, and keeps the one with the least absolute
    error on samples left out one at a time.

    Args:
        method: As above.

    Attributes:
        chosen: The method that was kept by the last `fit`; empty before.

    References:
        Kennedy and O'Hagan, Predicting the Output from a Complex Computer Code When Fast Approximations Are Available,
        Biometrika 2000 (a multiple of the cheap code plus a Gaussian process); Rasmussen and Williams, Gaussian
        Processes for Machine Learning, 2006, section 2.7 (free coefficients) and equation 5.12 (samples left out).
    """

    kind: ClassVar[str] = "transfer"
    minimum: ClassVar[int] = 3
    options: ClassVar[Mapping[str, tuple[Any, ...]]] = {"method": ("affine", "residual", "fine_tune")}

    method: Method = attrs.field(default="auto", converter=_method)
    chosen: str = attrs.field(init=False, default="")
    source: int = attrs.field(init=False, default=0)
    _weights: Floats = attrs.field(init=False, factory=lambda: np.zeros(0))
    _constant: float = attrs.field(init=False, default=0.0)
    _half: Floats = attrs.field(init=False, factory=lambda: np.zeros((0, 0)))
    _columns: npt.NDArray[np.intp] = attrs.field(init=False, factory=lambda: np.zeros(0, dtype=np.intp))
    _sizes: Floats = attrs.field(init=False, factory=lambda: np.zeros(0))
    _left_out: LeftOut | None = attrs.field(init=False, default=None)

    def _ways(self, groups: Sequence[Group]) -> Iterator[tuple[str, int, tuple[Group, ...]]]:
        """Yield the methods to try, with the source's column and the groups that correct."""
        if not groups or groups[0].name != SOURCE:
            raise ProfilerError(
                "the predictor 'transfer' learns from a TransferEncoding, whose first columns are those of sources; "
                "use TransferProfiler"
            )
        network = tuple(group for group in groups if group.name == NETWORK)
        further = tuple(group for group in groups[1:] if group.name != NETWORK)
        if self.method == "fine_tune" and not network:
            raise ProfilerError("to fine-tune takes a source that is a LearnedProfiler with the predictor 'mlp'")
        for source in range(groups[0].stop):
            if self.method in ("auto", "affine"):
                yield "affine", source, ()
            if self.method in ("auto", "residual") and further:
                yield "residual", source, further
            if self.method in ("auto", "fine_tune") and network and not source:
                yield "fine_tune", source, network

    def fit(self, features: Features, values: Floats, weights: Floats) -> None:
        """Learn from samples."""
        best, least, chosen = None, np.inf, ""
        for name, source, groups in self._ways(features.groups):
            rows = np.random.default_rng(0).permutation(len(values))[:LEARNT_ON]
            model = _learnt(features.values[rows], values[rows], weights[rows], source, groups)
            solved = _solved(model, features.values, values, weights)
            error = float(np.average(np.abs(values - solved.left_out.mean), weights=weights))
            if best is None or error < least:
                best, least, chosen = solved, error, name
        if best is None:
            raise ProfilerError(f"there is nothing to correct by: {self.method!r} needs an encoding with columns")
        self.chosen = chosen
        self.source = best.model.source
        self._columns = best.model.columns
        self._sizes = best.model.design(np.ones((1, features.values.shape[1])))[0]
        self._half = best.half
        self._constant = float(best.weights[0])
        self._weights = np.zeros(features.values.shape[1])
        self._weights[self._columns] = best.weights[1:] * self._sizes[1:]
        self._left_out = LeftOut(np.arange(len(values)), best.left_out)

    def predict(self, features: Features) -> Prediction:
        """Return what was learnt of candidates."""
        mean = (features.values * self._weights).sum(axis=1) + self._constant
        design = np.ones((len(features), len(self._sizes)))
        design[:, 1:] = features.values[:, self._columns] * self._sizes[1:]
        return Prediction(mean, np.sqrt(1.0 + ((design @ self._half) ** 2).sum(axis=1)))

    def left_out(self) -> LeftOut | None:
        """Return the prediction of each sample had it been left out, the variances being kept."""
        return self._left_out

    def linear(self) -> Linear:
        """Return the weights."""
        return Linear(self._weights, self._constant)

    def state(self) -> Arrays:
        """Return what was learnt, as arrays."""
        return {
            "weights": self._weights,
            "constant": np.array(self._constant),
            "half": self._half,
            "columns": self._columns,
            "sizes": self._sizes,
            "source": np.array(self.source),
            "chosen": np.array(self.chosen),
        }

    def restore(self, state: Arrays, groups: tuple[Any, ...]) -> None:
        """Take back what `state` gave."""
        self._weights, self._half, self._sizes = state["weights"], state["half"], state["sizes"]
        self._columns = state["columns"]
        self._constant = float(state["constant"])
        self.source = int(state["source"])
        self.chosen = str(state["chosen"])


def _learnt(values: Floats, target: Floats, weights: Floats, source: int, groups: tuple[Group, ...]) -> _Model:
    """Return the model whose variances are likeliest: one at a time on a grid, then again on a finer one."""
    basis = np.stack([np.ones(len(values)), values[:, source]], axis=1)
    kernels = []
    for group in groups:
        own = values[:, group.columns]
        own = own - basis @ np.linalg.lstsq(basis, own, rcond=None)[0]  # the line takes this share in any case
        kernels.append(own @ own.T)
    centre = np.log([NOISE, *WEIGHTS[:1], *WEIGHTS[1:] * len(groups)])[: 1 + len(groups)]
    logarithms = centre.copy()
    best = _likelihood(kernels, basis, target, weights, logarithms, centre)
    for spacing in (1.0,) * CYCLES + (0.35,):
        for place in range(len(logarithms)):
            kept = logarithms[place]
            start = centre[place] if spacing == 1.0 else kept
            steps = STEPS if spacing == 1.0 else (2.0**-0.5, 2.0**0.5)
            for step in steps:
                tried = logarithms.copy()
                tried[place] = start + np.log(step)
                found = _likelihood(kernels, basis, target, weights, tried, centre)
                if found > best:
                    best, kept = found, tried[place]
            logarithms[place] = kept
    return _Model(source, groups, np.exp(2.0 * logarithms))


def _likelihood(
    kernels: Sequence[Floats], basis: Floats, target: Floats, weights: Floats, logarithms: Floats, centre: Floats
) -> float:
    """Return the logarithm of the restricted likelihood times the prior, up to a constant."""
    variances = np.exp(2.0 * logarithms)
    covariance = np.diag(variances[0] / weights)
    for kernel, variance in zip(kernels, variances[1:], strict=True):
        covariance += variance * kernel
    factor = np.linalg.cholesky(covariance)
    whitened = np.linalg.solve(factor, np.concatenate([basis, target[:, None]], axis=1))
    inner = whitened[:, :-1].T @ whitened[:, :-1] + 1e-9 * np.eye(basis.shape[1])
    projected = whitened[:, :-1].T @ whitened[:, -1]
    squares = float(whitened[:, -1] @ whitened[:, -1] - projected @ np.linalg.solve(inner, projected))
    prior = float((((logarithms - centre) / WIDTH) ** 2).sum())
    determinant = float(np.linalg.slogdet(inner)[1])
    return -0.5 * (squares + determinant + prior) - float(np.log(np.diagonal(factor)).sum())


def _solved(model: _Model, values: Floats, target: Floats, weights: Floats) -> _Solved:
    """Return a model with its weights, and the predictions of each sample had it been left out."""
    design = model.design(values)
    root = np.sqrt(weights)
    scaled = design * root[:, None]
    precision = scaled.T @ scaled
    prior = np.ones(len(precision))
    prior[:2] = 1e-9 * np.trace(precision[:2, :2])
    precision[np.diag_indices_from(precision)] += prior
    factor = np.linalg.cholesky(precision)
    half = np.linalg.solve(factor, np.eye(len(factor))).T
    answer = half @ (half.T @ (scaled.T @ (target * root)))
    leverage = np.minimum(((scaled @ half) ** 2).sum(axis=1), MOST_LEVERAGE)
    residual = (target - design @ answer) / (1.0 - leverage)
    spread = np.sqrt(1.0 + leverage / (weights * (1.0 - leverage)))
    return _Solved(model, answer, half, Prediction(target - residual, spread))


def transfer_encoding(space: Space) -> Encoding:
    """Return what corrects a source if nothing else is said.

    The work by kinds of operations, and the layers with their areas, where the space describes its layers; else the
    default encoding of learned profilers.
    """
    return LayerWork() + LayerCounts() if parts_of(space) else default_encoding(space)


class TransferProfiler(LearnedProfiler):
    """Predicts a metric on one device from what is known on another, and from few measurements.

    The sources are profilers of the same choices: a table of latencies, a learned profiler, MACs. How they are
    corrected, and how much, is decided on the measurements by samples left out; see `Transfer`. Everything else is as
    for `LearnedProfiler`: `fit` and `update` take measurements on the target, intervals are calibrated on samples left
    out, and if the source is a table and the encoding additive, so is the result.

    Args:
        space: The space whose architectures are profiled, on the target.
        source: A profiler, or several, of which the best is chosen.
        method: ``"auto"``, ``"affine"``, ``"residual"`` or ``"fine_tune"``; see `Transfer`.
        encoding: What corrects; `transfer_encoding` by default.
        name: The name of the metric.
        unit: Its unit.
        device: The target.
        metric: As for `LearnedProfiler`.
        transform: As for `LearnedProfiler`; it applies to the target's values only.

    Attributes:
        sources: The source profilers. One that goes on learning changes what the transfer says: freeze it first.

    Raises:
        TypeError: If a source is no profiler.
        ProfilerError: If a source was made for other choices, or the method is unknown.

    Example:
        >>> from nasmw.testing import TableProfiler, toy_space
        >>> space = toy_space()
        >>> source = TableProfiler(space)
        >>> known = space.sample(10, np.random.default_rng(0))
        >>> measured = 3.0 * source.profile_batch(known) + 1.0
        >>> target = TransferProfiler(space, source, device="another one").fit(known, measured)
        >>> architecture = {"width": 8, "depth": 1, "block0.op": "pool"}
        >>> round(target.profile(architecture) - 3.0 * source.profile(architecture), 2)
        1.0
    """

    def __init__(
        self,
        space: Space,
        source: Profiler | Sequence[Profiler],
        *,
        method: Method = "auto",
        encoding: Encoding | str | None = None,
        name: str = "latency_ms",
        unit: str = "ms",
        device: str | None = None,
        metric: str | None = None,
        transform: Transform = "none",
        given: Mapping[str, Encoding] | None = None,
    ) -> None:
        if not isinstance(space, Space):
            raise TypeError(f"{type(self).__name__} takes a Space first, got {type(space).__name__}")
        sources = [source] if isinstance(source, Profiler) else list(source)
        inner = transfer_encoding(space) if encoding is None else make_encoding(encoding, given)
        whole = TransferEncoding(sources, inner)
        whole.check(space)
        super().__init__(
            space, Transfer(method), whole, name=name, unit=unit, device=device, metric=metric, transform=transform
        )
        self.sources = whole.sources

    def __repr__(self) -> str:
        on = f" on {self.device}" if self.device else ""
        sources = ", ".join(f"{source.name!r} on {source.device or 'no device'}" for source in self.sources)
        return f"<{type(self).__name__} {self.name!r}{f' [{self.unit}]' if self.unit else ''}{on} from {sources}>"

    @property
    def chosen(self) -> str:
        """The method that the last fit kept, and the source: ``"residual of latency_ms on note10"``; empty before."""
        predictor = self.predictor
        if not isinstance(predictor, Transfer) or not predictor.chosen:
            return ""
        source = self.sources[predictor.source]
        return f"{predictor.chosen} of {source.name}" + (f" on {source.device}" if source.device else "")

    def to_measure(self, candidates: Candidates, n: int) -> npt.NDArray[np.intp]:
        """Return which of some candidates to measure for the fit, the most telling first.

        Nothing measured is needed: each next one is the one that is most uncertain under the prior, given those before
        it. It needs candidates that are random in the space, some hundreds of them; extreme ones are picked.

        Args:
            candidates: Candidates to choose from.
            n: How many.

        Returns:
            ``(n,)`` row numbers.

        Raises:
            ProfilerError: If there are fewer candidates than `n`.
        """
        if not 1 <= n <= len(candidates):
            raise ProfilerError(f"{n} of {len(candidates)} candidates cannot be chosen")
        features = self.encoding.encode(self._candidates(candidates))
        sizes = np.full(features.values.shape[1], WEIGHTS[1] / NOISE)
        for group in features.groups[1:2]:
            sizes[group.columns] = WEIGHTS[0] / NOISE
        sizes[features.groups[0].columns] = FLAT
        design = np.concatenate([np.full((len(candidates), 1), FLAT), (features.values * sizes)], axis=1)
        design[:, 1:] -= design[:, 1:].mean(axis=0)
        left = design.copy()
        rows: list[int] = []
        for _ in range(n):
            variances = (left**2).sum(axis=1)
            variances[rows] = -1.0
            row = int(np.argmax(variances))
            rows.append(row)
            along, size = left[row].copy(), float(variances[row])
            left -= np.outer(left @ along, along * ((1.0 - 1.0 / np.sqrt(1.0 + size)) / max(size, 1e-300)))
        return np.array(rows)

    @classmethod
    def load(  # type: ignore[override]
        cls,
        path: str | os.PathLike[str],
        space: Space,
        source: Profiler | Sequence[Profiler],
        *,
        given: Mapping[str, Encoding] | None = None,
    ) -> TransferProfiler:
        """Return the profiler that `save` wrote; it predicts the same to the last bit.

        Args:
            path: The file.
            space: The space that it is about.
            source: The same sources as when it was saved; they are not in the file.
            given: As for `LearnedProfiler.load`.

        Raises:
            FileNotFoundError: If there is no file.
            ProfilerError: If it is no file of a transfer, or is about another space or other sources.
        """
        header, arrays = files.read(path, space)
        with files.damaged(path):
            if not header.get("encoding", "").startswith("transfer("):
                raise ProfilerError(f"{os.fspath(path)!r} was saved by no TransferProfiler; use LearnedProfiler.load")
            made = cls(
                space,
                source,
                method=header["predictor"]["parameters"]["method"],
                encoding=header["encoding"].partition(", ")[2][:-1],
                name=header["name"],
                unit=header["unit"],
                device=header["device"],
                metric=header["metric"],
                transform=header["transform"],
                given=given,
            )
            if str(made.encoding) != header["encoding"]:
                raise ProfilerError(
                    f"{os.fspath(path)!r} was saved with other sources than {', '.join(map(repr, made.sources))}: "
                    "their values differ; load it with the sources that it was fitted with"
                )
            made._restore(path, header, arrays)
            return made
