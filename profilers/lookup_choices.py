"""ChoiceParts: a network as parts that a few choices decide each, for spaces that do not describe their layers."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence

import attrs
import numpy as np
import numpy.typing as npt

from nasmw.candidates import Codes, Floats
from nasmw.cost import CostTable
from nasmw.errors import ProfilerError
from nasmw.profilers.flops import FlopsProfiler
from nasmw.profilers.inputs import ExampleLike
from nasmw.profilers.lookup_file import ChoiceLatencies
from nasmw.scopes import with_gates
from nasmw.space import Space

__all__ = ["ChoiceParts"]

Pattern = tuple[int, ...]
"""The columns of those choices of a scope that are active."""


@attrs.frozen(eq=False)
class ChoiceParts:
    """The parts of the networks of a space: what each combination of the choices in each scope of its MACs decides.

    A choice that multiply-adds do not depend on, an activation say, is a part by itself.

    Attributes:
        space: The space.
        entries: ``(l,)`` each part by its scope, the active choices of it, and their codes.
        macs: ``(l,)`` the multiply-adds of each part.
    """

    space: Space
    entries: tuple[tuple[tuple[int, ...], Pattern, tuple[int, ...]], ...]
    macs: Floats

    @classmethod
    def of(cls, space: Space, example_input: ExampleLike, *, resolution: str | None = "resolution") -> ChoiceParts:
        """Return the parts of a space, after the table of its multiply-adds.

        Raises:
            ProfilerError: If its multiply-adds are no sum of tables, or all networks have the same.
        """
        table = FlopsProfiler(space, example_input, resolution=resolution, uncounted="ignore", progress=False).table
        if not isinstance(table, CostTable):
            raise ProfilerError(
                f"the multiply-adds of {space!r} are no sum of small tables, so neither are its latencies; measure "
                "each network with a DeviceProfiler"
            )
        if not table.tables:
            raise ProfilerError(
                f"all networks of {space!r} have the same multiply-adds, so that these do not say what parts a latency "
                "has; measure each network with a DeviceProfiler"
            )
        entries, macs = [], []
        counted = {column for scope in table.tables for column in scope}
        uncounted = [
            tuple(sorted(with_gates(space, [column]))) for column in range(len(space)) if column not in counted
        ]
        zeros = {scope: np.zeros([len(space.choices[column].options) for column in scope]) for scope in uncounted}
        for scope, values in {**table.tables, **zeros}.items():
            for codes in np.ndindex(values.shape):
                pattern = _active(space, scope, codes)
                if all(column in pattern or code == 0 for column, code in zip(scope, codes, strict=True)):
                    own = tuple(code for column, code in zip(scope, codes, strict=True) if column in pattern)
                    entries.append((scope, pattern, own))
                    macs.append(float(values[codes]))
        return cls(space, tuple(entries), np.array(macs))

    @property
    def present(self) -> npt.NDArray[np.bool_]:
        """Whether there is something to take time, ``(l,)``: multiply-adds, or every choice of the scope is active."""
        whole = [len(pattern) == len(scope) for scope, pattern, _ in self.entries]
        return np.asarray((self.macs > 0) | np.array(whole))

    @property
    def kinds(self) -> list[str]:
        """The kind of each part: the names of its choices without numbers, so that all blocks are of one kind.

        Without multiply-adds, nothing says how parts compare: there each combination of options is a kind.
        """
        names = [re.sub(r"\d+", "#", name) for name in self.space.names]
        return [
            " ".join(names[column] for column in scope) + (f" {codes}" if macs == 0 else "")
            for (scope, _, codes), macs in zip(self.entries, self.macs, strict=True)
        ]

    def counts(self, codes: Codes) -> Floats:
        """Return which parts the networks of ``(n, d)`` canonical codes have, ``(n, l)`` zeros and ones."""
        number = {entry: place for place, entry in enumerate(self.entries)}
        scopes = list(dict.fromkeys(scope for scope, _, _ in self.entries))
        found = np.zeros((len(codes), len(self.entries)))
        for row, architecture in enumerate(codes.tolist()):
            for scope in scopes:
                own = [architecture[column] for column in scope]
                pattern = _active(self.space, scope, own)
                active = tuple(architecture[column] for column in pattern)
                found[row, number[scope, pattern, active]] = 1.0
        return found

    def latencies(self, parts: Floats) -> list[ChoiceLatencies]:
        """Return the terms of a table of latencies, from the milliseconds of each part, ``(l,)``."""
        grouped: dict[tuple[tuple[int, ...], Pattern], dict[tuple[int, ...], float]] = {}
        for (scope, pattern, codes), value in zip(self.entries, parts.tolist(), strict=True):
            grouped.setdefault((scope, pattern), {})[codes] = value
        return [self._term(pattern, values) for (_, pattern), values in grouped.items()]

    def _term(self, pattern: Pattern, values: dict[tuple[int, ...], float]) -> ChoiceLatencies:
        """Return a term over some choices, 0 for combinations that it says nothing of."""
        choices = [self.space.choices[column] for column in pattern]
        rows = []
        for codes in itertools.product(*(range(len(choice.options)) for choice in choices)):
            options = [choice.options[code] for choice, code in zip(choices, codes, strict=True)]
            rows.append([*options, values.get(codes, 0.0)])
        return ChoiceLatencies.of([choice.name for choice in choices], rows)


def _active(space: Space, scope: Sequence[int], codes: Sequence[int]) -> Pattern:
    """Return those columns of a scope that are active; a scope contains the gates of its choices, before them."""
    code_of = dict(zip(scope, codes, strict=True))
    active: list[int] = []
    for column in scope:
        if all(gate in active and code_of[gate] in allowed for gate, allowed in space.gates[column].items()):
            active.append(column)
    return tuple(active)
