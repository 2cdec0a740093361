"""MultiSource: a Gaussian process over what several devices say of an architecture, and over the architecture."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import attrs
import numpy as np
import numpy.typing as npt

from nasmw.candidates import Candidates, Floats
from nasmw.errors import ProfilerError
from nasmw.profiler import Profiler
from nasmw.profilers.learned import files
from nasmw.profilers.learned.averaging import draw_variances
from nasmw.profilers.learned.base import LearnedProfiler, Transform
from nasmw.profilers.learned.encoding_text import make_encoding
from nasmw.profilers.learned.encodings import Encoding, Features, Group, OneHot, Term
from nasmw.profilers.learned.given import Given
from nasmw.profilers.learned.layers import LayerWork, parts_of
from nasmw.profilers.learned.predictor import Arrays, LeftOut, Prediction, Predictor, as_numbers, number, whole
from nasmw.profilers.learned.samplers import choose_variance
from nasmw.profilers.learned.scores import Scores
from nasmw.profilers.learned.source_devices import kept_whole, matern, scaled_columns, squared_distances
from nasmw.profilers.learned.sources import SOURCE, TransferEncoding
from nasmw.profilers.learned.structure import Structure
from nasmw.space import Space

__all__ = ["DIRECTIONS", "MultiSource", "MultiSourceEncoding", "MultiSourceProfiler", "multi_source_encoding"]

DIRECTIONS = "directions"
"""The name of the group of columns that hold the sources' directions, all of one size."""
LEAST_DIRECTION = 1e-2
"""Directions whose size is below this share of the greatest one are left out."""
DRAWN = 2048

WIDE = frozenset({"one_hot", "slots", "adjacency"})
"""Encodings that tell apart what others count together."""

CONSTANT = 1.0
"""Around this variance the prior of the constant is centred."""
POSITIVE = number("a number above 0", lambda value: 0.0 < value < np.inf)
LEAST_WARPED = 1e-3
MOST_COMPARED = 5000
"""Candidates to choose from; kernels between so many take some two gigabytes."""


@attrs.frozen(eq=False)
class _Plan:
    names: tuple[str, ...]
    groups: tuple[Group, ...]
    inner: Any
    scores: tuple[Scores, ...]
    turned: Floats
    centre: Floats
    factors: Floats


class MultiSourceEncoding(TransferEncoding):
    """What several devices say of an architecture, as normal scores, and the columns of an encoding.

    The first group, ``"source"``, has a column for each source; the second, ``"directions"``, has the principal
    directions of these, all made equally long, so that what sets the sources apart is as large as what they share. The
    groups of the encoding follow. Scores, directions and scales are those of random architectures of the space; in each
    group the squares of a row sum to 1 on average.

    Args:
        sources: Profilers of a space with the same choices; the networks may be others (of another width, say).
        encoding: Of the architectures.

    Raises:
        TypeError: If a source is no profiler.
        ProfilerError: If a source is made for other choices.
    """

    def __init__(self, sources: Sequence[Profiler], encoding: Encoding) -> None:
        if sources:
            super().__init__(sources, encoding)
        else:
            self.sources, self.encoding, self._digest = (), encoding, "none"

    def __str__(self) -> str:
        return f"sources({self._digest}, {self.encoding})"

    def _prepare(self, space: Space) -> _Plan:  # type: ignore[override]
        self.check(space)
        inner = self.encoding.plan(space)
        given = [part for part in self.encoding.parts if isinstance(part, Given)]
        drawn = given[0].examples(space, DRAWN) if given else space.sample(DRAWN, np.random.default_rng(0))
        scores = tuple(Scores.of(column) for column in self._values(drawn).T)
        scored = self._scored(scores, drawn)
        turned = _directions(scored)
        names = [f"{SOURCE} {source.device or source.name}" for source in self.sources]
        names += [f"{DIRECTIONS} {number}" for number in range(turned.shape[1])]
        start = len(names)
        groups = [Group(SOURCE, 0, len(scores)), Group(DIRECTIONS, len(scores), start)] if scores else []
        whole_groups = [False] * len(groups) + kept_whole(self.encoding, space)
        groups += [Group(group.name, start + group.start, start + group.stop) for group in self.encoding.groups(space)]
        encoded = self.encoding._encode(inner, drawn, space.active(drawn.codes))
        columns = np.concatenate([scored, scored @ turned, encoded], axis=1)
        centre, factors = scaled_columns(columns, groups, whole_groups)
        every = (*names, *self.encoding.names(space))
        return _Plan(every, tuple(groups), inner, scores, turned, centre, factors)

    def _encode(self, plan: Any, candidates: Candidates, active: npt.NDArray[np.bool_]) -> Floats:
        scored = self._scored(plan.scores, candidates)
        encoded = self.encoding._encode(plan.inner, candidates, active)
        columns = np.concatenate([scored, scored @ plan.turned, encoded], axis=1)
        scaled: Floats = (columns - plan.centre) * plan.factors
        return scaled

    def _values(self, candidates: Candidates) -> Floats:
        return super()._values(candidates) if self.sources else np.zeros((len(candidates), 0))

    def _scored(self, scores: Sequence[Scores], candidates: Candidates) -> Floats:
        values = self._values(candidates)
        scored = np.zeros_like(values)
        for column, own in enumerate(scores):
            scored[:, column] = own.to(values[:, column])
        return scored

    def terms(self, space: Space, weights: Floats) -> list[Term] | None:
        """Return None: scores are no sums of tables."""
        return None


def _directions(scored: Floats) -> Floats:
    """Return what turns scores into their principal directions, ``(k, r)``."""
    centred = scored - scored.mean(axis=0)
    lengths, turned = np.linalg.eigh(centred.T @ centred)
    sizes = np.sqrt(np.maximum(lengths[::-1], 0.0))
    kept = turned[:, ::-1][:, sizes > LEAST_DIRECTION * sizes.max(initial=0.0)]
    signs = np.where(kept.sum(axis=0) < 0, -1.0, 1.0)  # those of a decomposition are arbitrary
    directions: Floats = kept * signs
    return directions


def _warps(values: Iterable[float]) -> tuple[float, ...]:
    warps = as_numbers("the warps of a MultiSource", list(values) if isinstance(values, Iterable) else values)
    if warps.ndim != 1 or not len(warps) or not np.isfinite(warps).all():
        raise ProfilerError(f"MultiSource(warps=...) takes finite numbers, at least one, got {values!r}")
    return tuple(warps.tolist())


@attrs.frozen(eq=False)
class _Branch:
    """A Gaussian process of warped values, given samples, averaged over drawn variances.

    Attributes:
        warp: How values are warped: ``(exp(warp * value) - 1) / warp``; not at all where it is 0.
        middle: What is subtracted of warped values.
        scale: What they are then divided by.
        answers: ``(q, S)``, for each kernel what is multiplied by the kernel with each sample.
        variances: ``(q + 1,)``, the means of the variances.
        inverse: ``(S, S)``, of the samples' covariance with these variances.
    """

    warp: float
    middle: float
    scale: float
    answers: Floats
    variances: Floats
    inverse: Floats

    def unwarped(self, said: Floats) -> Floats:
        """Return values of what the process says."""
        warped = said * self.scale + self.middle
        if not self.warp:
            return warped
        values: Floats = np.log(np.maximum(1.0 + self.warp * warped, LEAST_WARPED)) / self.warp
        return values

    def predict(self, first: Floats, samples: Floats, groups: Sequence[Group]) -> tuple[Floats, Floats]:
        """Return values of rows and their standard deviations as measurements."""
        sums = zip(self.answers[1:-1], groups, strict=True)
        weights = np.concatenate([samples[:, group.columns].T @ own for own, group in sums])
        sizes = np.repeat(self.variances[1:-2], [group.stop - group.start for group in groups])
        curve = curved_kernel(first, samples, groups)
        said = self.answers[0].sum() + first @ weights + curve @ self.answers[-1]
        across = self.variances[0] + (first * sizes) @ samples.T + self.variances[-2] * curve
        own = self.variances[0] + (first**2) @ sizes + self.variances[-2]
        known = ((across @ self.inverse) * across).sum(axis=1)
        spread = np.sqrt(np.maximum(own - known, 0.0) + self.variances[-1])
        values = self.unwarped(said)
        return values, self.spread(values, spread)

    def spread(self, values: Floats, spread: Floats) -> Floats:
        """Return the standard deviations of values, given those of what the process says."""
        result: Floats = spread * self.scale * np.exp(-self.warp * values)
        return result


@attrs.define(eq=False)
class MultiSource(Predictor):
    """A Gaussian process with a linear kernel for each group of columns, and a curved one; for a `MultiSourceEncoding`.

    Few samples do not tell how much each kernel counts, nor on which scale latencies are sums. So nothing is maximised:
    predictions are averaged over variances that are drawn from their posterior, `draw_variances`, and over warps of the
    values with their marginal likelihoods as weights. A warp above 0 stretches what is great: of logarithms of
    latencies it makes latencies; one below 0 presses it together, which bears measurements that are much too long.
    Priors are log-normal. The defaults, of values of variance 1, were compared with others on sources of the published
    tasks, held out, and on devices that are a target of none: see `benchmarks/results/latency_tasks_choices.txt`.

    Args:
        warps: The warps; see above.
        source: Around which variance the prior of the sources' kernel is centred.
        directions: The same, of the sources' directions.
        encodings: The same, of each group of an encoding.
        wide: The same, of encodings that tell apart what others count together: one-hot, slots and adjacency.
        curved: The same, of the curved kernel.
        noise: The same, of the noise.
        width: The standard deviation of the logarithms of these variances under the prior.
        draws: How many sets of variances are averaged over.
        steps: How many steps of slice sampling each of them goes.
        seed: Of the draws.

    References:
        Rasmussen and Williams, Gaussian Processes for Machine Learning, 2006, sections 2.2, 4.2.1 and 5.4.2; averaging
        over hyper-parameters for few samples: Snoek, Larochelle, Adams, Practical Bayesian Optimization of Machine
        Learning Algorithms, NeurIPS 2012, section 3.1; warps: Snelson, Rasmussen, Ghahramani, Warped Gaussian
        Processes, NeurIPS 2004, with those of Box and Cox, An Analysis of Transformations, 1964, of logarithms.
    """

    kind: ClassVar[str] = "multi_source"
    minimum: ClassVar[int] = 3
    options: ClassVar[dict[str, tuple[Any, ...]]] = {"width": (1.0, 2.0)}

    warps: tuple[float, ...] = attrs.field(default=(-0.4, 0.0, 0.4), converter=_warps)
    source: float = attrs.field(default=0.3, validator=POSITIVE)
    directions: float = attrs.field(default=0.1, validator=POSITIVE)
    encodings: float = attrs.field(default=0.3, validator=POSITIVE)
    wide: float = attrs.field(default=0.1, validator=POSITIVE)
    curved: float = attrs.field(default=0.1, validator=POSITIVE)
    noise: float = attrs.field(default=0.2, validator=POSITIVE)
    width: float = attrs.field(default=2.0, validator=POSITIVE)
    draws: int = attrs.field(default=48, validator=whole(1))
    steps: int = attrs.field(default=6, validator=whole(0))
    seed: int = attrs.field(default=0, validator=whole(0))
    _groups: tuple[Group, ...] = attrs.field(init=False, default=())
    _samples: Floats = attrs.field(init=False, factory=lambda: np.zeros((0, 0)))
    _branches: tuple[_Branch, ...] = attrs.field(init=False, default=())
    _shares: Floats = attrs.field(init=False, factory=lambda: np.zeros(0))
    _left_out: LeftOut | None = attrs.field(init=False, default=None)

    def prior(self, groups: Sequence[Group]) -> Floats:
        """Return the variances of `kernels` and of the noise around which the priors are centred, ``(q + 1,)``."""
        named = {SOURCE: self.source, DIRECTIONS: self.directions, **dict.fromkeys(WIDE, self.wide)}
        own = [named.get(group.name, self.encodings) for group in groups]
        return np.array([CONSTANT, *own, self.curved, self.noise])

    def fit(self, features: Features, values: Floats, weights: Floats) -> None:
        """Learn from samples."""
        self._groups, self._samples = features.groups, features.values
        grams = kernels(features.values, features.values, self._groups)
        likelihoods, branches, means, spreads = [], [], [], []
        for warp in self.warps:
            branch, likelihood, mean, spread = self._branch(grams, values, 1.0 / weights, warp)
            likelihoods.append(likelihood)
            branches.append(branch)
            means.append(mean)
            spreads.append(spread)
        shares = np.exp(np.array(likelihoods) - max(likelihoods))
        self._shares = shares / shares.sum()
        self._branches = tuple(branches)
        said = Prediction(self._shares @ np.stack(means), self._shares @ np.stack(spreads))
        self._left_out = LeftOut(np.arange(len(values)), said)

    def _branch(
        self, grams: Floats, values: Floats, noise: Floats, warp: float
    ) -> tuple[_Branch, float, Floats, Floats]:
        """Return the process of warped values, its likelihood, and what it says of each sample without it."""
        warped = np.expm1(warp * values) / warp if warp else values
        middle, scale = float(warped.mean()), float(warped.std())
        target = (warped - middle) / scale
        centre = np.log(self.prior(self._groups))
        rng = np.random.default_rng(self.seed)
        drawn, likelihood = draw_variances(
            grams, target, noise, centre, self.width, draws=self.draws, steps=self.steps, rng=rng
        )
        inverses = np.linalg.inv(_covariances(grams, noise, drawn))
        answers = inverses @ target
        mean = drawn.mean(axis=0)
        inverse = np.linalg.inv(_covariances(grams, noise, mean[None])[0])
        shared = (drawn[:, :-1, None] * answers[:, None, :]).mean(axis=0)
        branch = _Branch(warp, middle, scale, shared, mean, inverse)
        left_out = target - (answers / np.diagonal(inverses, axis1=1, axis2=2)).mean(axis=0)
        spread = np.sqrt(np.maximum(1.0 / np.diagonal(inverse) - mean[-1] * (noise - 1.0), mean[-1]))
        # What warping does to densities, so that likelihoods of values are compared.
        likelihood += warp * float(values.sum()) - len(values) * np.log(scale)
        said = branch.unwarped(left_out)
        return branch, likelihood, said, branch.spread(said, spread)

    def predict(self, features: Features) -> Prediction:
        """Return what was learnt of candidates."""
        said = [branch.predict(features.values, self._samples, self._groups) for branch in self._branches]
        mean = self._shares @ np.stack([values for values, _ in said])
        return Prediction(mean, self._shares @ np.stack([spread for _, spread in said]))

    def left_out(self) -> LeftOut | None:
        """Return the prediction of each sample had it been left out, the draws being kept."""
        return self._left_out

    def state(self) -> Arrays:
        """Return the samples as they were scaled, and what multiplies the kernels with them."""
        arrays = {"samples": self._samples, "shares": self._shares}
        for place, branch in enumerate(self._branches):
            arrays[f"numbers{place}"] = np.array([branch.warp, branch.middle, branch.scale])
            arrays[f"answers{place}"], arrays[f"variances{place}"] = branch.answers, branch.variances
            arrays[f"inverse{place}"] = branch.inverse
        return arrays

    def restore(self, state: Arrays, groups: tuple[Any, ...]) -> None:
        """Take back what `state` gave."""
        self._groups = groups
        self._samples, self._shares = state["samples"], state["shares"]
        self._branches = tuple(
            _Branch(
                warp=float(state[f"numbers{place}"][0]),
                middle=float(state[f"numbers{place}"][1]),
                scale=float(state[f"numbers{place}"][2]),
                answers=state[f"answers{place}"],
                variances=state[f"variances{place}"],
                inverse=state[f"inverse{place}"],
            )
            for place in range(len(self._shares))
        )


def curved_kernel(first: Floats, second: Floats, groups: Sequence[Group]) -> Floats:
    """Return the curved kernel between rows, ``(n, m)``: of directions and narrow encodings together."""
    squares = np.zeros((len(first), len(second)))
    own = [group for group in groups if group.name != SOURCE and group.name not in WIDE]
    for group in own:  # directions say what sources do, on another scale
        squares += squared_distances(first[:, group.columns], second[:, group.columns])
    return matern(squares / max(len(own), 1))


def kernels(first: Floats, second: Floats, groups: Sequence[Group]) -> Floats:
    """Return the kernels between rows, ``(q, n, m)``: a constant, a linear one for each group, a curved one."""
    linear = [first[:, group.columns] @ second[:, group.columns].T for group in groups]
    return np.stack([np.ones((len(first), len(second))), *linear, curved_kernel(first, second, groups)])


def _covariances(grams: Floats, noise: Floats, variances: Floats) -> Floats:
    """Return the covariance of the samples for each row of variances, ``(m, S, S)``."""
    covariances: Floats = np.tensordot(variances[:, :-1], grams, axes=1)
    size = np.arange(grams.shape[1])
    covariances[:, size, size] += variances[:, -1:] * noise
    return covariances


def multi_source_encoding(space: Space) -> Encoding:
    """Return what a `MultiSourceProfiler` knows of architectures if nothing else is said.

    The structure of the graph and one-hot choices; the work by kinds of operations where the space describes its
    layers.
    """
    return Structure() + LayerWork() + OneHot() if parts_of(space) else Structure() + OneHot()


class MultiSourceProfiler(LearnedProfiler):
    """Predicts a metric on a new device from several known ones and some twenty measurements.

    A Gaussian process over what all sources say of an architecture and over the architecture itself, see `MultiSource`:
    where the new device is like known ones, these decide; where it is not, the structure and the work of networks do.
    `TransferProfiler` corrects one source instead, and is the better choice where one is very much alike.

    Sources are profilers of the same choices; `SourceDevices` learns several at once from a table of measurements.
    `to_measure` says which networks to measure. All else is as for `LearnedProfiler`.

    Args:
        space: The space whose architectures are profiled, on the target.
        sources: A profiler, or several; with none, what is known is the architecture alone.
        encoding: Of the architectures; `multi_source_encoding` by default.
        predictor: A `MultiSource` with other hyper-parameters; one with the defaults by default.
        name: The name of the metric.
        unit: Its unit.
        device: The target.
        metric: As for `LearnedProfiler`.
        transform: As for `LearnedProfiler`; ``"log"`` by default, since latencies spread by factors.
        given: Encodings that the text names and that are no ready ones.

    Attributes:
        sources: The source profilers. One that goes on learning changes what is predicted: freeze it first.

    Raises:
        TypeError: If a source is no profiler.
        ProfilerError: If a source was made for other choices, or an argument is out of range.

    Example:
        >>> from nasmw.testing import TableProfiler, toy_space
        >>> space = toy_space()
        >>> phone = TableProfiler(space)
        >>> networks = space.sample(200, np.random.default_rng(0))
        >>> board = MultiSourceProfiler(space, [phone], device="board")
        >>> chosen = networks[board.to_measure(networks, 10)]
        >>> board = board.fit(chosen, 3.0 * phone.profile_batch(chosen))
        >>> errors = board.profile_batch(networks) / (3.0 * phone.profile_batch(networks)) - 1.0
        >>> bool(np.abs(errors).mean() < 0.1)
        True
    """

    def __init__(
        self,
        space: Space,
        sources: Profiler | Iterable[Profiler],
        *,
        encoding: Encoding | str | None = None,
        predictor: MultiSource | None = None,
        name: str = "latency_ms",
        unit: str = "ms",
        device: str | None = None,
        metric: str | None = None,
        transform: Transform = "log",
        given: Mapping[str, Encoding] | None = None,
    ) -> None:
        if not isinstance(space, Space):
            raise TypeError(f"{type(self).__name__} takes a Space first, got {type(space).__name__}")
        if predictor is not None and not isinstance(predictor, MultiSource):
            raise TypeError(f"the predictor of a {type(self).__name__} is a MultiSource, got {predictor!r}")
        if not isinstance(sources, (Profiler, Iterable)):
            raise TypeError(f"the sources of a {type(self).__name__} are profilers, got {sources!r}")
        every = [sources] if isinstance(sources, Profiler) else list(sources)
        inner = multi_source_encoding(space) if encoding is None else make_encoding(encoding, given)
        whole_encoding = MultiSourceEncoding(every, inner)
        whole_encoding.check(space)
        super().__init__(
            space,
            MultiSource() if predictor is None else predictor,
            whole_encoding,
            name=name,
            unit=unit,
            device=device,
            metric=metric,
            transform=transform,
        )
        self.sources = whole_encoding.sources

    def __repr__(self) -> str:
        on = f" on {self.device}" if self.device else ""
        sources = ", ".join(f"{source.name!r} on {source.device or 'no device'}" for source in self.sources)
        unit = f" [{self.unit}]" if self.unit else ""
        return f"<{type(self).__name__} {self.name!r}{unit}{on} from {sources or 'no sources'}>"

    def to_measure(self, candidates: Candidates, n: int) -> npt.NDArray[np.intp]:
        """Return which of some candidates to measure for the fit, the most telling first.

        Nothing measured is needed: each next one lowers the variance of all most under the prior, see
        `choose_variance`. Time and memory grow with the square of the number of candidates; some hundred random ones
        are enough.

        Args:
            candidates: Candidates to choose from.
            n: How many.

        Returns:
            ``(n,)`` row numbers.

        Raises:
            TypeError: If `n` is no whole number.
            ProfilerError: If there are fewer candidates than `n`, or more than 5,000.
        """
        if len(candidates) > MOST_COMPARED:
            raise ProfilerError(
                f"to_measure compares all candidates with all, and takes up to {MOST_COMPARED} of them, got "
                f"{len(candidates)}; some hundred random ones are enough"
            )
        features = self.encoding.encode(self._candidates(candidates))
        assert isinstance(self._predictor, MultiSource)
        variances = self._predictor.prior(features.groups)
        covariance = np.tensordot(variances[:-1], kernels(features.values, features.values, features.groups), axes=1)
        return choose_variance(covariance, n, float(variances[-1]))

    @classmethod
    def load(  # type: ignore[override]
        cls,
        path: str | os.PathLike[str],
        space: Space,
        sources: Profiler | Iterable[Profiler],
        *,
        given: Mapping[str, Encoding] | None = None,
    ) -> MultiSourceProfiler:
        """Return the profiler that `save` wrote; it predicts the same to the last bit.

        Args:
            path: The file.
            space: The space that it is about.
            sources: The same sources as when it was saved; they are not in the file.
            given: As for `LearnedProfiler.load`.

        Raises:
            FileNotFoundError: If there is no file.
            ProfilerError: If it is no file of such a profiler, or is about another space or other sources.
        """
        header, arrays = files.read(path, space)
        with files.damaged(path):
            if not header.get("encoding", "").startswith("sources("):
                raise ProfilerError(
                    f"{os.fspath(path)!r} was saved by no MultiSourceProfiler; use LearnedProfiler.load"
                )
            made = cls(
                space,
                sources,
                encoding=header["encoding"].partition(", ")[2][:-1],
                predictor=MultiSource(**header["predictor"]["parameters"]),
                name=header["name"],
                unit=header["unit"],
                device=header["device"],
                metric=header["metric"],
                transform=header["transform"],
                given=given,
            )
            if str(made.encoding) != header["encoding"]:
                raise ProfilerError(
                    f"{os.fspath(path)!r} was saved with other sources than {list(made.sources)}: their values differ; "
                    "load it with the sources that it was fitted with"
                )
            made._restore(path, header, arrays)
            return made
