"""ProfilerContract: the tests that every profiler has to pass."""

from __future__ import annotations

import math
import pickle
from typing import ClassVar

import numpy as np

from nasmw.candidates import Candidates, Outcomes, Status
from nasmw.constraint import Constraint, Constraints
from nasmw.errors import ConstraintError, SpaceError
from nasmw.profiler import Combination, Profiler
from nasmw.space import Space
from nasmw.testing.toy import toy_space

__all__ = ["ProfilerContract"]


class ProfilerContract:
    """About fifteen tests of what `Profiler` promises, for pytest; subclass it and make a profiler.

    Attributes:
        samples: How many random architectures are profiled in a test; lower it where profiling is slow.
        tolerance: By how much, relatively, two values of one architecture may differ; raise it for measurements.

    Example:
        >>> from nasmw.testing import ProfilerContract, TableProfiler
        >>> class TestMine(ProfilerContract):
        ...     def make(self, space):
        ...         return TableProfiler(space)
        >>> TestMine().test_scalar_and_batch_agree()
    """

    samples: ClassVar[int] = 30
    tolerance: ClassVar[float] = 1e-9

    def make(self, space: Space) -> Profiler:
        """Return a new profiler of the space, configured alike each time."""
        raise NotImplementedError(f"{type(self).__name__} must implement make(self, space), which returns a profiler")

    def make_space(self) -> Space:
        """Return the space to profile; the toy space, whose networks take ``(n, 3, 8, 8)``, by default."""
        return toy_space()

    def _made(self) -> tuple[Profiler, Candidates]:
        space = self.make_space()
        return self.make(space), space.sample(self.samples, np.random.default_rng(1))

    def _close(self, first: object, second: object) -> bool:
        return np.allclose(np.asarray(first, float), np.asarray(second, float), rtol=self.tolerance, atol=0.0)

    def test_names_itself(self) -> None:
        """Name and unit are text, the name not empty; the repr has the name and no address."""
        profiler, _ = self._made()
        assert isinstance(profiler.name, str) and profiler.name
        assert isinstance(profiler.unit, str)
        assert profiler.kind in ("analytical", "learned", "measured")
        assert profiler.name in repr(profiler) and " at 0x" not in repr(profiler)

    def test_scalar_and_batch_agree(self) -> None:
        """One by one and as a table, architectures have the same values."""
        profiler, batch = self._made()
        one_by_one = [profiler.profile(architecture) for architecture in batch]
        assert all(type(value) is float for value in one_by_one), "profile must return a float"
        assert self._close(one_by_one, profiler.profile_batch(batch))

    def test_values_are_finite(self) -> None:
        """Values are finite float64 numbers, one for each candidate."""
        profiler, batch = self._made()
        values = profiler.profile_batch(batch)
        assert values.shape == (len(batch),) and values.dtype == np.float64
        assert np.isfinite(values).all()

    def test_order_does_not_matter(self) -> None:
        """A value does not depend on what else is asked, or on the order."""
        profiler, batch = self._made()
        values = profiler.profile_batch(batch)
        order = np.random.default_rng(2).permutation(len(batch))
        other = self.make(self.make_space())
        assert self._close(other.profile_batch(batch[order]), values[order])
        assert self._close(profiler.profile_batch(batch[: len(batch) // 2]), values[: len(batch) // 2])

    def test_accepts_no_candidates(self) -> None:
        """A table without rows has no values."""
        profiler, batch = self._made()
        assert profiler.profile_batch(batch[:0]).shape == (0,)

    def test_leaves_inputs_alone(self) -> None:
        """Candidates and mappings stay as they were."""
        profiler, batch = self._made()
        codes = batch.codes.copy()
        architecture = next(iter(batch))
        kept = dict(architecture)
        profiler.profile_batch(batch)
        profiler.profile(architecture)
        assert np.array_equal(batch.codes, codes) and architecture == kept

    def test_inactive_choices_do_not_matter(self) -> None:
        """Options given for inactive choices change nothing."""
        profiler, batch = self._made()
        for architecture in batch:
            full = {choice.name: choice.options[-1] for choice in self.make_space().choices} | architecture
            assert self._close(profiler.profile(full), profiler.profile(architecture)), f"{full} and {architecture}"

    def test_refuses_what_the_space_lacks(self) -> None:
        """An unknown choice, an unknown option and a missing choice are errors of the space."""
        profiler, batch = self._made()
        good = next(iter(batch))
        first = next(iter(good))
        for wrong in ({**good, "no such choice": 1}, {**good, first: "no such option"}, {}):
            try:
                profiler.profile(wrong)
            except SpaceError:
                continue
            raise AssertionError(f"SpaceError was to be raised for {wrong}, and was not")

    def test_std_is_none_or_non_negative(self) -> None:
        """The standard deviation is None, or a non-negative number for each candidate."""
        profiler, batch = self._made()
        std = profiler.std(batch)
        assert std is None or (np.shape(std) == (len(batch),) and np.isfinite(std).all() and (std >= 0).all())

    def test_bounds_hold_and_are_met(self) -> None:
        """Values lie within the bounds, and the architectures named have them."""
        profiler, batch = self._made()
        bounds = profiler.bounds()
        if bounds is None:
            return
        slack = 1e-9 * max(abs(bounds.low), abs(bounds.high))
        values = profiler.profile_batch(batch)
        assert bounds.low - slack <= values.min() and values.max() <= bounds.high + slack
        assert math.isclose(profiler.profile(bounds.low_architecture), bounds.low, rel_tol=1e-9)
        assert math.isclose(profiler.profile(bounds.high_architecture), bounds.high, rel_tol=1e-9)

    def test_pickles(self) -> None:
        """A copy through pickle gives the same values under the same name."""
        profiler, batch = self._made()
        copy = pickle.loads(pickle.dumps(profiler))
        assert (copy.name, copy.unit, copy.kind, copy.version) == (
            profiler.name,
            profiler.unit,
            profiler.kind,
            profiler.version,
        )
        assert self._close(copy.profile_batch(batch), profiler.profile_batch(batch))

    def test_update_accepts_outcomes(self) -> None:
        """Outcomes may be learned from; a fixed profiler does not change by them."""
        profiler, batch = self._made()
        before, version = profiler.profile_batch(batch), profiler.version
        values = np.linspace(1.0, 2.0, len(batch))
        metrics = {profiler.name: values, "accuracy": values}
        outcomes = Outcomes(
            batch.with_ids(np.arange(len(batch))), [Status.COMPLETED] * len(batch), values[:, None], metrics
        )
        profiler.update(outcomes)
        assert np.isfinite(profiler.profile_batch(batch)).all()
        if profiler.fixed:
            assert profiler.version == version
            assert self._close(profiler.profile_batch(batch), before)

    def test_comparisons_are_limits(self) -> None:
        """Comparisons give constraints, which have no truth value."""
        profiler, batch = self._made()
        values = profiler.profile_batch(batch)
        middle = float(np.median(values))
        upper, lower = profiler <= middle, profiler >= middle
        assert isinstance(upper, Constraint) and isinstance(upper & lower, Constraints)
        assert np.array_equal(upper.holds(values), values <= middle)
        assert np.array_equal(lower.holds(values), values >= middle)
        assert np.array_equal((profiler < middle).holds(values), values < middle)
        assert np.array_equal((profiler > middle).holds(values), values > middle)
        for wrong, error in ((lambda: bool(upper), TypeError), (lambda: profiler <= math.nan, ConstraintError)):
            try:
                wrong()
            except error:
                continue
            raise AssertionError(f"{error.__name__} was to be raised, and was not")

    def test_arithmetic_gives_profilers(self) -> None:
        """Sums and multiples are profilers with the values that their formulas say."""
        profiler, batch = self._made()
        formula = 2 * profiler + 1.0
        assert isinstance(formula, Combination)
        expected = 2 * profiler.profile_batch(batch) + 1.0
        assert self._close(formula.profile_batch(batch), expected)
