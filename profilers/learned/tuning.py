"""Tuning: hyper-parameters and encodings chosen on splits of the samples, and curves of errors."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, get_args

import attrs
import numpy as np
import numpy.typing as npt

from nasmw.candidates import Architecture, Candidates, Codes, Floats
from nasmw.errors import ProfilerError, did_you_mean
from nasmw.profilers.learned.base import LearnedProfiler, Samples
from nasmw.profilers.learned.encoding_text import make_encoding
from nasmw.profilers.learned.encodings import Encoding
from nasmw.profilers.learned.predictor import Predictor

__all__ = ["Curve", "Tried", "Tuning", "learning_curve", "tune"]

Measure = Literal["mae", "rmse", "mape", "spearman"]


@attrs.frozen(eq=False)
class Tried:
    """One setting that was tried.

    Attributes:
        parameters: The hyper-parameters that differ from the predictor's own.
        encoding: The text of the encoding.
        error: The mean of its errors on the inner splits; NaN where it could not be fitted.
        errors: The error on each of them.
    """

    parameters: dict[str, Any]
    encoding: str
    error: float
    errors: tuple[float, ...]


@attrs.frozen(eq=False)
class Tuning:
    """What tuning found.

    Attributes:
        profiler: The best setting, fitted to all samples.
        tried: All settings, the best first.
        measure: What was minimised.
    """

    profiler: LearnedProfiler
    tried: tuple[Tried, ...]
    measure: Measure

    @property
    def best(self) -> Tried:
        """The best setting."""
        return self.tried[0]


def tune(
    profiler: LearnedProfiler,
    architectures: Candidates | Codes | Iterable[Architecture],
    values: npt.ArrayLike,
    *,
    grid: Mapping[str, Sequence[Any]] | None = None,
    encodings: Sequence[Encoding | str] = (),
    trials: int | None = None,
    folds: int = 3,
    measure: Measure = "mae",
    seed: int = 0,
) -> Tuning:
    """Return the setting of a profiler with the least error on samples left out of its fits, fitted to all samples.

    Everything is chosen on splits of the samples given here: whoever keeps test samples apart does not hand them in.

    Args:
        profiler: Says space, predictor, encoding, name and transform; it is not changed.
        architectures: ``n`` samples.
        values: ``(n,)``.
        grid: Values to try, by hyper-parameter; those that the predictor names in `Predictor.options` by default.
        encodings: Encodings to try; only the profiler's own by default.
        trials: How many settings are tried, drawn at random without repetition; None for all of them.
        folds: Into how many parts the samples are split; each is predicted by what the others taught.
        measure: ``"mae"``, ``"rmse"``, ``"mape"`` or ``"spearman"`` (one minus the rank correlation).
        seed: From which splits and settings are drawn.

    Raises:
        ProfilerError: If a hyper-parameter is unknown, there are too few samples for the splits, or nothing worked.

    Example:
        >>> from nasmw.testing import TableProfiler, toy_space
        >>> space = toy_space()
        >>> known = space.sample(60, np.random.default_rng(0))
        >>> found = tune(LearnedProfiler(space), known, TableProfiler(space).profile_batch(known), encodings=["counts"])
        >>> found.best.encoding
        'counts'
    """
    samples = profiler._checked(architectures, values, None)
    predictor = profiler._predictor
    grid = dict(predictor.options if grid is None else grid)
    known = list(predictor.parameters)
    for name in grid:
        if name not in known:
            raise ProfilerError(f"{predictor.kind!r} has no parameter {name!r} to tune{did_you_mean(name, known)}")
    if measure not in get_args(Measure):
        raise ProfilerError(f"tuning minimises one of {get_args(Measure)}, got {measure!r}")
    if folds < 2 or len(samples) - -(-len(samples) // folds) < predictor.minimum:
        raise ProfilerError(
            f"{len(samples)} samples in {folds} parts leave fewer than the {predictor.minimum} that {predictor.kind!r} "
            "needs; give more samples"
        )
    rng = np.random.default_rng(seed)
    parts = np.array_split(rng.permutation(len(samples)), folds)
    options = [make_encoding(encoding) for encoding in encodings] or [profiler.encoding]
    settings = [
        (encoding, dict(zip(grid, chosen, strict=True)))
        for encoding in options
        for chosen in itertools.product(*grid.values())
    ]
    if trials is not None and trials < len(settings):
        settings = [settings[place] for place in rng.choice(len(settings), trials, replace=False)]
    tried = []
    for encoding, parameters in settings:
        errors = tuple(
            _error(_made(profiler, predictor.fresh(**parameters), encoding), samples, part, measure) for part in parts
        )
        tried.append(Tried(parameters, str(encoding), float(np.mean(errors)), errors))
    order = sorted(range(len(tried)), key=lambda place: (np.isnan(tried[place].error), tried[place].error, place))
    if np.isnan(tried[order[0]].error):
        raise ProfilerError(f"none of {len(tried)} settings gave finite predictions")
    encoding, parameters = settings[order[0]]
    best = _made(profiler, predictor.fresh(**parameters), encoding)
    best.fit(samples.codes, samples.values, weights=samples.weights)
    return Tuning(best, tuple(tried[place] for place in order), measure)


def _made(profiler: LearnedProfiler, predictor: Predictor, encoding: Encoding) -> LearnedProfiler:
    """Return a profiler like another one, with nothing learnt."""
    return LearnedProfiler(
        profiler._space(),
        predictor,
        encoding,
        name=profiler.name,
        unit=profiler.unit,
        device=profiler.device,
        metric=profiler.metric,
        transform=profiler.transform,
        update_weight=profiler.update_weight,
    )


def _error(profiler: LearnedProfiler, samples: Samples, part: npt.NDArray[np.intp], measure: Measure) -> float:
    rest = np.setdiff1d(np.arange(len(samples)), part)
    profiler.fit(samples.codes[rest], samples.values[rest])
    said = profiler.profile_batch(Candidates.of(profiler._space(), samples.codes[part]))
    return error_of(said, samples.values[part], measure)


def error_of(said: Floats, values: Floats, measure: Measure) -> float:
    """Return the error of predictions: in the unit of the values, in per cent, or one minus Spearman's correlation."""
    if measure == "mae":
        return float(np.abs(said - values).mean())
    if measure == "rmse":
        return float(np.sqrt(((said - values) ** 2).mean()))
    if measure == "mape":
        return float(100 * np.abs(said / values - 1).mean())
    return 1.0 - float(np.corrcoef(_ranks(said), _ranks(values))[0, 1])


def _ranks(values: Floats) -> Floats:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    means: Floats = np.cumsum(counts) - (counts - 1) / 2.0
    return means[inverse]


@attrs.frozen(eq=False)
class Curve:
    """Errors on test samples against the number of samples learnt from.

    Attributes:
        name: Whose they are.
        sizes: ``(k,)``, the numbers of samples.
        errors: ``(k, r)``, of `r` draws of so many samples.
        measure: The measure.
        unit: The unit of the errors.
    """

    name: str
    sizes: npt.NDArray[np.intp]
    errors: Floats
    measure: Measure
    unit: str


def learning_curve(
    profiler: LearnedProfiler,
    train: tuple[Candidates, npt.ArrayLike],
    test: tuple[Candidates, npt.ArrayLike],
    sizes: Sequence[int],
    *,
    repeats: int = 3,
    measure: Measure = "mae",
    seed: int = 0,
) -> Curve:
    """Return errors on test samples against the number of samples learnt from.

    Args:
        profiler: Says space, predictor, encoding and transform; it is not changed.
        train: Candidates and values, from which samples are drawn without replacement.
        test: Candidates and values that are predicted.
        sizes: The numbers of samples.
        repeats: How many draws of each number.
        measure: As for `tune`.
        seed: From which samples are drawn.

    Raises:
        ProfilerError: If a size is beyond the number of samples, or too few for the predictor.
    """
    known = profiler._checked(*train, None)
    truth = profiler._checked(*test, None, any_number=True)
    if max(sizes) > len(known):
        raise ProfilerError(f"a learning curve of {max(sizes)} samples needs as many, got {len(known)}")
    targets = Candidates.of(profiler._space(), truth.codes)
    errors = np.empty((len(sizes), repeats))
    for repeat in range(repeats):
        order = np.random.default_rng([seed, repeat]).permutation(len(known))
        for place, size in enumerate(sizes):
            rows = order[:size]
            fitted = _made(profiler, profiler._predictor, profiler.encoding)
            fitted.fit(known.codes[rows], known.values[rows])
            errors[place, repeat] = error_of(fitted.profile_batch(targets), truth.values, measure)
    unit = {"mape": "%", "spearman": ""}.get(measure, profiler.unit)
    return Curve(repr(profiler), np.array(sizes), errors, measure, unit)
