"""TransferEncoding: what other profilers say of an architecture, beside an encoding of it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import attrs
import numpy as np
import numpy.typing as npt

from nasmw.candidates import Candidates, Floats
from nasmw.cost import CostTable
from nasmw.errors import ProfilerError
from nasmw.profiler import Profiler
from nasmw.profilers.learned.base import LearnedProfiler
from nasmw.profilers.learned.encodings import Encoding, Group, Term
from nasmw.space import Space

__all__ = ["NETWORK", "SOURCE", "TransferEncoding"]

SOURCE = "source"
"""The name of the group of columns that hold what the sources say."""
NETWORK = "network"
"""The name of the group of columns that hold the last hidden layer of a source's network."""
DRAWN = 2048
LEAST = 1e-6


@attrs.frozen(eq=False)
class _Plan:
    names: tuple[str, ...]
    groups: tuple[Group, ...]
    inner: Any
    factors: Floats


class TransferEncoding(Encoding):
    """The values of profilers of the same architectures, then the columns of an encoding, scaled for a prior.

    The first group, ``"source"``, has a column for each source. Where the first source is a learned profiler with an
    MLP, the group ``"network"`` has what its last hidden layer gives. The groups of the inner encoding follow.

    Every column is divided by its standard deviation over random architectures of the space. The columns of each
    group but the first are then divided by a common number, such that the sum of squares of what the first source does
    not explain of them (by a straight line) is 1 on average: one variance of the weights then means the same whatever
    the number of columns and the source.

    Args:
        sources: Profilers of a space with the same choices; the networks may be others (of another width, say).
        encoding: Of the architectures.

    Raises:
        TypeError: If a source is no profiler.
        ProfilerError: If there is no source, or one is made for other choices.
    """

    def __init__(self, sources: Sequence[Profiler], encoding: Encoding) -> None:
        if not sources:
            raise ProfilerError("a transfer starts from at least one source profiler")
        for source in sources:
            if not isinstance(source, Profiler):
                raise TypeError(f"the source of a transfer is a Profiler, got {source!r}")
            if source.space is None:
                raise ProfilerError(f"{source!r} was made without a space, and cannot be the source of a transfer")
        self.sources = tuple(sources)
        self.encoding = encoding
        self._digest = hashlib.sha256(self._said(_space_of(sources[0])).tobytes()).hexdigest()[:12]

    def _said(self, space: Space) -> Floats:
        return np.round(self._values(space.sample(64, np.random.default_rng(0))), 9)

    def __str__(self) -> str:
        return f"transfer({self._digest}, {self.encoding})"

    def fingerprint(self, space: Space) -> str:
        """Return what tells the sources' values apart, to nine decimals, and the fingerprint of the encoding.

        Sources that are computed differ in the last bits from machine to machine, and so do all columns.
        """
        return f"{self._digest} {self.encoding.fingerprint(space)}"

    def check(self, space: Space) -> None:
        """Check that the sources know the architectures of a space.

        Raises:
            ProfilerError: If one does not.
        """
        for source in self.sources:
            if _space_of(source).fingerprint != space.fingerprint:
                raise ProfilerError(
                    f"the source {source!r} is about {source.space!r}, whose choices are not those of {space!r}; a "
                    "transfer needs the same choices on both sides (widths of the networks may differ)"
                )

    def _values(self, candidates: Candidates) -> Floats:
        columns = []
        for source in self.sources:
            space = _space_of(source)
            own = candidates if candidates.space is space else Candidates.of(space, candidates.codes)
            columns.append(source.profile_batch(own))
        return np.stack(columns, axis=1)

    def _columns(self, inner: Any, candidates: Candidates, active: npt.NDArray[np.bool_]) -> Floats:
        columns = [self._values(candidates)]
        if (hidden := _hidden(self.sources[0], candidates)) is not None:
            columns.append(hidden)
        columns.append(self.encoding._encode(inner, candidates, active))
        return np.concatenate(columns, axis=1)

    def _prepare(self, space: Space) -> _Plan:
        self.check(space)
        inner = self.encoding.plan(space)
        drawn = space.sample(DRAWN, np.random.default_rng(0))
        values = self._columns(inner, drawn, space.active(drawn.codes))
        own = self.encoding.names(space)
        names = [f"{SOURCE} {source.device or source.name}" for source in self.sources]
        groups = [Group(SOURCE, 0, len(names))]
        if hidden := values.shape[1] - len(names) - len(own):
            groups.append(Group(NETWORK, len(names), len(names) + hidden))
            names += [f"{NETWORK} {number}" for number in range(hidden)]
        start = len(names)
        groups += [Group(group.name, start + group.start, start + group.stop) for group in self.encoding.groups(space)]
        return _Plan((*names, *own), tuple(groups), inner, _factors(values, groups))

    def _encode(self, plan: _Plan, candidates: Candidates, active: npt.NDArray[np.bool_]) -> Floats:
        return self._columns(plan.inner, candidates, active) * plan.factors

    def names(self, space: Space) -> tuple[str, ...]:
        """Return the names of the columns."""
        plan: _Plan = self.plan(space)
        return plan.names

    def groups(self, space: Space) -> tuple[Group, ...]:
        """Return the groups: the sources, the network of the first where it has one, those of the encoding."""
        plan: _Plan = self.plan(space)
        return plan.groups

    def terms(self, space: Space, weights: Floats) -> list[Term] | None:
        """Return the tables of the sources and the terms of the encoding, weighted; None where one has none."""
        plan: _Plan = self.plan(space)
        scaled = weights * plan.factors
        start = len(self.sources)
        for group in plan.groups:
            if group.name == NETWORK:
                if scaled[group.columns].any():
                    return None
                start = group.stop
        found: list[Term] = []
        for source, weight in zip(self.sources, scaled, strict=False):
            if not weight:
                continue
            if not isinstance(source.table, CostTable):
                return None
            found.append(((), np.asarray(source.table.constant * weight)))
            for scope, table in source.table.tables.items():
                found.append((tuple(space.choices[column].name for column in scope), table * weight))
        inner = self.encoding.terms(space, scaled[start:])
        return None if inner is None else [*found, *inner]


def _space_of(source: Profiler) -> Space:
    if source.space is None:
        raise ProfilerError(f"{source!r} was made without a space")
    return source.space


def _hidden(source: Profiler, candidates: Candidates) -> Floats | None:
    """Return the last hidden layer of a learned profiler's network, ``(n, h)``; None where it has no network."""
    if not isinstance(source, LearnedProfiler) or source.predictor.kind != "mlp" or not source.fitted:
        return None
    own = Candidates.of(_space_of(source), candidates.codes)
    arrays = source.predictor.state()
    hidden = (source.encoding.encode(own).values - arrays["centre"]) / arrays["size"]
    layers = sorted((int(name[6:-7]), name) for name in arrays if name.startswith("layer/") and name.endswith("weight"))
    for _, name in layers[:-1]:
        bias = arrays[name[:-6] + "bias"]
        hidden = np.maximum(hidden @ arrays[name].astype(np.float64).T + bias, 0.0)
    return hidden


def _factors(values: Floats, groups: Sequence[Group]) -> Floats:
    """Return what each column is multiplied by."""
    deviations = values.std(axis=0)
    factors = np.where(deviations > LEAST * np.abs(values).max(axis=0), 1.0 / np.maximum(deviations, 1e-300), 0.0)
    scaled = (values - values.mean(axis=0)) * factors
    line = scaled[:, 0]
    for group in groups[1:]:
        own = scaled[:, group.columns]
        left = own - np.outer(line, line @ own / max(float(line @ line), 1e-300))
        size = float(np.sqrt((left**2).sum(axis=1).mean()))
        if size > LEAST:
            factors[group.columns] /= size
    return factors
