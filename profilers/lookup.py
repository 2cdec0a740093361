"""LookupTableProfiler: the latency of a network as the sum of what its layers took on a device."""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from nasmw.candidates import Candidates, Floats
from nasmw.cost import CostTable
from nasmw.errors import ProfilerError
from nasmw.profilers.lookup_file import ChoiceLatencies, LatencyTable, option_key
from nasmw.profilers.lookup_import import TableFormat, read_latency_table
from nasmw.space import Space
from nasmw.spaces.family import Part, tabulate
from nasmw.tabled import TabledProfiler

if TYPE_CHECKING:
    from nasmw.spaces.layers import Placed

__all__ = ["LookupTableProfiler", "described_parts", "missing_layers", "required_layers"]

SHOWN = 6
Term = tuple[Sequence[str], npt.ArrayLike]


class LookupTableProfiler(TabledProfiler):
    """Milliseconds that a network takes on a device, as the sum of latencies that were measured layer by layer.

    All that a search will look up is looked up at construction; if a latency is missing, that is an error which lists
    what is missing. The sum is a table over the choices, so bounds are exact and a limit can be met by construction.
    Its values come from measurements, hence the kind ``"measured"``; but a value is a function of the architecture and
    never changes, so that a run need not record it (`fixed` is True).

    Args:
        space: The space whose architectures are profiled. It describes its layers, as ready spaces of mobile networks
            do, or the table is one over choices.
        source: A `LatencyTable`, or the file that holds one; `read_latency_table` lists the formats.
        name: The name of the metric.
        format: The format of the file, where it is to be checked.
        unit: The unit of the file's latencies where it does not say it: ``"s"``, ``"ms"`` or ``"us"``. Values of the
            profiler are milliseconds in any case.

    Raises:
        ProfilerError: If the file has no known format or no unit, or latencies that the space needs are missing.
        SpaceError: If the table is over choices that the space lacks.

    Example:
        >>> from nasmw import Choice, Space
        >>> space = Space([Choice("kernel", (3, 5)), Choice("width", (8, 16))])
        >>> table = LatencyTable("a phone", choices=[
        ...     ChoiceLatencies.of(["kernel"], [(3, 1.5), (5, 2.5)]),
        ...     ChoiceLatencies.of(["width"], [(8, 10.0), (16, 20.0)]),
        ... ])
        >>> latency = LookupTableProfiler(space, table)
        >>> latency, latency.profile({"kernel": 5, "width": 8})
        (<LookupTableProfiler 'latency_ms' [ms] on a phone>, 12.5)
    """

    table: CostTable

    def __init__(
        self,
        space: Space,
        source: LatencyTable | str | os.PathLike[str],
        *,
        name: str = "latency_ms",
        format: TableFormat | None = None,
        unit: str | None = None,
    ) -> None:
        if not isinstance(space, Space):
            raise TypeError(f"LookupTableProfiler takes a Space first, got {type(space).__name__}")
        if isinstance(source, LatencyTable):
            if unit is not None or format is not None:
                raise ProfilerError("a LatencyTable is in milliseconds; `unit` and `format` are those of files")
            latencies, what = source, f"the table of {source.device}"
        elif isinstance(source, (str, os.PathLike)):
            latencies, what = read_latency_table(source, format, unit), repr(os.fspath(source))
        else:
            raise TypeError(f"LookupTableProfiler takes a LatencyTable or the path of one, got {source!r}")
        terms = _choice_terms(space, latencies, what) if latencies.choices else _layer_terms(space, latencies, what)
        table = CostTable(space, terms, latencies.overhead, name=name)
        super().__init__(table, name, "ms", kind="measured", device=latencies.device)
        self.relative_error = latencies.relative_error

    @property
    def fixed(self) -> bool:
        """True: the table answers, nothing is measured any more."""
        return True

    def std(self, candidates: Candidates) -> Floats | None:
        """Return the table's relative error times each value, ``(n,)``; None where the table states no error."""
        return None if self.relative_error is None else self.relative_error * self.profile_batch(candidates)


def required_layers(space: Space) -> dict[Placed, int]:
    """Return every layer that some network of a space has, each with the number of the space's parts that can have it.

    Raises:
        ProfilerError: If the space does not describe its layers.
    """
    return dict(Counter(placed for part in described_parts(space) for placed in _layers(space, part)))


def missing_layers(space: Space, latencies: LatencyTable) -> dict[str, Placed]:
    """Return what would have to be measured before a table of latencies serves a space.

    Args:
        space: The space, which describes its layers.
        latencies: A table of latencies of layers.

    Returns:
        Each distinct layer once, by the key under which `LatencyTable.layers` is to have its milliseconds. A layer
        says what module to build, and what to apply it to. Empty where nothing is missing.

    Raises:
        ProfilerError: If the space does not describe its layers.
    """
    return {placed.key: placed for placed in required_layers(space) if _latency(latencies, placed) is None}


def _latency(latencies: LatencyTable, placed: Placed) -> float | None:
    """Return the milliseconds of a layer, None where the table lacks it."""
    if type(placed.layer).__name__ in latencies.included:
        return 0.0
    own = latencies.layers.get(placed.image_key)
    return latencies.layers.get(placed.key) if own is None else own


def described_parts(space: Space) -> list[Part]:
    """Return the parts of a space's networks, which describe their layers.

    Raises:
        ProfilerError: If they do not.
    """
    parts = [] if space.parts is None else list(space.parts())
    if not parts or any(part.layers is None for part in parts):
        raise ProfilerError(
            f"{space!r} does not describe its layers, so that their latencies cannot be looked up; give a table over "
            "choices, or make the space with `parts`"
        )
    return parts


def _layers(space: Space, part: Part) -> dict[Placed, None]:
    """Return every layer that a part can have, once, in the order of the options."""
    options = [space.choices[space.column(name)].options for name in part.scope]
    if part.layers is None:
        return {}
    return dict.fromkeys(placed for chosen in itertools.product(*options) for placed in part.layers(*chosen))


def _layer_terms(space: Space, latencies: LatencyTable, what: str) -> Iterable[Term]:
    parts = described_parts(space)
    required = required_layers(space)
    known = {placed: ms for placed in required if (ms := _latency(latencies, placed)) is not None}
    if len(known) < len(required):
        raise ProfilerError(_lacking_layers(space, required, known, what))

    def value(part: Part, *chosen: Any) -> float:
        return sum(known[placed] for placed in part.layers(*chosen)) if part.layers else 0.0

    return tabulate(space, parts, value, np.float64)


def _lacking_layers(space: Space, required: Mapping[Placed, int], known: Mapping[Placed, float], what: str) -> str:
    """Return the message about layers that a table lacks: how many, for which images, and the first of them."""
    missing = [placed for placed in required if placed not in known]
    lines = [f"{what} lacks {len(missing)} of the {len(required)} layers that {space!r} needs."]
    images = Counter(placed.image for placed in required)
    if len(images) > 1:
        by_image = Counter(placed.image for placed in missing)
        counts = (f"{h}x{w}: {by_image[h, w]} of {number}" for (h, w), number in images.items() if by_image[h, w])
        lines.append(f"By size of images: {'; '.join(counts)}.")
    distinct = {placed.key: required[placed] for placed in reversed(missing)}
    first = [f"{key} (in {parts} part{'s' * (parts > 1)})" for key, parts in reversed(distinct.items())][:SHOWN]
    lines.append(f"Missing are {'; '.join(first)}{'; and others' if len(distinct) > SHOWN else ''}.")
    lines.append(
        "Leave out of the space what was not measured, or measure it: "
        "nasmw.profilers.missing_layers(space, table) returns all that is missing."
    )
    return " ".join(lines)


def _choice_terms(space: Space, latencies: LatencyTable, what: str) -> list[Term]:
    named = {space.column(name): name for term in latencies.choices for name in term.names}.values()
    gating = {space.choices[gate].name for gates in space.gates for gate in gates}
    if unnamed := [name for name in space.names if name not in gating.union(named)]:
        raise ProfilerError(
            f"{what} says nothing of {', '.join(map(repr, unnamed[:SHOWN]))}, choices of {space!r}; where one costs "
            "nothing, give it rows of 0"
        )
    terms: list[Term] = []
    missing: list[str] = []
    for term in latencies.choices:
        names, values, lacking = _over_choices(space, term)
        terms.append((names, values))
        missing += [f"{' and '.join(term.names)} being {key}" for key in lacking]
    if missing:
        raise ProfilerError(
            f"{what} lacks {len(missing)} rows that {space!r} needs. Missing are {'; '.join(missing[:SHOWN])}"
            f"{'; and others' if len(missing) > SHOWN else ''}."
        )
    return terms


def _over_choices(space: Space, term: ChoiceLatencies) -> tuple[list[str], npt.NDArray[np.float64], list[str]]:
    """Return a term over its choices and all that decide whether they are active, and the keys that it lacks."""
    named = [space.column(name) for name in term.names]
    scope = list(named)
    for column in scope:  # grows as gates of gates are met
        scope.extend(gate for gate in space.gates[column] if gate not in scope)
    values = np.zeros([len(space.choices[column].options) for column in scope])
    lacking: dict[str, None] = {}
    for codes in np.ndindex(values.shape):
        code_of = dict(zip(scope, codes, strict=True))
        if not all(code_of[gate] in allowed for column in scope for gate, allowed in space.gates[column].items()):
            continue
        key = option_key([space.choices[column].options[code_of[column]] for column in named])
        if key in term.latencies:
            values[codes] = term.latencies[key]
        else:
            lacking[key] = None
    return [space.choices[column].name for column in scope], values, list(lacking)
