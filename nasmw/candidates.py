"""Candidates and Outcomes: the frozen columns that travel between the stages of a search."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import attrs
import numpy as np
import numpy.typing as npt

from nasmw.errors import OrderError

__all__ = [
    "BUDGET",
    "RESUME_FROM",
    "STOP_ABOVE",
    "STOP_BELOW",
    "TRIAL",
    "Architecture",
    "Candidates",
    "Codes",
    "Floats",
    "Outcomes",
    "Reports",
    "Status",
]

Architecture = Mapping[str, Any]
"""One option for each active choice, as a plain mapping; inactive choices are left out."""
Codes = npt.NDArray[np.unsignedinteger[Any]]
"""``(n, d)`` small unsigned integers, the option number of each choice; inactive choices are 0."""
Floats = npt.NDArray[np.float64]
BUDGET = "budget"
"""The column by which a strategy says how much the evaluation of a candidate may spend."""
RESUME_FROM = "resume_from"
"""The column by which a strategy says what trial a candidate goes on from; NaN for none."""
TRIAL = "trial"
"""The column that says, in the outcome of a candidate with a budget, what number its trial had."""
STOP_BELOW = "stop_below_at_"
"""With the number of a step behind it, the column of the least value that lets a trial go on from that step."""
STOP_ABOVE = "stop_above_at_"
"""With the number of a step behind it, the column of the greatest value that lets a trial go on from that step."""
Reports = tuple[tuple[int, float], ...]
"""What a trial reported on the way: pairs of step and value, in order."""
NO_ID = -1
NO_IDS = np.full(1, NO_ID, dtype=np.int64)


class Decoder(Protocol):
    """What Candidates need of a space: rows of codes to mappings."""

    def decode(self, codes: Codes) -> dict[str, Any]:
        """Return the architecture of one row."""


class Status(str, enum.Enum):
    """What became of a candidate."""

    COMPLETED = "completed"
    INFEASIBLE = "infeasible"
    DUPLICATE = "duplicate"
    SKIPPED = "skipped"
    FAILED = "failed"
    STOPPED = "stopped"

    def __str__(self) -> str:
        return self.value


def _frozen(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return a read-only view, so that a stage cannot change what another one holds."""
    if not array.flags.writeable:
        return array
    view = array.view()
    view.flags.writeable = False
    return view


def _frozen_columns(columns: Mapping[str, npt.ArrayLike]) -> dict[str, Floats]:
    if not columns:
        return {}
    return {name: _frozen(np.asarray(values, dtype=np.float64)) for name, values in columns.items()}


def _statuses(values: Iterable[Status]) -> tuple[Status, ...]:
    return tuple(values)


def _texts(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(values)


@attrs.frozen(eq=False, repr=False)
class Candidates:
    """A frozen table of architectures on their way to training; it has a length and iterates as mappings.

    Attributes:
        space: The space whose choices the columns of `codes` are.
        codes: ``(n, d)`` unsigned integers; the number of the chosen option, 0 where a choice is inactive.
        ids: ``(n,)`` int64, unique within the stage that issued them; -1 before a stage has issued one.
        columns: Named ``(n,)`` float64 columns that ride along and come back with the outcome.

    Example:
        >>> from nasmw import Choice, Space
        >>> space = Space([Choice("depth", (1, 2)), Choice("width", (8, 16))])
        >>> batch = space.candidates([{"depth": 1, "width": 16}, {"depth": 2, "width": 8}])
        >>> len(batch), list(batch)[0]
        (2, {'depth': 1, 'width': 16})
        >>> len(batch[[True, False]])
        1
    """

    space: Decoder
    codes: Codes = attrs.field(converter=_frozen)
    ids: npt.NDArray[np.int64] = attrs.field(converter=_frozen)
    columns: Mapping[str, Floats] = attrs.field(factory=dict, converter=_frozen_columns)

    @classmethod
    def of(cls, space: Decoder, codes: Codes, columns: Mapping[str, npt.ArrayLike] | None = None) -> Candidates:
        """Return candidates without ids, as a strategy hands them to its base class."""
        ids = NO_IDS if len(codes) == 1 else np.full(len(codes), NO_ID, dtype=np.int64)
        return cls(space, codes, ids, columns or {})

    def __len__(self) -> int:
        return len(self.codes)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (self.space.decode(row) for row in self.codes)

    def __getitem__(self, index: Any) -> Candidates:
        """Select rows by a boolean mask, an index array or a slice; a single integer gives one row."""
        if isinstance(index, (int, np.integer)):
            number = int(index)
            if not -len(self) <= number < len(self):
                raise IndexError(f"row {number} of {len(self)} candidates")
            number %= len(self)
            index = slice(number, number + 1)
        elif not isinstance(index, slice):
            index = np.asarray(index)
            if not index.size and index.dtype != bool:
                index = index.astype(np.intp)
        columns = {name: _own(values[index]) for name, values in self.columns.items()} if self.columns else {}
        return _made(self.space, _own(self.codes[index]), _own(self.ids[index]), columns)

    def __repr__(self) -> str:
        riding = f", columns={sorted(self.columns)}" if self.columns else ""
        return f"Candidates({len(self)} x {self.codes.shape[1]}{riding})"

    def with_ids(self, ids: npt.NDArray[np.int64]) -> Candidates:
        """Return the same rows under other ids."""
        return _made(self.space, self.codes, _frozen(ids), self.columns)

    def with_columns(self, columns: Mapping[str, npt.ArrayLike]) -> Candidates:
        """Return the same rows with further columns; a name that is there already is replaced."""
        if not columns:
            return self
        return _made(self.space, self.codes, self.ids, {**self.columns, **_frozen_columns(columns)})

    def row_keys(self) -> list[bytes]:
        """Return one hashable key per row: equal exactly where the rows are equal."""
        return [row.tobytes() for row in np.ascontiguousarray(self.codes)]

    @classmethod
    def join(cls, parts: Sequence[Candidates]) -> Candidates:
        """Return the rows of all parts, in order; columns that a part lacks are NaN there."""
        if len(parts) == 1:
            return parts[0]
        names = dict.fromkeys(name for part in parts for name in part.columns)
        columns = {
            name: np.concatenate([part.columns.get(name, np.full(len(part), np.nan)) for part in parts])
            for name in names
        }
        codes = np.concatenate([part.codes for part in parts])
        return cls(parts[0].space, codes, np.concatenate([part.ids for part in parts]), columns)


def _own(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Make an array that nobody else holds read-only."""
    array.flags.writeable = False
    return array


def _made(space: Decoder, codes: Codes, ids: npt.NDArray[np.int64], columns: Mapping[str, Floats]) -> Candidates:
    """Return candidates of arrays that are read-only already: most tables have one row, where converters cost most."""
    made = object.__new__(Candidates)
    for name, value in (("space", space), ("codes", codes), ("ids", ids), ("columns", columns)):
        object.__setattr__(made, name, value)
    return made


@attrs.frozen(eq=False, repr=False)
class Outcomes:
    """What became of candidates: the frozen table that a strategy is told.

    Attributes:
        candidates: The candidates, with the ids under which they were asked and the columns that rode along.
        status: One `Status` per candidate.
        scores: ``(n, m)`` float64, one per objective, maximised; NaN where there is none. A strategy must
            accept NaN and may not treat it as a number. Scores are set for completed, duplicate and stopped
            outcomes, and where a stage was configured to tell a bad score instead of dropping.
        metrics: Named ``(n,)`` float64 columns as the evaluation returned them; no stage changes them.
        reasons: One sentence per candidate; empty where there is nothing to say.
        reports: What each trial reported on the way; empty where there was none, or it reported nothing.
    """

    candidates: Candidates
    status: tuple[Status, ...] = attrs.field(converter=_statuses)
    scores: Floats = attrs.field(converter=_frozen)
    metrics: Mapping[str, Floats] = attrs.field(factory=dict, converter=_frozen_columns)
    reasons: tuple[str, ...] = attrs.field(default=(), converter=_texts)
    reports: tuple[Reports, ...] = ()

    def __attrs_post_init__(self) -> None:
        n = len(self.candidates)
        if not self.reasons:
            object.__setattr__(self, "reasons", ("",) * n)
        if not self.reports:
            object.__setattr__(self, "reports", ((),) * n)
        fits = len(self.status) == len(self.reasons) == len(self.reports) == n
        fits = fits and self.scores.ndim == 2 and len(self.scores) == n
        if not fits or any(len(values) != n for values in self.metrics.values()):
            raise ValueError(
                f"outcomes of {n} candidates need {n} statuses, ({n}, m) scores, {n} reasons, reports of {n} trials "
                f"and columns of {n}; got {len(self.status)} statuses, scores {self.scores.shape}, "
                f"{len(self.reasons)} reasons"
            )

    @classmethod
    def turned_away(
        cls,
        candidates: Candidates,
        status: Status,
        reasons: Sequence[str],
        objectives: int,
        score: float | Floats = np.nan,
    ) -> Outcomes:
        """Return the outcomes of candidates that never reached training.

        Args:
            candidates: Who was turned away.
            status: Why, in one word, for all of them.
            reasons: Why, in one sentence each.
            objectives: The number of scores of each.
            score: What the scores are, one number or one per objective; NaN unless the stage tells a bad score.
        """
        scores = np.full((len(candidates), objectives), score, dtype=np.float64)
        return cls(candidates, (status,) * len(candidates), scores, {}, tuple(reasons))

    @property
    def ids(self) -> npt.NDArray[np.int64]:
        """The ids of the candidates, ``(n,)``."""
        return self.candidates.ids

    @property
    def codes(self) -> Codes:
        """The codes of the candidates, ``(n, d)``."""
        return self.candidates.codes

    def __len__(self) -> int:
        return len(self.candidates)

    def __getitem__(self, index: Any) -> Outcomes:
        """Select outcomes by a boolean mask, an index array or a slice."""
        rows = np.arange(len(self))[index]
        if rows.ndim == 0:
            rows = rows[None]
        metrics = {name: values[rows] for name, values in self.metrics.items()}
        return Outcomes(
            self.candidates[rows],
            [self.status[i] for i in rows],
            self.scores[rows],
            metrics,
            [self.reasons[i] for i in rows],
            tuple(self.reports[i] for i in rows),
        )

    def __repr__(self) -> str:
        counts = {status: self.status.count(status) for status in dict.fromkeys(self.status)}
        return f"Outcomes({len(self)}: {', '.join(f'{n} {status}' for status, n in counts.items())})"

    def evolve(
        self,
        *,
        candidates: Candidates | None = None,
        scores: Floats | None = None,
        status: Sequence[Status] | None = None,
        reasons: Sequence[str] | None = None,
    ) -> Outcomes:
        """Return a copy with some parts replaced; metrics and reports are never among them."""
        if candidates is not None and len(candidates) != len(self):
            raise OrderError(f"{len(candidates)} candidates for {len(self)} outcomes")
        return Outcomes(
            self.candidates if candidates is None else candidates,
            self.status if status is None else status,
            self.scores if scores is None else scores,
            self.metrics,
            self.reasons if reasons is None else reasons,
            self.reports,
        )

    @classmethod
    def join(cls, parts: Sequence[Outcomes]) -> Outcomes:
        """Return the outcomes of all parts, in order; metrics that a part lacks are NaN there."""
        if len(parts) == 1:
            return parts[0]
        names = dict.fromkeys(name for part in parts for name in part.metrics)
        metrics = {
            name: np.concatenate([part.metrics.get(name, np.full(len(part), np.nan)) for part in parts])
            for name in names
        }
        return cls(
            Candidates.join([part.candidates for part in parts]),
            [status for part in parts for status in part.status],
            np.concatenate([part.scores for part in parts]),
            metrics,
            [reason for part in parts for reason in part.reasons],
            tuple(reports for part in parts for reports in part.reports),
        )
