"""Space: all architectures that some choices describe, and how a network is built from each."""

from __future__ import annotations

import hashlib
import json
import math
import operator
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from nasmw.candidates import Architecture, Candidates, Codes
from nasmw.choice import Choice
from nasmw.elimination import Program, Variable
from nasmw.errors import BuildError, SpaceError, did_you_mean

if TYPE_CHECKING:
    from torch import nn

    from nasmw.cost import CostTable
    from nasmw.spaces.family import Part

__all__ = ["Space"]

Builder = Callable[[dict[str, Any]], "nn.Module"]
FunctionKey = Callable[[dict[str, Any]], Hashable]
TableFunction = Callable[["Space", "tuple[int, ...] | None"], "CostTable"]
PartsFunction = Callable[[], "Iterable[Part]"]

FEW = 8
"""Up to this many rows are handled one by one in plain Python, which is faster than NumPy there."""
MISSING = object()


def check_draw(n: object, rng: object) -> None:
    """Check the arguments of a draw: a number of candidates, and a generator.

    Raises:
        TypeError: If `n` is no integer, or `rng` no NumPy generator.
        ValueError: If `n` is below 0.
    """
    if isinstance(n, bool) or not isinstance(n, (int, np.integer)):
        raise TypeError(f"the number of candidates to draw is an integer, got {n!r}")
    if n < 0:
        raise ValueError(f"the number of candidates to draw is at least 0, got {n}")
    if not isinstance(rng, np.random.Generator):
        raise TypeError(f"rng is a generator such as numpy.random.default_rng(0), got {rng!r}")


def _code_of(codes: dict[Any, int], option: Any) -> int:
    try:
        return codes.get(option, -1)
    except TypeError:
        return -1


class Space:
    """All architectures that can be described by some choices; says how each is built.

    An architecture is one option for each active choice. It travels as a row of codes (option numbers, 0 where a
    choice is inactive), so that one architecture has one row, and is shown as a plain mapping without the inactive
    choices.

    Args:
        choices: The choices, gates before what they gate.
        build: Takes an architecture, returns its `torch.nn.Module`. Needed only where networks are built; to be used
            by worker processes it must be importable (no lambda).
        name: How messages and logs call the space.
        function_key: Takes an architecture, returns a hashable key that is equal where two architectures are the same
            function although their rows differ (isomorphic cells, say); `Deduplicate` uses it.
        tables: Costs that the space knows in closed form, by metric, such as ``"macs"`` and ``"params"``. Each is an
            importable function of the space and the shape of a batch of inputs, ``(n, channels, height, width)`` for
            images (None: one input of the space's own size), and returns the exact `CostTable` of the whole batch.
            Where the space has a choice named ``"resolution"``, it decides on height and width instead.
        parts: Says what layers the networks consist of: an importable function that returns a
            `nasmw.spaces.family.Part` for each few choices that decide some layers. Latencies of layers are looked up
            by these descriptions.

    Attributes:
        choices: The choices, in declared order.
        name: How messages and logs call the space.
        tables: As given.
        parts: As given.

    Raises:
        SpaceError: If a name occurs twice, or a condition names an unknown or later choice or an unknown option.

    Example:
        >>> space = Space([
        ...     Choice("depth", (1, 2)),
        ...     Choice("block0.kernel", (3, 5)),
        ...     Choice("block1.kernel", (3, 5), when={"depth": (2,)}),
        ... ])
        >>> space.size
        6
        >>> space.decode(space.encode({"depth": 1, "block0.kernel": 5}))
        {'depth': 1, 'block0.kernel': 5}
    """

    def __init__(
        self,
        choices: Iterable[Choice],
        build: Builder | None = None,
        *,
        name: str = "space",
        function_key: FunctionKey | None = None,
        tables: Mapping[str, TableFunction] | None = None,
        parts: PartsFunction | None = None,
    ) -> None:
        if not isinstance(choices, Iterable):
            raise SpaceError(f"a space is made of a list of Choice objects, got {choices!r}")
        self.choices: tuple[Choice, ...] = tuple(choices)
        self.name = name
        self.tables: Mapping[str, TableFunction] = dict(tables or {})
        self.parts = parts
        self._build = build
        self._function_key = function_key
        if not self.choices:
            raise SpaceError("a space needs at least one choice")
        if wrong := [choice for choice in self.choices if not isinstance(choice, Choice)]:
            raise SpaceError(f"a space is made of Choice objects, got {wrong[0]!r}")
        for what, function in (("build", build), ("function_key", function_key)):
            if function is not None and not callable(function):
                raise SpaceError(f"`{what}` must be a function of an architecture, got {function!r}")
        if parts is not None and not callable(parts):
            raise SpaceError(f"`parts` must be a function without arguments, got {parts!r}")
        self._column: dict[str, int] = {}
        self._code: list[dict[Any, int]] = []
        gates: list[dict[int, frozenset[int]]] = []
        for choice in self.choices:
            if choice.name in self._column:
                raise SpaceError(f"two choices are named {choice.name!r}; names must be unique")
            gates.append(self._resolve(choice))
            self._column[choice.name] = len(self._code)
            self._code.append({option: code for code, option in enumerate(choice.options)})
        self._gates = gates
        # Choices under one condition share its number; 0 is no condition. Gates come first, so their conditions do too.
        numbers: dict[tuple[tuple[int, frozenset[int]], ...], int] = {(): 0}
        self._condition_of = [numbers.setdefault(tuple(own.items()), len(numbers)) for own in gates]
        self._conditions = [
            tuple((gate, self._condition_of[gate], allowed) for gate, allowed in condition)
            for condition in list(numbers)[1:]
        ]
        self._gating = frozenset(gate for own in gates for gate in own)
        self._sizes = [len(choice.options) for choice in self.choices]

    def _resolve(self, choice: Choice) -> dict[int, frozenset[int]]:
        """Return the gates of a choice by column and code."""
        gates: dict[int, frozenset[int]] = {}
        for gate, options in choice.when.items():
            if gate not in self._column:
                raise SpaceError(
                    f"choice {choice.name!r} depends on {gate!r}, which is not declared before it"
                    + did_you_mean(gate, self._column)
                )
            column = self._column[gate]
            for option in options:
                if _code_of(self._code[column], option) < 0:
                    raise SpaceError(
                        f"choice {choice.name!r} depends on {gate!r} being {option!r}, which is no option of it"
                        + did_you_mean(option, self.choices[column].options)
                    )
            gates[column] = frozenset(self._code[column][option] for option in options)
            if not gates[column]:
                raise SpaceError(f"choice {choice.name!r} lists no option of {gate!r} under which it matters")
        return gates

    @cached_property
    def _program(self) -> Program:
        return Program(
            [Variable(len(choice.options), gates) for choice, gates in zip(self.choices, self._gates, strict=True)]
        )

    @cached_property
    def dtype(self) -> np.dtype[np.unsignedinteger[Any]]:
        """The smallest unsigned type that holds every code."""
        return np.min_scalar_type(max(len(choice.options) for choice in self.choices) - 1)

    @property
    def size(self) -> int:
        """The exact number of distinct architectures."""
        return self._program.size

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the choices, in declared order."""
        return tuple(self._column)

    def __len__(self) -> int:
        """The number of choices, the ``d`` of codes."""
        return len(self.choices)

    def __bool__(self) -> bool:
        return True

    def __repr__(self) -> str:
        size = self.size
        huge = f"about 10^{math.floor(math.log10(size))}"
        shown = str(size) if size < 10**6 else f"{size:.3e}" if size < 10**300 else huge
        return f"<Space {self.name!r}: {len(self)} choices, {shown} architectures>"

    @cached_property
    def fingerprint(self) -> str:
        """A hash of names, options and conditions: equal where codes mean the same."""
        return hashlib.sha256(json.dumps(self.describe()).encode()).hexdigest()[:16]

    def describe(self) -> list[dict[str, Any]]:
        """Return the choices as JSON-able records, options by their `repr`."""
        return [
            {
                "name": choice.name,
                "options": [repr(option) for option in choice.options],
                "when": {
                    # In the order of the codes: a set of options has another order in each process.
                    self.choices[gate].name: [repr(self.choices[gate].options[code]) for code in sorted(codes)]
                    for gate, codes in gates.items()
                },
            }
            for choice, gates in zip(self.choices, self._gates, strict=True)
        ]

    @property
    def gates(self) -> Sequence[Mapping[int, frozenset[int]]]:
        """For each choice, the columns of the choices in its condition and the codes of them under which it matters."""
        return self._gates

    def column(self, name: str) -> int:
        """Return the column of a choice by its name.

        Raises:
            SpaceError: If the space has no such choice; names the near ones.
        """
        try:
            return self._column[name]
        except KeyError:
            raise SpaceError(f"{self!r} has no choice {name!r}{did_you_mean(name, self._column)}") from None

    def encode(self, architecture: Architecture) -> Codes:
        """Return the row of codes of one architecture, ``(d,)``.

        Options of inactive choices may be given and are ignored, since tables of architectures often carry them.

        Raises:
            SpaceError: If a name or an option is unknown (the near ones are named), or an active choice is missing.
        """
        if not isinstance(architecture, Mapping):
            raise SpaceError(f"an architecture is a mapping of choice names to options, got {architecture!r}")
        for name in architecture:
            if name not in self._column:
                raise SpaceError(f"{self!r} has no choice {name!r}{did_you_mean(name, self._column)}")
        given = [architecture.get(name, MISSING) for name in self._column]
        try:
            row = [codes.get(option, -1) for codes, option in zip(self._code, given, strict=True)]
        except TypeError:  # an option that cannot be hashed
            row = [_code_of(codes, option) for codes, option in zip(self._code, given, strict=True)]
        met = self._met(row)
        row = [code if met[condition] else 0 for code, condition in zip(row, self._condition_of, strict=True)]
        if -1 in row:
            column = row.index(-1)
            choice = self.choices[column]
            if given[column] is MISSING:
                because = f", which matters as {dict(choice.when)!r} holds" if choice.when else ""
                raise SpaceError(f"the architecture lacks choice {choice.name!r}{because}")
            raise SpaceError(
                f"choice {choice.name!r} has no option {given[column]!r}{did_you_mean(given[column], choice.options)}"
            )
        return np.array(row, dtype=self.dtype)

    def decode(self, codes: npt.ArrayLike) -> dict[str, Any]:
        """Return the architecture of one row of codes, without the inactive choices.

        Raises:
            SpaceError: If `codes` is not one row of this space.
        """
        array = np.asarray(codes)
        if array.shape != (len(self.choices),) or array.dtype.kind != "u":
            array = self.check_codes(array[None, ...])[0]
        row = array.tolist()
        if any(map(operator.ge, row, self._sizes)):
            self.check_codes(array[None, :])
        met = self._met(row)
        return {
            choice.name: choice.options[code]
            for choice, code, condition in zip(self.choices, row, self._condition_of, strict=True)
            if met[condition]
        }

    @cached_property
    def _limits(self) -> npt.NDArray[np.int64]:
        return np.array(self._sizes)

    @cached_property
    def _varying(self) -> list[tuple[int, int]]:
        """The choices with several options, by column, each with the number of its condition."""
        return [(c, self._condition_of[c]) for c, size in enumerate(self._sizes) if size > 1]

    @cached_property
    def _tables(self) -> list[list[tuple[int, int, npt.NDArray[np.bool_]]]]:
        """For each condition: columns of gates, the numbers of their conditions, and which codes are allowed."""
        return [
            [(gate, own, np.isin(np.arange(self._sizes[gate]), list(allowed))) for gate, own, allowed in condition]
            for condition in self._conditions
        ]

    def _met(self, row: list[int]) -> list[bool]:
        """Return which conditions hold in one row, by their numbers."""
        met = [True]
        for condition in self._conditions:
            for gate, own, allowed in condition:
                if not met[own] or row[gate] not in allowed:
                    met.append(False)
                    break
            else:
                met.append(True)
        return met

    def _rows(self, rows: list[list[int]]) -> Codes:
        return np.array(rows, dtype=self.dtype, order="F").reshape(len(rows), len(self.choices))

    def check_codes(self, codes: npt.ArrayLike) -> Codes:
        """Return codes as an ``(n, d)`` array of the space's dtype.

        Raises:
            SpaceError: If the shape does not fit, or a code is no option of its choice.
        """
        array = np.asarray(codes)
        if array.ndim != 2 or array.shape[1] != len(self.choices):
            raise SpaceError(f"codes of {self!r} have the shape (n, {len(self.choices)}), got {array.shape}")
        if array.dtype.kind not in "ui":
            raise SpaceError(f"codes are integers, got {array.dtype}")
        if array.size and ((array >= self._limits).any() or (array.dtype.kind == "i" and array.min() < 0)):
            row, column = np.argwhere((array >= self._limits) | (array < 0))[0]
            choice = self.choices[column]
            raise SpaceError(
                f"row {row}: code {array[row, column]} of choice {choice.name!r}, "
                f"which has {len(choice.options)} options"
            )
        return array.astype(self.dtype, copy=False)

    def candidates(self, architectures: Iterable[Architecture] | Codes) -> Candidates:
        """Return candidates (without ids) from mappings, or from ``(n, d)`` codes, which are made canonical."""
        if isinstance(architectures, np.ndarray):
            return Candidates.of(self, self.canonical(architectures))
        if isinstance(architectures, Mapping):
            architectures = [architectures]
        return Candidates.of(self, self._rows([self.encode(architecture).tolist() for architecture in architectures]))

    def active(self, codes: Codes) -> npt.NDArray[np.bool_]:
        """Return the ``(n, d)`` mask of the choices that matter in each row."""
        codes = self.check_codes(codes)
        if 0 < len(codes) <= FEW:
            holds = [self._met(row) for row in codes.tolist()]
            return np.array([[met[number] for number in self._condition_of] for met in holds], order="F")
        met = [np.ones(len(codes), dtype=np.bool_)]
        for condition in self._tables:
            together = met[0].copy()
            for gate, own, allowed in condition:
                together &= met[own] & allowed[codes[:, gate]]
            met.append(together)
        mask = np.empty(codes.shape, dtype=np.bool_, order="F")
        for column, number in enumerate(self._condition_of):
            mask[:, column] = met[number]
        return mask

    def canonical(self, codes: Codes) -> Codes:
        """Return codes with inactive choices set to 0, so that equal architectures have equal rows."""
        codes = self.check_codes(codes)
        if len(codes) <= FEW:
            return self._rows([self._canonical_row(row) for row in codes.tolist()])
        return np.asfortranarray(np.where(self.active(codes), codes, codes.dtype.type(0)))

    def _canonical_row(self, row: list[int]) -> list[int]:
        met = self._met(row)
        return [code if met[condition] else 0 for code, condition in zip(row, self._condition_of, strict=True)]

    def sample(self, n: int, rng: np.random.Generator) -> Candidates:
        """Return `n` candidates drawn uniformly, with replacement, from the distinct architectures.

        Raises:
            TypeError: If `n` is no integer, or `rng` no NumPy generator.
            ValueError: If `n` is below 0.
        """
        check_draw(n, rng)
        codes = self._program.sample(n, rng).astype(self.dtype, copy=False)
        return Candidates.of(self, codes)

    def at(self, ranks: Sequence[int]) -> Candidates:
        """Return the architectures of the given ranks, each from 0 to ``size - 1``; every architecture has one rank.

        Raises:
            IndexError: If a rank is out of range.
        """
        return Candidates.of(self, self._program.unrank(ranks).astype(self.dtype, copy=False))

    def mutate(self, codes: Codes, rng: np.random.Generator, probability: float | None = None) -> Codes:
        """Return a changed copy of each row of codes, ``(n, d)``.

        A changed choice gets one of its other options, uniformly; a choice that becomes active by the change gets any
        of its options, uniformly. Every row changes where the space has more than one architecture.

        Args:
            codes: ``(n, d)`` canonical codes.
            rng: The generator to draw from.
            probability: Each active choice changes with this probability, and one of them in any case; None changes
                exactly one active choice.

        Up to 8 rows are changed one by one and more of them at once: the distribution is the same, the draws are not.
        """
        codes = self.check_codes(codes)
        if len(codes) <= FEW:
            return self._rows([self._mutate_row(row, rng, probability) for row in codes.tolist()])
        active = self.active(codes)
        changeable = active & (self._limits > 1)
        # The choice with the greatest draw is a uniform one, and the first to change where any does.
        draws = np.where(changeable, rng.random(codes.shape), -1.0)
        change = changeable & (draws == draws.max(axis=1, keepdims=True))
        if probability is not None:
            change |= changeable & (draws >= 1.0 - probability)
        other = (codes + 1 + rng.integers(0, np.maximum(self._limits - 1, 1), codes.shape)) % self._limits
        fresh = rng.integers(0, self._limits, codes.shape)
        mixed = np.where(active, np.where(change, other, codes), fresh).astype(self.dtype)
        return self.canonical(mixed)

    def _mutate_row(self, row: list[int], rng: np.random.Generator, probability: float | None) -> list[int]:
        met = self._met(row)
        changeable = [column for column, condition in self._varying if met[condition]]
        if not changeable:
            return row
        if probability is None:
            chosen = [changeable[int(rng.random() * len(changeable))]]
        else:
            draws = rng.random(len(changeable)).tolist()
            least = min(1.0 - probability, max(draws))
            chosen = [column for column, draw in zip(changeable, draws, strict=True) if draw >= least]
        sizes = self._sizes
        changed = row.copy()
        for column, draw in zip(chosen, rng.random(len(chosen)).tolist(), strict=True):
            changed[column] = (row[column] + 1 + int(draw * (sizes[column] - 1))) % sizes[column]
        if self._gating.isdisjoint(chosen):
            return changed
        inactive = [column for column, condition in self._varying if not met[condition]]
        for column, draw in zip(inactive, rng.random(len(inactive)).tolist(), strict=True):
            changed[column] = int(draw * sizes[column])
        return self._canonical_row(changed)

    def crossover(self, first: Codes, second: Codes, rng: np.random.Generator) -> Codes:
        """Return a child of each pair of rows, ``(n, d)``: every choice from one parent or the other, each as likely.

        A choice that is active in one parent only is taken from that one; a choice that is active in the child
        and in neither parent gets any of its options, uniformly.

        Args:
            first: ``(n, d)`` canonical codes.
            second: ``(n, d)`` canonical codes.
            rng: The generator to draw from.

        Raises:
            SpaceError: If the numbers of rows differ.
        """
        first, second = self.check_codes(first), self.check_codes(second)
        if len(first) != len(second):
            raise SpaceError(f"crossover takes as many first as second parents, got {len(first)} and {len(second)}")
        if len(first) <= FEW:
            pairs = zip(first.tolist(), second.tolist(), strict=True)
            return self._rows([self._crossover_row(row, other, rng) for row, other in pairs])
        active, other = self.active(first), self.active(second)
        from_first = np.where(active & other, rng.random(first.shape) < 0.5, active)
        mixed = np.where(from_first, first, second)
        neither = ~(active | other)
        if neither.any():
            mixed = np.where(neither, rng.integers(0, self._limits, first.shape), mixed)
        return self.canonical(mixed)

    def _crossover_row(self, first: list[int], second: list[int], rng: np.random.Generator) -> list[int]:
        active, other = self._met(first), self._met(second)
        mixed = []
        for column, draw in enumerate(rng.random(len(first)).tolist()):
            condition = self._condition_of[column]
            if active[condition] and (draw < 0.5 or not other[condition]):
                mixed.append(first[column])
            elif other[condition]:
                mixed.append(second[column])
            else:
                mixed.append(int(draw * self._sizes[column]))
        return self._canonical_row(mixed)

    def neighbours(self, codes: Codes) -> Candidates:
        """Return all architectures that differ from one row in exactly one of its active choices.

        Choices that become active by the change take their first option.

        Args:
            codes: ``(d,)``, one canonical row.
        """
        row = self.check_codes(np.asarray(codes)[None, :])
        active = self.active(row)[0]
        changed = [
            (column, code)
            for column, limit in enumerate(self._limits.tolist())
            if active[column]
            for code in range(limit)
            if code != row[0, column]
        ]
        rows = np.repeat(row, len(changed), axis=0)
        for number, (column, code) in enumerate(changed):
            rows[number, column] = code
        return Candidates.of(self, self.canonical(rows))

    def function_keys(self, candidates: Candidates) -> list[Hashable]:
        """Return one key per candidate: equal where two are the same function, as far as the space can tell."""
        if self._function_key is None:
            return list(candidates.row_keys())
        keys = []
        for architecture in candidates:
            try:
                key = self._function_key(architecture)
                hash(key)
            except Exception as error:
                raise SpaceError(
                    f"the function_key of {self!r} must return something hashable, and for {architecture!r} raised "
                    f"{type(error).__name__}: {error}"
                ) from error
            keys.append(key)
        return keys

    @property
    def buildable(self) -> bool:
        """Whether the space was given a `build`."""
        return self._build is not None

    @property
    def builder_name(self) -> str:
        """Where the `build` that the space was given is defined, such as ``"my_module.build"``; empty without one."""
        if self._build is None:
            return ""
        function = self._build if hasattr(self._build, "__qualname__") else type(self._build)
        return f"{function.__module__}.{function.__qualname__}"

    def build(
        self, architecture: Architecture, *, seen_as: Callable[[dict[str, Any]], dict[str, Any]] | None = None
    ) -> nn.Module:
        """Return the network of an architecture, as the space's `build` function makes it.

        Args:
            architecture: The architecture.
            seen_as: Takes the complete architecture and returns what `build` is handed instead: a dictionary that
                notes what is read, say.

        Raises:
            BuildError: If the space has no `build`, it raises, or it returns no `torch.nn.Module`.
            SpaceError: If the architecture does not belong to the space.
        """
        from torch import nn

        if self._build is None:
            raise BuildError(
                f"{self!r} was made without `build`; pass Space(choices, build=function) to build networks"
            )
        complete = self.decode(self.encode(architecture))
        try:
            model = self._build(complete if seen_as is None else seen_as(complete))
        except Exception as error:
            raise BuildError(f"building {complete!r} raised {type(error).__name__}: {error}") from error
        if not isinstance(model, nn.Module):
            raise BuildError(f"`build` must return a torch.nn.Module, got {type(model).__name__} for {complete!r}")
        return model
