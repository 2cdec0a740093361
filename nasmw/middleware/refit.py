"""Refit: profilers learn from what finished trials measured."""

from __future__ import annotations

import copy
from typing import Any

import attrs
import numpy as np

from nasmw.candidates import Outcomes, Status
from nasmw.context import Context
from nasmw.errors import ProfilerError
from nasmw.middleware.values import check_count, check_profiler
from nasmw.profiler import Combination, Profiler, check_names
from nasmw.strategy import Middleware

__all__ = ["Refit"]


@attrs.define(eq=False)
class _Kept:
    """A profiler as it was before a run, and its version when this stage changed it last."""

    profiler: Profiler
    before: Profiler
    version: int


class Refit(Middleware):
    """Hands finished trials to profilers every so often, so that these learn from what was measured.

    A learned profiler is fitted anew to its samples and the raw metric that it is named to learn from
    (``LearnedProfiler(..., metric="measured_ms")``), as far as the evaluation returned it. Candidates pass unchanged,
    and so do outcomes. Values that rode along with a trial stay what they were when it was asked for.

    Each setup brings the profilers back to what they were before the run, unless somebody else has changed them since:
    a run that is resumed replays every update, and ends with the same trials. Limits on a profiler that learns are
    checked by `Filter` under the newest version; they are not offered downward, for what a strategy had promised of an
    older version would no longer hold.

    Args:
        *profilers: The profilers; of a sum of profilers those parts that can learn.
        every: After how many finished trials since the last time.

    Raises:
        TypeError: If there is no profiler, or something else.
        ValueError: If `every` is below 1.
        ProfilerError: If two profilers have one name; at setup, if a profiler is fixed; during a run, if none of the
            finished trials has had the metric that a profiler learns from when it is to learn for the first time.

    Example:
        >>> from nasmw.profilers import LearnedProfiler
        >>> from nasmw.testing import toy_space
        >>> Refit(LearnedProfiler(toy_space(), "ridge", metric="measured_ms"), every=20).every
        20
    """

    def __init__(self, *profilers: Profiler, every: int = 10) -> None:
        if not profilers:
            raise TypeError("Refit needs at least one profiler that learns")
        self.refitted = tuple(dict.fromkeys(part for given in profilers for part in _learning(given)))
        self.every = check_count("Refit", "every", every)
        check_names(self.refitted)
        self._kept: dict[str, _Kept] = {}

    @property
    def profilers(self) -> tuple[Profiler, ...]:
        """The profilers that learn."""
        return self.refitted

    def _setup(self, context: Context) -> None:
        for profiler in self.refitted:
            if profiler.fixed:
                raise ProfilerError(
                    f"Refit cannot teach {profiler!r}: it is fixed (analytical, or frozen); leave it out of Refit"
                )
            kept = self._kept.get(profiler.name)
            if kept is None or kept.profiler is not profiler or kept.version != profiler.version:
                self._kept[profiler.name] = _Kept(profiler, _copied(profiler), profiler.version)
            else:
                vars(profiler).clear()
                vars(profiler).update(vars(_copied(kept.before)))
                kept.version = profiler.version
        self._waiting: list[Outcomes] = []
        self._finished = 0
        self._measured: set[str] = set()

    def _tell(self, outcomes: Outcomes) -> None:
        self._learn(outcomes)
        super()._tell(outcomes)

    def _adopt(self, outcomes: Outcomes) -> None:
        self._learn(outcomes)
        super()._adopt(outcomes)

    def _learn(self, outcomes: Outcomes) -> None:
        rows = [row for row, status in enumerate(outcomes.status) if status is Status.COMPLETED]
        if not rows:
            return
        self._waiting.append(outcomes if len(rows) == len(outcomes) else outcomes[rows])
        self._finished += len(rows)
        if self._finished < self.every:
            return
        told = Outcomes.join(self._waiting)
        self._waiting, self._finished = [], 0
        for profiler in self.refitted:
            self._check_measured(profiler, told)
            profiler.update(told)
            self._kept[profiler.name].version = profiler.version

    def _check_measured(self, profiler: Profiler, told: Outcomes) -> None:
        """Refuse to go on where nothing has been learnt so far, if a profiler says what it learns from."""
        metric = getattr(profiler, "metric", None)
        if not isinstance(metric, str) or profiler.name in self._measured:
            return
        if any(np.isfinite(told.metrics.get(name, [])).any() for name in (metric, profiler.name)):
            self._measured.add(profiler.name)
            return
        raise ProfilerError(
            f"none of the last {len(told)} finished trials has the metric {metric!r}, from which {self.context.stage} "
            f"is to teach {profiler!r}; they have {sorted(told.metrics)}. Return it from evaluate, or name another "
            "metric: LearnedProfiler(..., metric='...')"
        )


def _learning(given: object) -> tuple[Profiler, ...]:
    """Return a profiler, or those parts of a sum that are not fixed."""
    profiler = check_profiler("Refit", given)
    if isinstance(profiler, Combination):
        parts = [part for _, part in profiler.terms if not part.fixed]
        return tuple(parts) or (profiler,)
    return (profiler,)


def _copied(profiler: Profiler) -> Profiler:
    """Return a copy that no update of the profiler changes; the space is the same object."""
    memo: dict[int, Any] = {} if profiler.space is None else {id(profiler.space): profiler.space}
    return copy.deepcopy(profiler, memo)
